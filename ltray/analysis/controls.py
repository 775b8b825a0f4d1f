"""Tickets beside their controls: is it the mask and the early weights, or would any do?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ltray.analysis.columns import Row
from ltray.analysis.correct import PerImage
from ltray.analysis.differences import Difference, beyond_chance, difference_of, trained
from ltray.analysis.grid import Cell, Over, Place, cells
from ltray.analysis.results import Rows
from ltray.analysis.statistics import BeyondChance, over_of
from ltray.experiment import Experiment

WHAT = {
    "random_init": "the same mask on fresh initial weights, trained by the whole recipe",
    "shuffled_mask": "the mask shuffled inside each layer, on the same weights, trained alike",
}
"""control -> what it is, in words"""


@dataclass(frozen=True)
class Beside:
    """One cell of the grid and one of its controls.

    Attributes:
        cell, control: at the same place.
        difference: ticket minus control; None where no replicate has both, and where some diverged.
    """

    cell: Cell
    control: Cell
    difference: Difference | None

    @property
    def side(self) -> int:
        """1 where the whole interval of validation is above zero, -1 where below, else 0."""
        return 0 if self.difference is None else self.difference.side


@dataclass(frozen=True)
class Verdict:
    """What may be said of a matching ticket.

    Attributes:
        word: matching or winning.
        why: what its control on fresh initial weights has to do with it.
    """

    word: str
    why: str


def verdict(found: Beside | None) -> Verdict:
    """Judge a matching cell by its control on fresh initial weights; None where none was asked for.

    A single seed is called winning only on that seed.
    """
    if found is None:
        return Verdict("matching", "no control")
    if found.control.diverged:
        return Verdict("matching", "random_init diverged")
    if found.difference is None:
        return Verdict("matching", "random_init has not finished")
    if found.difference.interval is None:
        return Verdict("matching", "no interval against random_init")
    if found.side > 0:
        one = found.difference.seeds == 1
        return Verdict("winning", "on this one seed" if one else "beats random_init")
    return Verdict("matching", "below random_init" if found.side < 0 else "not beyond random_init")


def beside(
    rows: Rows, experiment: Experiment, control: str, per_image: PerImage
) -> dict[Place, Beside]:
    """(sparsity, reset point) -> the cell there and its control of a kind.

    Args:
        per_image: has the tickets and controls of `single_pairs`.
    """
    once, over = control == "random_init", over_of(experiment)
    return {
        cell.place: Beside(
            cell,
            other,
            difference_of(trained(cell, per_image), trained(other, per_image), over, once=once),
        )
        for cell, other in _places(rows, experiment, control)
    }


def beyond_control(found: Mapping[Place, Beside], over: Over) -> BeyondChance:
    """How many cells differ from their control on validation by more than chance, Holm's way."""
    return beyond_chance([one.difference for one in found.values() if one.difference], over)


def single_pairs(rows: Rows, experiment: Experiment) -> list[Row]:
    """Tickets and controls that only images can tell apart: the one seed of their cell."""
    if over_of(experiment) != "images":
        return []
    places = (one for kind in experiment.controls for one in _places(rows, experiment, kind))
    both = [(cell, other) for cell, other in places if cell.comparable and other.comparable]
    every = [row for pair in both for cell in pair for row in cell.done]
    return list({(row["replicate"], row["ticket"]): row for row in every}.values())


def _places(rows: Rows, experiment: Experiment, control: str) -> Iterator[tuple[Cell, Cell]]:
    return zip(cells(rows, experiment), cells(rows, experiment, control), strict=True)
