"""Fully connected networks on a CPU by their kept weights alone, K of them as one.

K networks, B images, F features, O outputs. Between layers the features come first and the networks
one after the other, [K * F, B]: a row of weights is then a sum of few contiguous rows. The weights
of a layer are one matrix in compressed sparse rows (CSR), the networks' blocks below each other
where they see the same images, along the diagonal in later layers. What is pruned is neither
computed nor updated, so it stays exactly zero. Outputs are computed in float32 also where the
recipe allows bfloat16.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ltray.training.backends.backend import Seats
from ltray.training.backends.plain import flattens_images, why_not_plain
from ltray.training.backends.sparse import SparseLinear
from ltray.training.backends.together import Together
from ltray.training.network import Network

MOST_IMAGES = 128  # evaluated at once: the features of more do not stay in a core's cache


def why_not(model: nn.Module) -> str | None:
    """Why a model cannot be trained so, or None. Decided by exact types, as for `fused`."""
    if type(model) is not nn.Sequential:
        return f"the network is a {type(model).__name__}, not a sequence of layers"
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return "it is not on a CPU"
    return _why_not_layers(model) or why_not_plain(model)


def _why_not_layers(model: nn.Sequential) -> str | None:
    for name, layer in model.named_children():
        if type(layer) not in (nn.Flatten, nn.Linear, nn.ReLU):
            return f"{name} is a {type(layer).__name__}"
    kinds = [type(layer) for layer in model]
    if kinds != [nn.Flatten, nn.Linear, *[nn.ReLU, nn.Linear] * (len(kinds) // 2 - 1)]:
        return "it is not a Flatten, then Linear layers with one ReLU between each two"
    return None if flattens_images(model[0]) else "its Flatten does not make rows of images"


def csr(seats: Seats) -> Together:
    """A backend that computes all seats by one network of sparse layers.

    Each network has the bits that it would have alone, so empty seats are left out.
    """
    taken = tuple(seat for seat in seats if seat is not None)
    return Together(seats, _Sparse(taken), computed=taken)


class _Sparse:
    """Layers of all networks, and an optimizer over their kept weights."""

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        recipe = networks[0].recipe
        layers = networks[0].model.named_children()
        names = [name for name, layer in layers if isinstance(layer, nn.Linear)]
        self._layers = [
            SparseLinear(
                [network.model.get_submodule(name) for network in networks],  # type: ignore[misc]
                [network.factors.get(f"{name}.weight") for network in networks],
                shared=name == names[0],
                bfloat16=recipe.train.precision == "bfloat16",
            )
            for name in names
        ]
        self._stacks = [stack for layer in self._layers for stack in layer.stacks]
        self._kept = [
            (network, kept)
            for stack in self._stacks
            for network, kept in zip(networks, stack.parts, strict=True)
        ]
        self.optimizer = recipe.optimizer([kept.values for _, kept in self._kept])
        for network, kept in self._kept:
            state = network.optimizer.state.get(kept.whole, {})
            parts = {name: kept.of(part) for name, part in state.items()}
            self.optimizer.state[kept.values] = parts

    def logits(self, images: Tensor) -> Tensor:
        if len(images) > MOST_IMAGES and not torch.is_grad_enabled():
            return torch.cat([self._logits(few) for few in torch.split(images, MOST_IMAGES)])
        return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        features = images.flatten(1).t().contiguous()
        *hidden, output = self._layers
        for layer in hidden:
            features = layer.product(features).relu_()
        return output.product(features).view(len(self._networks), -1, len(images)).permute(2, 0, 1)

    def hand_out_gradients(self) -> None:
        for stack in self._stacks:
            stack.hand_out_gradients()

    @torch.no_grad()
    def settle(self) -> None:
        """Write weights and optimizer state back into the networks' own."""
        for network, kept in self._kept:
            kept.write(kept.values, kept.whole)
            state = network.optimizer.state[kept.whole]
            for name, part in self.optimizer.state[kept.values].items():
                if part.shape == kept.values.shape:
                    kept.write(part, state.setdefault(name, torch.zeros_like(kept.whole)))
                else:
                    state[name] = part.clone()  # Adam's step count

    def train(self, mode: bool) -> None:
        """There is nothing that would know the difference."""
