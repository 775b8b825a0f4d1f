"""What every source can do, and the index of what it holds.

N examples, k numbers that say where an example lies in its source's files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ltray.data.held_out import held_out
from ltray.data.pixels import Unreadable
from ltray.errors import LtrayError

SPLITS = ("train", "val", "test")
UNKNOWN = -1
TEST_SHARE = 0.2
MAX_CLASSES = 1_000_000

Image = bytes | NDArray[np.uint8] | Unreadable


class Geometry(NamedTuple):
    """What the first image shows: image_size is None where it, or another, is not square."""

    image_size: int | None
    channels: Literal[1, 3]


class Refused(NamedTuple):
    """An input that was not taken, and why."""

    key: str
    reason: str


@dataclass(frozen=True, eq=False)
class Examples:
    """Some of a split's images: how they are called, what they show, where they lie.

    Args:
        keys: N unique names; member paths in the source.
        labels: int32 [N], -1 = unknown.
        places: int64 [N, k], meaning what the source wants.
    """

    keys: list[str]
    labels: NDArray[np.int32]
    places: NDArray[np.int64]

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> "Examples":
        """These rows, in this order."""
        index = np.asarray(rows, dtype=np.int64)
        keys = [self.keys[row] for row in index.tolist()]
        return Examples(keys, self.labels[index], self.places[index])


@dataclass(frozen=True, eq=False)
class Index:
    """All that a source holds: split -> examples, and the inputs that no split took."""

    splits: dict[str, Examples]
    refused: list[Refused]


class Source(Protocol):
    """A source of images; frozen and picklable, since it travels to tasks."""

    @property
    def name(self) -> str:
        """As data.source has it."""

    def files(self) -> list[Path]:
        """The source's own files, sorted.

        Raises:
            LtrayError: one is missing.
        """

    def geometry(self) -> Geometry:
        """Size and channels, from headers or the first image alone."""

    def index(self) -> Index:
        """Every input of the source; no image is decoded."""

    def class_names(self) -> list[str]:
        """One name per label, in the order of labels."""

    def read(self, examples: Examples) -> Iterator[Image]:
        """The raw image of each example in the given order.

        Bytes of an encoded file, or uint8 [H, W] or [H, W, C]; Unreadable where the source itself
        cannot give the image.
        """


class IndexBuilder:
    """Collects a source's inputs in the source's own order."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._refused: list[Refused] = []
        self._rows: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}

    def take(self, split: str, name: str, label: int, place: tuple[int, ...]) -> None:
        """Add one input; one of train without a label is refused, since it cannot be learnt."""
        if label == UNKNOWN and split == "train":
            self.refuse(name, "no label")
        else:
            self._rows.setdefault(split, []).append((self._unique(name), label, place))

    def refuse(self, name: str, reason: str) -> None:
        """Add an input that goes to the quarantine."""
        self._refused.append(Refused(self._unique(name), reason))

    def index(self) -> Index:
        """The index; a source with neither val nor test gets a fixed fifth of train as test.

        Raises:
            LtrayError: no image to train on.
        """
        if "train" not in self._rows:
            raise LtrayError("data.path", self._nothing(), "point data.path at a whole data set")
        splits = {split: _examples(self._rows[split]) for split in SPLITS if self._rows.get(split)}
        if list(splits) == ["train"]:
            splits = _with_test(splits["train"])
        return Index(splits, self._refused)

    def _unique(self, name: str) -> str:
        key, number = name, 1
        while key in self._seen:
            number += 1
            key = f"{name}#{number}"
        self._seen.add(key)
        return key

    def _nothing(self) -> str:
        reasons = sorted({refused.reason for refused in self._refused})
        why = f"; {len(self._refused)} inputs were refused: {', '.join(reasons[:3])}"
        return "holds no labelled image to train on" + (why if reasons else "")


def check_labels(labels: NDArray[np.integer], where: str) -> None:
    """Refuse labels that cannot number classes.

    Raises:
        LtrayError: a label below -1, or so large that it is no class number.
    """
    wrong = labels[(labels < UNKNOWN) | (labels >= MAX_CLASSES)]
    if wrong.size:
        raise LtrayError(
            where,
            f"has label {wrong[0]}; labels number the classes from 0, and -1 means unknown",
            "number the classes 0, 1, 2, ...",
        )


def _examples(rows: list[tuple[str, int, tuple[int, ...]]]) -> Examples:
    keys = [key for key, _, _ in rows]
    labels = np.fromiter((label for _, label, _ in rows), np.int32, len(rows))
    places = np.array([place for _, _, place in rows], dtype=np.int64).reshape(len(rows), -1)
    return Examples(keys, labels, places)


def _with_test(train: Examples) -> dict[str, Examples]:
    is_test = held_out(train.keys, train.labels, TEST_SHARE, "test")
    return {
        "train": train.take(np.flatnonzero(~is_test)),
        "test": train.take(np.flatnonzero(is_test)),
    }
