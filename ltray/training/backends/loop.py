"""The networks of a pack one after the other, on one stream of batches."""

from collections.abc import Sequence

import torch

from ltray.training.backends.backend import Seats
from ltray.training.backends.torch_compiler import compiled


class Loop:
    """Each network by its own model and optimizer; the reference for the other backends."""

    def __init__(self, seats: Seats) -> None:
        self.seats = seats
        self.networks = [network for network in seats if network is not None]

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        for network in self.networks:
            network.train_step(images, labels)

    def settle(self) -> None:
        """They have it."""

    def train(self, mode: bool) -> None:
        for network in self.networks:
            network.model.train(mode)

    def logits(self, images: torch.Tensor) -> Sequence[torch.Tensor]:
        return [network.logits(images) for network in self.networks]


def compiled_loop(seats: Seats) -> Loop:
    """The same with compiled training steps."""
    loop = Loop(seats)
    for network in loop.networks:
        network.forward = compiled(network.model)
    return loop
