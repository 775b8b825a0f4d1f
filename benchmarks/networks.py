"""What the benchmarks of training share: tickets with a random mask, and random batches."""

from dataclasses import dataclass
from typing import Literal

import torch

from ltray.experiment import Train
from ltray.lottery.snapshot import Snapshot
from ltray.models.networks import build
from ltray.models.prunable import prunable
from ltray.training.network import Network
from ltray.training.recipe import Recipe


@dataclass(frozen=True)
class Case:
    """A network and what it is trained with.

    Attributes:
        side: pixels a side.
    """

    arch: str
    channels: int
    side: int
    batch_size: int
    classes: int = 10
    precision: Literal["float32", "bfloat16"] = "float32"
    sparsity: float = 0.9

    @property
    def recipe(self) -> Recipe:
        """So small a rate that no loss becomes infinite, however long it is measured."""
        train = Train(
            epochs=1000,
            batch_size=self.batch_size,
            lr=1e-4,
            momentum=0.9,
            weight_decay=1e-4,
            precision=self.precision,
        )
        return Recipe(train, steps_per_epoch=1000)


def ticket(
    case: Case,
    device: torch.device,
    masked: bool = True,
    seed: int = 0,
    state: Snapshot | None = None,
) -> Network:
    """A ticket at the first step or at a saved state, or the same network without masks.

    Every seed has weights of its own and the same mask, as the reset points of a mask do.
    """
    model = build(case.arch, case.classes, case.channels, case.side, seed)
    source = torch.Generator().manual_seed(0)
    mask = {
        name: torch.rand(model.get_parameter(name).shape, generator=source) >= case.sparsity
        for name in prunable(model)
    }
    start = state or Snapshot(step=0, model=dict(model.state_dict()))
    placed = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Network(f"ticket {seed}", placed, start, mask if masked else {}, case.recipe, 0)


def batch(case: Case, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images and labels."""
    source = torch.Generator().manual_seed(1)
    shape = (case.batch_size, case.channels, case.side, case.side)
    images = torch.randn(shape, generator=source).to(device)
    labels = torch.randint(case.classes, (case.batch_size,), generator=source).to(device)
    return images.contiguous(memory_format=torch.channels_last), labels
