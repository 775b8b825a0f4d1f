"""How one network is trained: steps, learning rates, optimizer. No network and no data here."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import torch

from ltray.experiment import Train, step_of


@dataclass(frozen=True)
class Recipe:
    """The recipe of an experiment on a data set of known size.

    Attributes:
        at_last_rate: every step has the learning rate of the last.
    """

    train: Train
    steps_per_epoch: int
    at_last_rate: bool = False

    @property
    def total_steps(self) -> int:
        return self.train.epochs * self.steps_per_epoch

    @property
    def evaluate_every(self) -> int:
        """Steps between evaluations."""
        every = self.train.evaluate_every
        return self.steps_per_epoch if every == "epoch" else every

    def evaluates_after(self, step: int) -> bool:
        """Whether an evaluation follows when `step` steps are done; the last always has one."""
        return step % self.evaluate_every == 0 or step == self.total_steps

    def next_pause(self, step: int) -> int:
        """The first step after this one where an epoch ends or an evaluation is due."""
        lengths = (self.steps_per_epoch, self.evaluate_every)
        return min(step + length - step % length for length in lengths)

    def learning_rate(self, step: int) -> float:
        """The rate of the step with this number, from 0.

        Warm-up rises in equal steps to lr, reached at the first step after it (Goyal et al. 2017,
        section 2.2); cosine falls from lr to 0 over the steps after warm-up (Loshchilov & Hutter
        2017, without restarts); step divides by ten at each of the drops.
        """
        train = self.train
        if self.at_last_rate:
            step = self.total_steps - 1
        warmup = step_of(train.warmup_epochs, self.steps_per_epoch)
        if step < warmup:
            return train.lr * (step + 1) / (warmup + 1)
        if train.schedule == "cosine":
            done = (step - warmup) / (self.total_steps - warmup)
            return train.lr * 0.5 * (1 + cos(pi * done))
        drops = [step_of(drop, self.steps_per_epoch) for drop in train.drops]
        fallen = sum(step >= drop for drop in drops)
        return float(train.lr / 10**fallen)

    def optimizer(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        """A fresh optimizer. Weight decay reaches every parameter, as in the papers followed."""
        train = self.train
        common: dict[str, Any] = {
            "lr": train.lr,
            "weight_decay": train.weight_decay,
            "fused": True,  # one pass over memory in place of four
        }
        if train.optimizer == "sgd":
            return _sgd(parameters, train.momentum, train.nesterov, common)
        kind = torch.optim.Adam if train.optimizer == "adam" else torch.optim.AdamW
        return kind(parameters, **common)


def _sgd(
    parameters: Iterable[torch.nn.Parameter],
    momentum: float,
    nesterov: bool,
    common: dict[str, Any],
) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(parameters, momentum=momentum, nesterov=nesterov, **common)
    if momentum:
        # torch makes momenta at the first step, but not for some of the parameters only: a ticket
        # that joins a pack has none yet. A momentum of zero gives the same first step.
        for parameter in optimizer.param_groups[0]["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
