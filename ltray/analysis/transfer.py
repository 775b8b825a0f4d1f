"""Tickets of other experiments on a target, each beside what it must beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ltray.analysis.columns import Row
from ltray.analysis.correct import PerImage
from ltray.analysis.differences import Difference, Trained, difference_of, right_images, trained
from ltray.analysis.grid import Cell, Over, Place, cells, counts_of
from ltray.analysis.results import Rows, collect
from ltray.analysis.statistics import over_of
from ltray.data.manifest import read_manifest
from ltray.data.selection import image_counts
from ltray.experiment import Experiment
from ltray.files import is_there
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

    @property
    def over(self) -> Over:
        """What chance is reckoned over."""
        return over_of(self.what.tickets)

    @cached_property
    def per_image(self) -> PerImage:
        """Which images its trainings and the target's dense run have right."""
        return right_images(self.run.folder, self.rows, self.over)

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
        over: what chance is reckoned over.
        differences: what it is set beside -> the difference; those that can be told.
    """

    cell: Cell
    own: Cell | None
    over: Over
    differences: Mapping[str, Difference]

    @property
    def verdict(self) -> str:
        """What its control on fresh initial weights says of it."""
        found = self.differences.get("random_init")
        if found is None:
            return "random_init cannot be told"
        if found.interval is None:
            return "random_init: no interval tells"
        said = ("not beyond random_init", "beats random_init", "below random_init")[found.side]
        return f"{said} on this one seed" if self.over == "images" and found.side else said


@dataclass(frozen=True)
class Target:
    """What the target's own sweep gave.

    Attributes:
        own: sparsity -> its cell with the highest mean validation accuracy.
        fresh: the rows of its dense runs.
        per_image: which images its tickets have right.
    """

    own: Mapping[float, Cell]
    fresh: Sequence[Row]
    per_image: PerImage


def of_target(run: Run) -> Target:
    """What transferred tickets are set beside on the target."""
    rows = collect(run.folder)
    replicates = range(run.experiment.replicates)
    fresh = [rows.dense[number] for number in replicates if number in rows.dense]
    per_image = right_images(run.folder, rows, over_of(run.experiment))
    return Target(_best_own(rows, run.experiment), fresh, per_image)


def compared(moved: Moved, target: Target) -> list[Compared]:
    """Every transferred ticket that is done."""
    here = moved.per_image
    fresh = [Trained(row, here.dense.get(row["replicate"])) for row in target.fresh]
    shuffled, drawn = (moved.control(kind) for kind in ("shuffled_mask", "random_init"))
    found = []
    for place, cell in moved.tickets.items():
        if not cell.comparable:
            continue
        ours, over = trained(cell, here), moved.over
        beside = target.own.get(cell.sparsity)
        theirs = [] if beside is None else trained(beside, target.per_image)
        told = {
            "same_point": difference_of(ours, trained(moved.dense[cell.reset_epoch], here), over),
            "fresh": difference_of(ours, fresh, over, once=True),
            "shuffled_mask": difference_of(ours, trained(shuffled[place], here), over),
            "random_init": difference_of(ours, trained(drawn[place], here), over, once=True),
            "own": difference_of(ours, theirs, over),
        }
        known = {kind: one for kind, one in told.items() if one is not None}
        found.append(Compared(cell, beside, over, known))
    return found


def between(one: Moved, other: Moved) -> dict[Place, Difference]:
    """The second source's ticket minus the first's wherever both have one that is done.

    Replicates of the target are the same for both: seed, data order and the new output layer.
    """
    found = {}
    for place, cell in other.tickets.items():
        beside = one.tickets.get(place)
        if beside is None or not cell.comparable:
            continue
        theirs = trained(beside, one.per_image)
        difference = difference_of(trained(cell, other.per_image), theirs, other.over)
        if difference is not None:
            found[place] = difference
    return found


def _best_own(rows: Rows, experiment: Experiment) -> dict[float, Cell]:
    best: dict[float, Cell] = {}
    for cell in cells(rows, experiment):
        if not cell.comparable:
            continue
        other = best.get(cell.sparsity)
        if other is None or cell.mean("val_top1") > other.mean("val_top1"):
            best[cell.sparsity] = cell
    return best
