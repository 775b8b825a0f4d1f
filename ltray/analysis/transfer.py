"""Does a ticket transfer? Those of other experiments on a target, beside what they must beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean

from ltray.analysis.columns import Row
from ltray.analysis.grid import Cell, Place, cells, counts_of
from ltray.analysis.intervals import Interval, mean_interval, mean_test
from ltray.analysis.results import Rows, collect
from ltray.analysis.statistics import BeyondChance, corrected
from ltray.data.manifest import read_manifest
from ltray.data.selection import image_counts
from ltray.experiment import Experiment
from ltray.files import is_there
from ltray.lottery.matching import TOLERANCE, by_seed, last_matching
from ltray.lottery.transferring import Transferred
from ltray.run import Run

AGAINST = {
    "same_point": "the dense network from the same reset point of the source",
    "fresh": "fresh training of the dense network",
    "shuffled_mask": "the mask shuffled inside each layer, on the same weights",
    "random_init": "the mask on fresh initial weights",
    "own": "the target's own ticket of that sparsity, at its best reset point by validation",
}
"""What a transferred ticket is set beside -> in words"""


@dataclass(frozen=True)
class Difference:
    """A ticket minus what it is set beside, on validation.

    Attributes:
        value: the mean over replicates; of a single one over retrainings.
        test: the mean on test, which chooses nothing.
        pairs: how many replicates, or retrainings, have both.
        interval: None for one, and where all differences are equal.
        p_value: that there is none; None where nothing tells.
    """

    value: float
    test: float
    pairs: int
    interval: Interval | None
    p_value: float | None

    @property
    def side(self) -> int:
        """1 where the whole interval is above zero, -1 where below, else 0."""
        if self.interval is None:
            return 0
        return int(self.interval.low > 0) - int(self.interval.high < 0)


@dataclass(frozen=True)
class Moved:
    """A source's tickets on the target.

    Attributes:
        run: of the target, with the folder in which these tickets lie.
        what: is trained there.
    """

    source: Run
    run: Run
    what: Transferred

    @property
    def name(self) -> str:
        return self.source.folder.path.name

    @cached_property
    def images(self) -> int | None:
        """How many the source was trained on; None where its shards are gone."""
        if not is_there(self.source.data.manifest):
            return None
        return image_counts(read_manifest(self.source.data), self.source.experiment.data)[0]

    @property
    def parts(self) -> tuple[Run, Run]:
        """The dense network from the source's reset points, then its tickets."""
        return (
            replace(self.run, experiment=self.what.dense),
            replace(self.run, experiment=self.what.tickets),
        )

    @property
    def reset_epochs(self) -> list[float]:
        return sorted(self.what.tickets.reset.epochs)

    @cached_property
    def rows(self) -> Rows:
        return collect(self.run.folder)

    @cached_property
    def tickets(self) -> dict[Place, Cell]:
        return {cell.place: cell for cell in cells(self.rows, self.what.tickets)}

    def control(self, kind: str) -> dict[Place, Cell]:
        return {cell.place: cell for cell in cells(self.rows, self.what.tickets, kind)}

    @cached_property
    def dense(self) -> dict[float, Cell]:
        """Reset point -> the whole network from there."""
        return {cell.reset_epoch: cell for cell in cells(self.rows, self.what.dense)}

    def counts(self) -> dict[str, int]:
        """How many of its tickets, controls and dense networks have come to what."""
        both = [counts_of(self.rows, part) for part in (self.what.tickets, self.what.dense)]
        return {status: sum(counts[status] for counts in both) for status in both[0]}


@dataclass(frozen=True)
class Compared:
    """One transferred ticket beside all that it is set beside.

    Attributes:
        cell: it, over replicates.
        own: the target's own cell that it is set beside; None where none has finished.
        differences: what it is set beside -> the difference; those that can be told.
    """

    cell: Cell
    own: Cell | None
    differences: Mapping[str, Difference]

    @property
    def verdict(self) -> str:
        """What its control on fresh initial weights says of it."""
        found = self.differences.get("random_init")
        if found is None:
            return "random_init cannot be told"
        if found.interval is None:
            return "random_init: no interval tells"
        return ("not beyond random_init", "beats random_init", "below random_init")[found.side]


@dataclass(frozen=True)
class Answer:
    """What may be said of a source's reset point.

    Attributes:
        dense: the whole network from there.
        compared: how many tickets could be set beside it.
        sparsest: that is within the margin of it; None where none is.
    """

    moved: Moved
    dense: Cell
    compared: int
    sparsest: Compared | None

    @property
    def reset_epoch(self) -> float:
        return self.dense.reset_epoch

    @property
    def why_none(self) -> str:
        """Why there is no sparsest."""
        if self.compared:
            return "none"
        if self.dense.diverged:
            return "cannot be told: the dense network from there diverged"
        if not self.dense.done:
            return "cannot be told yet: the dense network from there is not done"
        here = [
            cell for cell in self.moved.tickets.values() if cell.reset_epoch == self.reset_epoch
        ]
        every = all(cell.diverged for cell in here)
        return "none: in every cell a ticket diverged" if every else "no ticket is done yet"


