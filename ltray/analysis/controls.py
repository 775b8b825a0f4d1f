"""Tickets beside their controls: is it the mask and the early weights, or would any do?"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ltray.analysis.columns import Row
from ltray.analysis.correct import COLUMNS, PerImage, paired
from ltray.analysis.grid import Cell, Over, Place, cells
from ltray.analysis.intervals import Interval, mean_interval, mean_test
from ltray.analysis.paired import Pairs, mcnemar, paired_interval
from ltray.analysis.results import Rows
from ltray.analysis.statistics import BeyondChance, corrected, over_of
from ltray.experiment import Experiment
from ltray.lottery.matching import TOLERANCE, by_seed

WHAT = {
    "random_init": "the same mask on fresh initial weights, trained by the whole recipe",
    "shuffled_mask": "the mask shuffled inside each layer, on the same weights, trained alike",
}
"""control -> what it is, in words"""


@dataclass(frozen=True)
class Beside:
    """One cell of the grid and one of its controls, in the replicates that have both.

    Attributes:
        cell, control: at the same place.
        pairs: (ticket, its control) of each replicate and retraining where both are done.
        validation, test: intervals of the mean difference, over replicates or retrainings; where
            the experiment has one of these, over images.
        p_value: that there is no difference on validation, by the same.
    """

    cell: Cell
    control: Cell
    pairs: tuple[tuple[Row, Row], ...]
    validation: Interval | None
    test: Interval | None
    p_value: float | None

    @property
    def comparable(self) -> bool:
        """Whether the mean speaks for both: without diverged ones it would flatter."""
        return bool(self.pairs) and not self.cell.diverged and not self.control.diverged

    @property
    def difference(self) -> float:
        """The mean of ticket minus control on validation."""
        return fmean(_differences(self.pairs, "validation"))

    @property
    def test_difference(self) -> float:
        """The mean of ticket minus control on test."""
        return fmean(_differences(self.pairs, "test"))

    @property
    def side(self) -> int:
        """1 where the whole interval of validation is above zero, -1 where below, else 0."""
        if not self.comparable or self.validation is None:
            return 0
        return int(self.validation.low > 0) - int(self.validation.high < 0)


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
    if not found.comparable:
        return Verdict("matching", "random_init has not finished")
    if found.side > 0:
        one = len(found.pairs) == 1
        return Verdict("winning", "on this one seed" if one else "beats random_init")
    return Verdict("matching", "below random_init" if found.side < 0 else "not beyond random_init")


def beside(
    rows: Rows, experiment: Experiment, control: str, per_image: PerImage
) -> dict[Place, Beside]:
    """(sparsity, reset point) -> the cell there and its control of a kind.

    Args:
        per_image: has the tickets and controls of `single_pairs`.
    """
    found = {}
    over = over_of(experiment)
    for cell, of_control in _places(rows, experiment, control):
        pairs = _pairs(cell, of_control)
        validation, test = (_interval(pairs, split, over, per_image) for split in COLUMNS)
        p_value = _p_value(pairs, over, per_image)
        found[cell.place] = Beside(cell, of_control, pairs, validation, test, p_value)
    return found


def beyond_control(found: Mapping[Place, Beside], over: Over) -> BeyondChance:
    """How many cells differ from their control on validation by more than chance, Holm's way."""
    tests = [(one.difference, one.p_value) for one in found.values() if one.comparable]
    return corrected(tests, over)


def single_pairs(rows: Rows, experiment: Experiment) -> list[Row]:
    """Tickets and controls that only images can tell apart: the one seed of their cell."""
    chosen: dict[tuple[int, str], Row] = {}
    for control in experiment.controls:
        for cell, of_control in _places(rows, experiment, control):
            pairs = _pairs(cell, of_control)
            if len(pairs) == 1:
                chosen |= {(row["replicate"], row["ticket"]): row for row in pairs[0]}
    return list(chosen.values())


def _places(rows: Rows, experiment: Experiment, control: str) -> Iterator[tuple[Cell, Cell]]:
    return zip(cells(rows, experiment), cells(rows, experiment, control), strict=True)


def _pairs(cell: Cell, control: Cell) -> tuple[tuple[Row, Row], ...]:
    """A control on fresh initial weights, which is trained once, stands beside all retrainings."""
    others = {(row["replicate"], row["retraining"]): row for row in control.done}
    fresh = any(row["control"] == "random_init" for row in control.done)
    keys = [(row["replicate"], 0 if fresh else row["retraining"]) for row in cell.done]
    pairs = zip(cell.done, keys, strict=True)
    return tuple((row, others[key]) for row, key in pairs if key in others)


def _differences(pairs: Sequence[tuple[Row, Row]], split: str) -> list[float]:
    """One for each that chance is reckoned over."""
    column = COLUMNS[split]
    found = [(ticket["replicate"], ticket[column] - control[column]) for ticket, control in pairs]
    return by_seed(found)


def _interval(
    pairs: Sequence[tuple[Row, Row]], split: str, over: Over, per_image: PerImage
) -> Interval | None:
    if over != "images":
        found = mean_interval(_differences(pairs, split))
        # Equal differences, of a few replicates and whole images, are no sign of no spread.
        return found if found is not None and found.high - found.low > TOLERANCE else None
    images = _images(pairs, split, per_image)
    return None if images is None else paired_interval(images)


def _p_value(pairs: Sequence[tuple[Row, Row]], over: Over, per_image: PerImage) -> float | None:
    if over != "images":
        return mean_test(_differences(pairs, "validation"))
    images = _images(pairs, "validation", per_image)
    return None if images is None else mcnemar(images)


def _images(pairs: Sequence[tuple[Row, Row]], split: str, per_image: PerImage) -> Pairs | None:
    """One ticket and its control, image by image; None where either could not be read."""
    if not pairs:
        return None
    keys = [(row["replicate"], row["ticket"]) for row in pairs[0]]
    if not all(key in per_image.tickets for key in keys):
        return None
    ticket, control = (per_image.tickets[key][split] for key in keys)
    return paired(ticket, control)
