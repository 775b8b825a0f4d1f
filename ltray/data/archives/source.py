"""What every source can do, and what is found in a piece of it.

N examples, k numbers that say where an example lies in its source's files.
"""

import errno
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ltray.data.decode import Unreadable
from ltray.errors import LtrayError

SPLITS = ("train", "val", "test")
SPLIT_WORDS = {"train": "train", "val": "val", "validation": "val", "test": "test"}
UNKNOWN = -1
MAX_CLASSES = 1_000_000

# What libraries raise on bytes that are not what they expect.
BROKEN_BYTES = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    pa.ArrowException,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)

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


class Section(NamedTuple):
    """A piece of a source that can be looked through by itself: a file, an archive inside one.

    Args:
        name: what to call it; the beginning of its keys where it is an archive.
        place: where it lies, meaning what the source wants.
        refused: why it cannot be looked through; empty for most.
    """

    name: str
    place: tuple[int, ...] = ()
    refused: str = ""


@dataclass(frozen=True, eq=False)
class Found:
    """What a section holds: split -> examples, and the inputs that no split took.

    Keys are as the source has them, so that one may come twice.
    """

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

    def sections(self) -> list[Section]:
        """The source's pieces, in its own order."""

    def look_through(self, section: Section, /) -> Found:
        """Every input of one section; no image is decoded."""

    def class_names(self) -> list[str]:
        """The names that the source has for its labels, in their order; it may have none."""

    def read(self, examples: Examples) -> Iterator[Image]:
        """The raw image of each example in the given order.

        Bytes of an encoded file, or uint8 [H, W] or [H, W, C]; Unreadable where the source itself
        cannot give the image.
        """


class Finds:
    """Collects what a section holds, in the source's own order."""

    def __init__(self) -> None:
        self._refused: list[Refused] = []
        self._rows: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}

    def take(self, split: str, name: str, label: int, place: tuple[int, ...]) -> None:
        """Add one input; one of train without a label is refused, since it cannot be learnt."""
        if label == UNKNOWN and split == "train":
            self.refuse(name, "no label")
        else:
            self._rows.setdefault(split, []).append((name, label, place))

    def refuse(self, name: str, reason: str) -> None:
        """Add an input that goes to the quarantine."""
        self._refused.append(Refused(name, reason))

    def found(self) -> Found:
        """All of it."""
        splits = {split: _examples(rows) for split, rows in self._rows.items()}
        return Found(splits, self._refused)


def split_by_name(name: str) -> str:
    """The split that a file's name tells, else the nearest of its folders; train by default."""
    for part in reversed(PurePosixPath(name).parts):
        for word in re.findall("[a-z]+", part.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return "train"


@contextmanager
def damage_is_told(where: str, mend: str) -> Iterator[None]:
    """What a library raises on damaged bytes becomes one error; a disk's and a store's stay.

    Raises:
        LtrayError: the file at `where` is damaged.
    """
    try:
        yield
    except MemoryError:
        raise  # Arrow's is an ArrowException too
    except (*BROKEN_BYTES, OSError) as error:
        if isinstance(error, OSError) and not _is_of_the_bytes(error):
            raise
        raise LtrayError(where, f"is damaged or only partly there: {error}", mend) from error


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


def _is_of_the_bytes(error: OSError) -> bool:
    """Arrow's own OSErrors have no number; a seek to a place before the file is EINVAL."""
    return type(error) is OSError and error.errno in (None, errno.EINVAL)


def _examples(rows: list[tuple[str, int, tuple[int, ...]]]) -> Examples:
    keys = [key for key, _, _ in rows]
    labels = np.fromiter((label for _, label, _ in rows), np.int32, len(rows))
    places = np.array([place for _, _, place in rows], dtype=np.int64).reshape(len(rows), -1)
    return Examples(keys, labels, places)
