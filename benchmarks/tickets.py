"""What the benchmarks train: tickets with random masks and weights, and a batch that is random too.

B images, C channels, S pixels per side.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from ltray.experiment import Train
from ltray.lottery.snapshot import Snapshot
from ltray.models.networks import build
from ltray.models.prunable import prunable
from ltray.training.network import Network
from ltray.training.recipe import Recipe

CLASSES = 10
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Case:
    """A network and what it is given.

    Attributes:
        image_size: pixels per side.
    """

    arch: str
    channels: int
    image_size: int
    batch_size: int
    precision: Precision = "float32"

    def tickets(
        self, count: int, sparsity: float, device: torch.device, masked: bool = True
    ) -> list[Network]:
        """So many tickets with one mask, as a pack of one level has; without masks, the same."""
        return [self._ticket(number, sparsity if masked else 0, device) for number in range(count)]

    def batch(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [B, C, S, S] in channels-last layout, labels [B]."""
        source = torch.Generator().manual_seed(1)
        shape = (self.batch_size, self.channels, self.image_size, self.image_size)
        images = torch.randn(shape, generator=source).to(device)
        labels = torch.randint(CLASSES, (self.batch_size,), generator=source).to(device)
        return images.contiguous(memory_format=torch.channels_last), labels

    def _ticket(self, seed: int, sparsity: float, device: torch.device) -> Network:
        model = build(self.arch, CLASSES, self.channels, self.image_size, seed)
        state = Snapshot(step=0, model=dict(model.state_dict()))
        source = torch.Generator().manual_seed(0)
        mask = {
            name: torch.rand(model.get_parameter(name).shape, generator=source) >= sparsity
            for name in prunable(model)
        }
        train = Train(
            epochs=1000,
            batch_size=self.batch_size,
            lr=1e-4,
            momentum=0.9,
            weight_decay=1e-4,
            precision=self.precision,
        )
        placed = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Network(f"ticket {seed}", placed, state, mask, Recipe(train, 100), data_seed=0)
