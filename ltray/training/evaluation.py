"""Validation and test figures of networks, over every image of both splits.

B images, C channels, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from ltray.data.batches import Batches
from ltray.lottery.snapshot import Tensors
from ltray.training.network import Network


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
def evaluate(networks: Sequence[Network], batches: Batches) -> list[Scores]:
    """Measure networks with BatchNorm in evaluation mode and no augmentation."""
    for network in networks:
        network.model.eval()
    validation = _Tally.over(networks, batches, "validation")
    test = _Tally.over(networks, batches, "test")
    for network in networks:
        network.model.train()
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

    @staticmethod
    def over(networks: Sequence[Network], batches: Batches, split: str) -> "list[_Tally]":
        tallies = [_Tally() for _ in networks]
        for images, labels in batches.evaluation(split):
            for network, tally in zip(networks, tallies, strict=True):
                tally.add(network.logits(images), labels)
        return tallies

    def add(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        first = logits.topk(min(5, logits.shape[1]), dim=1).indices
        hits = first == labels[:, None]
        self._top1.append(hits[:, 0])
        self._top5.append(hits.any(dim=1))
        self._losses.append(functional.cross_entropy(logits, labels, reduction="none").double())

    def top1(self) -> float:
        return _mean(self._top1)

    def top5(self) -> float:
        return _mean(self._top5)

    def loss(self) -> float:
        return float(torch.cat(self._losses).mean())

    def correct(self) -> torch.Tensor:
        return torch.cat(self._top1).cpu()


def _mean(hits: list[torch.Tensor]) -> float:
    every = torch.cat(hits)
    return int(every.sum()) / every.numel()