def compared(moved: Moved, own: Mapping[float, Cell], fresh: Sequence[Row]) -> list[Compared]:
    """Every transferred ticket that is done.

    Args:
        own: sparsity -> the target's own cell that it is set beside.
        fresh: the rows of the target's dense runs.
    """
    shuffled, drawn = (moved.control(kind) for kind in ("shuffled_mask", "random_init"))
    found = []
    for place, cell in moved.tickets.items():
        if not cell.comparable:
            continue
        beside = own.get(cell.sparsity)
        told = {
            "same_point": _difference(cell, _rows(moved.dense[cell.reset_epoch])),
            "fresh": _difference(cell, fresh, once=True),
            "shuffled_mask": _difference(cell, _rows(shuffled[place])),
            "random_init": _difference(cell, _rows(drawn[place]), once=True),
            "own": None if beside is None else _difference(cell, _rows(beside)),
        }
        known = {kind: one for kind, one in told.items() if one is not None}
        found.append(Compared(cell, beside, known))
    return found


def best_own(rows: Rows, experiment: Experiment) -> dict[float, Cell]:
    """Sparsity -> the target's own cell with the highest mean validation accuracy."""
    best: dict[float, Cell] = {}
    for cell in cells(rows, experiment):
        if not cell.comparable:
            continue
        other = best.get(cell.sparsity)
        if other is None or cell.mean("val_top1") > other.mean("val_top1"):
            best[cell.sparsity] = cell
    return best


def beyond_chance(differences: Sequence[Difference]) -> BeyondChance:
    """How many are beyond chance, by Student's t with Holm's correction for all of them."""
    return corrected([(one.value, one.p_value) for one in differences], "replicates")


def answers(moved: Moved, every: Sequence[Compared], margin: float) -> list[Answer]:
    """Of each reset point of a source, the earliest first.

    As everywhere, the sparsest is read from a fit in which accuracy may only fall with sparsity.
    """
    return [
        _answer(moved, [one for one in every if one.cell.reset_epoch == point], point, margin)
        for point in moved.reset_epochs
    ]


def best_of(answered: Sequence[Answer]) -> Answer | None:
    """The sparsest of all reset points; of equally sparse ones the earliest says most."""
    found = [(one.sparsest, one) for one in answered if one.sparsest is not None]
    best = max(found, key=lambda both: (both[0].cell.sparsity, -both[1].reset_epoch), default=None)
    return None if best is None else best[1]


def between(one: Moved, other: Moved) -> dict[Place, Difference]:
    """The second source's ticket minus the first's wherever both have one that is done.

    Replicates of the target are the same for both: seed, data order and the new output layer.
    """
    found = {}
    for place, cell in other.tickets.items():
        beside = one.tickets.get(place)
        if beside is None or not cell.comparable:
            continue
        difference = _difference(cell, _rows(beside))
        if difference is not None:
            found[place] = difference
    return found


def _answer(moved: Moved, here: Sequence[Compared], point: float, margin: float) -> Answer:
    told = [(one, one.differences["same_point"]) for one in here if "same_point" in one.differences]
    told.sort(key=lambda both: both[0].cell.sparsity)
    values, weights = [one.value for _, one in told], [one.pairs for _, one in told]
    at = last_matching(values, weights, margin)
    return Answer(moved, moved.dense[point], len(told), None if at < 0 else told[at][0])


def _rows(cell: Cell) -> Sequence[Row]:
    return cell.done if cell.comparable else ()


def _difference(cell: Cell, others: Sequence[Row], once: bool = False) -> Difference | None:
    """Of the replicates and retrainings that have both; None where none has.

    Args:
        once: the other is trained once in a replicate, and stands beside all retrainings.
    """
    beside = {(row["replicate"], 0 if once else row["retraining"]): row for row in others}
    keys = [(row["replicate"], 0 if once else row["retraining"]) for row in cell.done]
    pairs = [(row, beside[key]) for row, key in zip(cell.done, keys, strict=True) if key in beside]
    if not pairs:
        return None

    def values(column: str) -> list[float]:
        return by_seed([(ours["replicate"], ours[column] - row[column]) for ours, row in pairs])

    val = values("val_top1")
    interval = mean_interval(val)
    # Equal differences, of a few replicates and whole images, are no sign of no spread.
    if interval is not None and interval.high - interval.low <= TOLERANCE:
        interval = None
    return Difference(fmean(val), fmean(values("test_top1")), len(val), interval, mean_test(val))
