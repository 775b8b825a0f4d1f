"""What a backend is."""

from collections.abc import Sequence
from typing import Protocol

import torch

from ltray.training.network import Network

Seats = tuple[Network | None, ...]
"""A pack's networks that train together, in the pack's order. None is one that takes no part any
more, or not yet again: a backend that computes all as one keeps its place, so that the bits of the
others do not depend on it."""


class Backend(Protocol):
    """Networks of one architecture, recipe and data order that stand at one step.

    A network's own model and optimizer have what it learnt after `settle`.
    """

    @property
    def seats(self) -> Seats:
        """As it was opened."""

    @property
    def networks(self) -> Sequence[Network]:
        """Those of the seats that are taken, in order."""

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        """Take the next step of every network.

        Args:
            images: [B, C, H, W] float, normalised.
            labels: [B] int64.
        """

    def settle(self) -> None:
        """Let each network's own model and optimizer have what it learnt."""

    def train(self, mode: bool) -> None:
        """Put all networks into training mode, or into evaluation mode."""

    def logits(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        """Each network's outputs, [B, classes] float."""


def on_its_device(
    backend: Backend, batch: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch where a backend's networks are; a copy to another GPU is not waited for."""
    images, labels = batch
    device = backend.networks[0].device
    return images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
