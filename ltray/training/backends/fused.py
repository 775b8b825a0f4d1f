"""K networks as one: grouped convolutions, batched products, BatchNorm over K times the channels.

K seats, B images. Stacked parameters and their gradients have K times the first axis.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ltray.training.backends.backend import Seats
from ltray.training.backends.layers import stacked
from ltray.training.backends.together import Together, models_of
from ltray.training.backends.torch_compiler import compiled
from ltray.training.network import Network, at_least_float32


def fused(seats: Seats) -> Together:
    """A backend that computes all seats by one model of stacked layers."""
    return Together(seats, _Stacked(seats), computed=seats)


def compiled_fused(seats: Seats) -> Together:
    """The same with compiled training steps."""
    joint = _Stacked(seats)
    joint.compile()
    return Together(seats, joint, computed=seats)


class _Stacked:
    """One model, whose parameters the networks' own are views of."""

    def __init__(self, seats: Seats) -> None:
        self._seats = seats
        self._networks = [network for network in seats if network is not None]
        self._model = stacked(models_of(seats))
        self._forward: Callable[[torch.Tensor], torch.Tensor] = self._model
        self._parameters = dict(self._model.named_parameters())
        self._factors = _stacked_factors(seats, self._parameters)
        self.optimizer = _joint_optimizer(self._networks)

    def compile(self) -> None:
        """Take compiled training steps."""
        self._forward = compiled(self._model)

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        forward = self._forward if self._model.training else self._model
        with self._networks[0].autocast():
            every = at_least_float32(forward(images))
        return every.view(len(images), len(self._seats), -1)

    def hand_out_gradients(self) -> None:
        whole: dict[str, torch.Tensor] = {}
        for name, parameter in self._parameters.items():
            assert parameter.grad is not None, f"{name} is not used"
            whole[name] = parameter.grad
            parameter.grad = None
        if self._factors:
            pruned = [whole[name] for name in self._factors]
            torch._foreach_mul_(pruned, list(self._factors.values()))
        parts = {name: gradient.chunk(len(self._seats)) for name, gradient in whole.items()}
        for place, network in enumerate(self._seats):
            if network is not None:
                for name, parameter in network.parameters.items():
                    parameter.grad = parts[name][place]

    def settle(self) -> None:
        """They have it: their tensors are views of the stacked ones."""

    def train(self, mode: bool) -> None:
        self._model.train(mode)


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
