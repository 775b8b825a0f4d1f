"""Which images each network has right, from the correct.safetensors of tickets and dense runs.

Arrays are uint8 [ceil(images / 8)], one bit per image in the fixed order of the split.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltray.analysis.columns import Row
from ltray.analysis.paired import Pairs
from ltray.analysis.results import Rows
from ltray.files import read_all
from ltray.headers import header_of
from ltray.layout import RunFolder
from ltray.lottery.tickets import TicketKey

COLUMNS = {"validation": "val_top1", "test": "test_top1"}
"""split -> the column that has its accuracy"""


@dataclass(frozen=True)
class Right:
    """The images of one split that a network has right."""

    images: int
    bits: NDArray[np.uint8]

    @property
    def count(self) -> int:
        return int(np.bitwise_count(self.bits).sum())


Correct = Mapping[str, Right]
"""split -> what a network has right of it"""


@dataclass
class PerImage:
    """What could be read of a run.

    Attributes:
        dense: by replicate.
        tickets: those that were asked for.
        unreadable: file -> what is wrong with it.
    """

    dense: dict[int, Correct] = field(default_factory=dict)
    tickets: dict[TicketKey, Correct] = field(default_factory=dict)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def images(self, split: str) -> int | None:
        """How many images a split has; None where no dense run's file could be read."""
        return next((correct[split].images for correct in self.dense.values()), None)

    def pairs(self, row: Row, split: str) -> Pairs | None:
        """A ticket beside its dense run; None where either could not be read."""
        ticket = self.tickets.get((row["replicate"], row["ticket"]))
        dense = self.dense.get(row["replicate"])
        return None if ticket is None or dense is None else paired(ticket[split], dense[split])


def paired(one: Right, other: Right) -> Pairs | None:
    """How two networks differ on the same images; None where their numbers of images differ."""
    if one.images != other.images:
        return None
    gained, lost = one.bits & ~other.bits, other.bits & ~one.bits
    return Pairs(
        images=one.images,
        gained=int(np.bitwise_count(gained).sum()),
        lost=int(np.bitwise_count(lost).sum()),
    )


def read_per_image(run: RunFolder, rows: Rows, tickets: Sequence[Row]) -> PerImage:
    """Read the files of all dense runs and of some finished tickets, side by side."""
    found = PerImage()
    dense = {run.replicate(number).dense_correct: row for number, row in rows.dense.items()}
    ended = {run.replicate(row["replicate"]).ticket(row["ticket"]).correct: row for row in tickets}
    for row, correct in _readable(dense, found.unreadable):
        found.dense[row["replicate"]] = correct
    for row, correct in _readable(ended, found.unreadable):
        found.tickets[row["replicate"], row["ticket"]] = correct
    return found


def _readable(
    files: Mapping[Path, Row], unreadable: dict[Path, str]
) -> Iterator[tuple[Row, Correct]]:
    """Each row with what its file says; files that say nothing, or another thing, are noted."""
    for (path, row), content in zip(files.items(), read_all(list(files)), strict=True):
        if content is None:
            unreadable[path] = "is missing"
            continue
        try:
            yield row, _parsed(content, row)
        except ValueError as error:
            unreadable[path] = f"is damaged: {error}"


def _parsed(content: bytes, row: Row) -> Correct:
    """What a file holds, if it agrees with the row of its network.

    Raises:
        ValueError: it does not, or is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        bits, images = load(content), header_of(content).get("images", {})
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    correct = {}
    for split, column in COLUMNS.items():
        if split not in bits or not isinstance(images.get(split), int):
            raise ValueError(f"has nothing of {split}")
        correct[split] = Right(images[split], bits[split])
        _check(correct[split], row[column], split)
    return correct


def _check(right: Right, top1: float, split: str) -> None:
    whole = right.images > 0 and right.bits.dtype == np.uint8
    if not whole or right.bits.shape != (-(-right.images // 8),):
        raise ValueError(f"{split} is not one bit for each of {right.images} images")
    if round(top1 * right.images) != right.count:
        raise ValueError(f"{right.count} of {right.images} are right in {split}, not {top1:.6f}")
