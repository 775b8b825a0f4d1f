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
from ltray.tensors import Tensors
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
    validation = _on_split(together, batches, "validation")
    test = _on_split(together, batches, "test")
    for backend in together:
        backend.train(True)
    return [
        Scores(
            figures={
                "val_top1": on_validation.top1,
                "val_loss": on_validation.loss,
                "test_top1": on_test.top1,
                "test_top5": on_test.top5,
                "test_loss": on_test.loss,
            },
            correct={"validation": on_validation.correct, "test": on_test.correct},
        )
        for on_validation, on_test in zip(validation, test, strict=True)
    ]


@dataclass(frozen=True)
class _Measured:
    """One network on one split, with what `Scores` has of it."""

    top1: float
    top5: float
    loss: float
    correct: torch.Tensor


class _Tally:
    """What the K networks of a backend gave over one split, on the device until it is whole."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._top1: list[torch.Tensor] = []
        self._top5: list[torch.Tensor] = []
        self._losses: list[torch.Tensor] = []

    def add(self, logits: Sequence[torch.Tensor], labels: torch.Tensor) -> None:
        """Take in a batch: each network's [B, classes], and [B]."""
        every = torch.stack(list(logits), dim=1)
        hits = best_five(every) == labels[:, None, None]
        self._top1.append(hits[:, :, 0])
        self._top5.append(hits.any(dim=2))
        wanted = labels[:, None].expand(-1, self._count).flatten()
        losses = functional.cross_entropy(every.flatten(0, 1), wanted, reduction="none")
        self._losses.append(losses.view(-1, self._count).double())

    def measured(self, group: Group) -> list[_Measured]:
        """Each network over the images of all processes of a group."""
        top1, top5, losses = (
            self._joined(parts, group) for parts in (self._top1, self._top5, self._losses)
        )
        return [
            _Measured(_share(first), _share(five), float(losses_of_one.mean()), first.cpu())
            for first, five, losses_of_one in zip(top1, top5, losses, strict=True)
        ]

    def _joined(self, parts: list[torch.Tensor], group: Group) -> torch.Tensor:
        """[K, images], each row in one piece."""
        # Where there are fewer images than processes one has none; its zeros change no dtype.
        mine = torch.cat(parts) if parts else torch.zeros(0, self._count, dtype=torch.bool)
        return group.joined(mine).t().contiguous()


def best_five(logits: torch.Tensor) -> torch.Tensor:
    """The classes of the largest logits, the best first: [..., classes] to [..., at most 5].

    Of equal logits, which bfloat16 often gives, `argmax` may take another one.
    """
    return logits.topk(min(5, logits.shape[-1])).indices


def _on_split(together: Sequence[Backend], batches: Batches, split: str) -> list[_Measured]:
    """One for each network."""
    tallies = [_Tally(len(backend.networks)) for backend in together]
    for batch in batches.evaluation(split):
        for backend, tally in zip(together, tallies, strict=True):
            images, labels = on_its_device(backend, batch)
            tally.add(backend.logits(images), labels)
    return list(chain.from_iterable(tally.measured(batches.group) for tally in tallies))


def _share(hits: torch.Tensor) -> float:
    return int(hits.sum()) / hits.numel()
