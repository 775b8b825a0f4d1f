"""K networks computed as one: what is the same whatever they are computed by.

K seats, B images, C channels, H W pixels.
"""

import copy
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltray.training.backends.backend import Seats


class Joint(Protocol):
    """The seats' networks as one network.

    Attributes:
        optimizer: of the parameters of all networks, that is of the seats that are taken.
    """

    optimizer: torch.optim.Optimizer

    def logits(self, images: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, K, classes], float32 or wider."""

    def hand_out_gradients(self) -> None:
        """Give the optimizer's parameters what backward() left, masked, and leave nothing."""

    def settle(self) -> None:
        """Let each network's own model and optimizer have what it learnt."""

    def train(self, mode: bool) -> None:
        """Put all into training mode, or into evaluation mode."""


class Together:
    """A backend of joint networks.

    Args:
        seats: as a backend is opened with.
        joint: what computes them.
        computed: the seats that it computes, some of which may be empty: these have weights that
            nobody keeps.
    """

    def __init__(self, seats: Seats, joint: Joint, computed: Seats) -> None:
        self.seats = seats
        self.networks = [network for network in seats if network is not None]
        self._joint = joint
        self._count = len(computed)
        self._taken = [place for place, network in enumerate(computed) if network is not None]
        first = self.networks[0]
        self._smoothing = first.recipe.train.label_smoothing
        self._loss_sums = torch.zeros(self._count, dtype=torch.float64, device=first.device)
        for place, network in zip(self._taken, self.networks, strict=True):
            self._loss_sums[place] = network.loss_sum
            network.loss_sum = self._loss_sums[place]

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        self.networks[0].prepare_step(self._joint.optimizer)
        losses = self._losses(images, labels)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._joint.hand_out_gradients()
        self._joint.optimizer.step()
        self._loss_sums.add_(losses.detach())
        for network in self.networks:
            network.count_step()

    def settle(self) -> None:
        self._joint.settle()

    def train(self, mode: bool) -> None:
        self._joint.train(mode)

    def logits(self, images: Tensor) -> Sequence[Tensor]:
        every = self._joint.logits(images)
        return [every[:, place] for place in self._taken]

    def _losses(self, images: Tensor, labels: Tensor) -> Tensor:
        """[K]; the gradient of their sum is each seat's own."""
        # Images along rows: each seat's sum is then the same however many seats there are, and a
        # CPU computes softmax over few classes for many images at once.
        each = functional.cross_entropy(
            self._joint.logits(images).permute(1, 2, 0),
            labels.expand(self._count, -1),
            reduction="none",
            label_smoothing=self._smoothing,
        )
        return each.mean(1)


def models_of(seats: Seats) -> list[nn.Module]:
    """One model a seat: its network's own, or a copy of the first network's where it is empty."""
    first = next(network for network in seats if network is not None)
    return [copy.deepcopy(first.model) if seat is None else seat.model for seat in seats]
