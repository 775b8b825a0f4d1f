"""K networks as one: grouped convolutions, batched products, BatchNorm over K times the channels.

K seats, B images. Stacked parameters and their gradients have K times the first axis.
"""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from ltray.training.backends.backend import Seats
from ltray.training.backends.layers import stacked
from ltray.training.network import Network, at_least_float32


class Fused:
    """All seats by one model, whose parameters the networks' own are views of.

    An empty seat computes with another's weights, which then stay as they are.
    """

    def __init__(self, seats: Seats) -> None:
        self.seats = seats
        self.networks = [network for network in seats if network is not None]
        self._taken = [place for place, network in enumerate(seats) if network is not None]
        first = self.networks[0]
        models = [copy.deepcopy(first.model) if seat is None else seat.model for seat in seats]
        self._model = stacked(models)
        self._parameters = dict(self._model.named_parameters())
        self._factors = _stacked_factors(seats, self._parameters)
        self._optimizer = _joint_optimizer(self.networks)
        self._loss_sums = torch.zeros(len(self.seats), dtype=torch.float64, device=first.device)
        for place, network in zip(self._taken, self.networks, strict=True):
            self._loss_sums[place] = network.loss_sum
            network.loss_sum = self._loss_sums[place]

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        first = self.networks[0]
        first.prepare_step(self._optimizer)
        self._model.zero_grad(set_to_none=True)
        losses = self._losses(images, labels)
        losses.sum().backward()  # type: ignore[no-untyped-call]
        self._hand_out_gradients()
        self._optimizer.step()
        self._loss_sums.add_(losses.detach())
        for network in self.networks:
            network.count_step()

    def settle(self) -> None:
        """They have it: their tensors are views of the stacked ones."""

    def train(self, mode: bool) -> None:
        self._model.train(mode)

    def logits(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        every = self._every_logits(images)
        return [every[:, place] for place in self._taken]

    def _every_logits(self, images: torch.Tensor) -> torch.Tensor:
        """[B, K, classes]."""
        with self.networks[0].autocast():
            together = at_least_float32(self._model(images))
        return together.unflatten(1, (len(self.seats), -1))

    def _losses(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """[K]; the gradient of their sum is each seat's own."""
        logits = self._every_logits(images).flatten(0, 1)
        smoothing = self.networks[0].recipe.train.label_smoothing
        each = functional.cross_entropy(
            logits,
            labels.repeat_interleave(len(self.seats)),
            reduction="none",
            label_smoothing=smoothing,
        )
        return each.view(-1, len(self.seats)).mean(0)

    def _hand_out_gradients(self) -> None:
        """Mask the stacked gradients and give each network its part."""
        whole: dict[str, torch.Tensor] = {}
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None, f"{name} is not used"
            whole[name] = parameter.grad
        if self._factors:
            pruned = [whole[name] for name in self._factors]
            torch._foreach_mul_(pruned, list(self._factors.values()))
        parts = {name: gradient.chunk(len(self.seats)) for name, gradient in whole.items()}
        for place, network in zip(self._taken, self.networks, strict=True):
            for name, parameter in network.parameters.items():
                parameter.grad = parts[name][place]


def _stacked_factors(seats: Seats, parameters: dict[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Parameter -> the masks of all seats as 0.0 and 1.0, where one of them prunes it."""
    pruned = {name for seat in seats if seat is not None for name in seat.factors}
    stacked_factors = {}
    for name in sorted(pruned):
        factor = torch.ones_like(parameters[name], requires_grad=False)
        for part, seat in zip(factor.chunk(len(seats)), seats, strict=True):
            if seat is not None and name in seat.factors:
                part.copy_(seat.factors[name])
        stacked_factors[name] = factor
    return stacked_factors


def _joint_optimizer(networks: Sequence[Network]) -> torch.optim.Optimizer:
    """One optimizer of all networks' parameters, whose state the networks share.

    Each parameter has its own step count, by which Adam corrects its moments: networks that joined
    the pack at other times go together.
    """
    every = [parameter for network in networks for parameter in network.parameters.values()]
    joint = networks[0].recipe.optimizer(every)
    for network in networks:
        for parameter in network.parameters.values():
            if parameter in network.optimizer.state:
                joint.state[parameter] = network.optimizer.state[parameter]
    for network in networks:
        network.optimizer.state = joint.state
    return joint
