"""Validation and test figures of networks, over every image of both splits.

B images, C channels, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch.nn import functional

from ltray.data.batches import Batches
from ltray.group import Group
from ltray.lottery.snapshot import Tensors
from ltray.training.backends.backend import Backend, on_its_device


@dataclass(frozen=True)
class Scores:
    """One network's figures.

    Attributes:
        figures: val_top1, val_loss, test_top1, test_top5, test_loss; accuracies in [0, 1].
        correct: `validation` and `test`: bool [images], whether top-1 was right, in the fixed
            order of the split.
    """

    figures: dict[str, float]
    correct: Tensors


@torch.inference_mode()
def evaluate(together: Sequence[Backend], batches: Batches) -> list[Scores]:
    """Measure networks with BatchNorm in evaluation mode and no augmentation.

    Each process of a group measures its part of the images, and all have the scores of all images.

    Returns:
        One for each network, in the order of the backends.
    """
    for backend in together:
        backend.train(False)
    validation = _tallies(together, batches, "validation")
    test = _tallies(together, batches, "test")
    for backend in together:
        backend.train(True)
    return [
        Scores(
            figures={
                "val_top1": on_validation.top1(),
                "val_loss": on_validation.loss(),
                "test_top1": on_test.top1(),
                "test_top5": on_test.top5(),
                "test_loss": on_test.loss(),
            },
            correct={"validation": on_validation.correct(), "test": on_test.correct()},
        )
        for on_validation, on_test in zip(validation, test, strict=True)
    ]


class _Tally:
    """Sums of one network over one split, on the device until they are asked for."""

    def __init__(self) -> None:
        self._top1: list[torch.Tensor] = []
        self._top5: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        first = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = first == labels[:, None]
        self._top1.append(hits[:, 0])
        self._top5.append(hits.any(dim=1))
        self._losses.append(functional.cross_entropy(logits, labels, reduction="none").double())

    def join(self, group: Group) -> None:
        """Take in what the other processes of a group have measured on their parts."""
        self._top1 = [_joined(self._top1, group)]
        self._top5 = [_joined(self._top5, group)]
        self._losses = [_joined(self._losses, group)]

    def top1(self) -> float:
        return _mean(self._top1)

    def top5(self) -> float:
        return _mean(self._top5)

    def loss(self) -> float:
        return float(torch.cat(self._losses).mean())

    def correct(self) -> torch.Tensor:
        return torch.cat(self._top1).cpu()


def _tallies(together: Sequence[Backend], batches: Batches, split: str) -> list[_Tally]:
    """One for each network."""
    tallies = [[_Tally() for _ in backend.networks] for backend in together]
    for batch in batches.evaluation(split):
        for backend, own in zip(together, tallies, strict=True):
            images, labels = on_its_device(backend, batch)
            for tally, logits in zip(own, backend.logits(images), strict=True):
                tally.add(logits, labels)
    every = list(chain.from_iterable(tallies))
    for tally in every:
        tally.join(batches.group)
    return every


def _joined(measured: list[torch.Tensor], group: Group) -> torch.Tensor:
    # Where there are fewer images than processes one has none; what it gives changes no dtype.
    return group.joined(torch.cat(measured) if measured else torch.zeros(0, dtype=torch.bool))


def _mean(hits: list[torch.Tensor]) -> float:
    every = torch.cat(hits)
    return int(every.sum()) / every.numel()
