"""Fully connected networks on a CPU by their kept weights alone.

K networks, B images, F features. What is pruned is neither computed nor updated, so it stays
exactly zero. Networks of one mask that are neighbours in a pack share its pattern, and their first
layers read each image once. All is computed in float32, also where the recipe allows bfloat16.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ltray.training.backends.backend import Seats
from ltray.training.backends.plain import flattens_images, why_not_plain
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
    """A backend that computes all seats by their kept weights, mask by mask.

    Each network has the bits that it would have alone, so empty seats are left out.
    """
    taken = tuple(seat for seat in seats if seat is not None)
    return Together(seats, _Sparse(taken), computed=taken)


class _Sparse:
    """Tickets mask by mask, and an optimizer over their kept weights."""

    def __init__(self, networks: Sequence[Network]) -> None:
        # Numba takes a second to import, and only this needs it.
        from ltray.training.backends.sparse import SparseTickets, of_one_mask

        self._groups = [SparseTickets(run) for run in of_one_mask(networks)]
        every = [vector for group in self._groups for vector in group.vectors]
        self.optimizer = networks[0].recipe.optimizer(every)
        for group in self._groups:
            group.restore(self.optimizer)
        self._outputs = torch.empty(0)

    def logits(self, images: Tensor) -> Tensor:
        if len(images) > MOST_IMAGES and not torch.is_grad_enabled():
            return torch.cat([self._logits(few) for few in torch.split(images, MOST_IMAGES)])
        return self._logits(images)

    def _logits(self, images: Tensor) -> Tensor:
        features = images.flatten(1).t().contiguous().numpy()
        made = [group.outputs(features) for group in self._groups]
        self._outputs = torch.from_numpy(np.concatenate(made))
        self._outputs.requires_grad_(torch.is_grad_enabled())
        return self._outputs.permute(2, 0, 1)

    def hand_out_gradients(self) -> None:
        assert self._outputs.grad is not None, "backward() has run"
        gradients, first = self._outputs.grad.numpy(), 0
        for group in self._groups:
            stop = first + len(group.vectors)
            group.backward(gradients[first:stop])
            first = stop

    def settle(self) -> None:
        for group in self._groups:
            group.settle(self.optimizer)

    def train(self, mode: bool) -> None:
        """There is nothing that would know the difference."""
