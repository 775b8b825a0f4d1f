"""One training minus another of the same seed, in points of accuracy, with what chance allows."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from ltray.analysis.columns import Row
from ltray.analysis.correct import COLUMNS, Correct, PerImage, paired, read_per_image
from ltray.analysis.grid import Cell, Over
from ltray.analysis.intervals import Interval, mean_interval, mean_test
from ltray.analysis.paired import Pairs, mcnemar, paired_interval
from ltray.analysis.results import Rows
from ltray.analysis.statistics import BeyondChance, corrected, vary
from ltray.layout import RunFolder
from ltray.lottery.matching import by_seed


@dataclass(frozen=True)
class Trained:
    """One training: its row, and which images it has right where only images can tell."""

    row: Row
    correct: Correct | None


@dataclass(frozen=True)
class Difference:
    """A training minus what it is set beside, on validation.

    Attributes:
        value: the mean over replicates; of a single one over retrainings.
        test: the mean on test, which chooses nothing.
        pairs: how many replicates, or retrainings, have both.
        seeds: of how many replicates these are.
        interval: over these, or over images where the experiment has one training of each; None
            where one of several is done, where retrainings of one seed stand beside one training,
            and where all differences are equal.
        test_interval: likewise, on test.
        p_value: that there is none on validation, by the same; None where nothing tells.
    """

    value: float
    test: float
    pairs: int
    seeds: int
    interval: Interval | None
    test_interval: Interval | None
    p_value: float | None

    @property
    def side(self) -> int:
        """1 where the whole interval is above zero, -1 where below, else 0."""
        if self.interval is None:
            return 0
        return int(self.interval.low > 0) - int(self.interval.high < 0)


def right_images(folder: RunFolder, rows: Rows, over: Over) -> PerImage:
    """Of every training that is done, where only images can tell them apart."""
    if over != "images":
        return PerImage()
    done = [row for row in rows.tickets.values() if row["status"] == "done"]
    return read_per_image(folder, rows, done)


def trained(cell: Cell, known: PerImage) -> list[Trained]:
    """A cell's trainings that are done; none where some diverged: their mean would flatter."""
    if not cell.comparable:
        return []
    correct = [known.tickets.get((row["replicate"], row["ticket"])) for row in cell.done]
    return [Trained(row, right) for row, right in zip(cell.done, correct, strict=True)]


def difference_of(
    ours: Sequence[Trained], others: Sequence[Trained], over: Over, once: bool = False
) -> Difference | None:
    """Of the replicates and retrainings that have both; None where none has.

    Args:
        once: the other is trained once in a replicate, and stands beside all retrainings.
    """
    beside = {_seed(one.row, once): one for one in others}
    keys = [_seed(one.row, once) for one in ours]
    pairs = [(one, beside[at]) for one, at in zip(ours, keys, strict=True) if at in beside]
    if not pairs:
        return None
    seeds = len({one.row["replicate"] for one, _ in pairs})
    val, test = (_split(pairs, split, over, once) for split in COLUMNS)
    count = seeds if over == "replicates" else len(pairs)
    return Difference(val.mean, test.mean, count, seeds, val.interval, test.interval, val.p_value)


def beyond_chance(differences: Sequence[Difference], over: Over) -> BeyondChance:
    """How many are beyond chance, with Holm's correction for all of them."""
    return corrected([(one.value, one.p_value) for one in differences], over)


def _seed(row: Row, once: bool) -> tuple[int, int]:
    return row["replicate"], 0 if once else row["retraining"]


class _OnSplit(NamedTuple):
    mean: float
    interval: Interval | None
    p_value: float | None


def _split(
    pairs: Sequence[tuple[Trained, Trained]], split: str, over: Over, once: bool
) -> _OnSplit:
    """What pairs say on one split."""
    column = COLUMNS[split]
    values = by_seed(
        [(one.row["replicate"], one.row[column] - other.row[column]) for one, other in pairs]
    )
    interval = p_value = None
    if over == "images":
        ((one, other),) = pairs
        found = _on_images(one, other, split)
        if found is not None:
            interval, p_value = paired_interval(found), mcnemar(found)
    elif vary([one.row["replicate"] for one, _ in pairs], over, once):
        interval, p_value = mean_interval(values), mean_test(values)
    return _OnSplit(fmean(values), interval, p_value)


def _on_images(one: Trained, other: Trained, split: str) -> Pairs | None:
    """None where the images of one could not be read."""
    if one.correct is None or other.correct is None:
        return None
    return paired(one.correct[split], other.correct[split])
