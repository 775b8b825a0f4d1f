"""Does a ticket transfer? Those of other experiments on a target, beside what they must beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from ltray.analysis import figures
from ltray.analysis.columns import Row
from ltray.analysis.figures import (
    SPLIT_NAMES,
    ComparedLine,
    accuracy_against_density,
    compared_accuracy,
)
from ltray.analysis.grid import Cell, Place, cells
from ltray.analysis.intervals import Interval, holm, mean_interval, mean_test
from ltray.analysis.results import Rows, collect
from ltray.analysis.statistics import LEVEL
from ltray.analysis.templates import rendered
from ltray.analysis.wording import epoch
from ltray.data.manifest import read_manifest
from ltray.data.selection import image_counts
from ltray.files import write_whole
from ltray.lottery.matching import within_margin
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
SPLITS: tuple[Literal["val", "test"], ...] = ("val", "test")


@dataclass(frozen=True)
class Difference:
    """A ticket minus what it is set beside, on validation, over replicates.

    Attributes:
        test: the mean on test, which chooses nothing.
        interval: None for one replicate.
        p_value: that there is none; None where nothing tells.
    """

    value: float
    test: float
    interval: Interval | None
    p_value: float | None


@dataclass(frozen=True)
class Moved:
    """A source's tickets on the target.

    Attributes:
        run: of the target, with the folder in which these tickets lie.
    """

    source: Run
    run: Run
    what: Transferred

    @property
    def name(self) -> str:
        return self.source.folder.path.name

    @cached_property
    def images(self) -> int:
        """How many the source was trained on."""
        return image_counts(read_manifest(self.source.data), self.source.experiment.data)[0]

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


@dataclass(frozen=True)
class Compared:
    """One transferred ticket beside all that it is set beside.

    Attributes:
        cell: it, over replicates.
        differences: what it is set beside -> the difference; those that can be told.
    """

    cell: Cell
    differences: Mapping[str, Difference]


@dataclass(frozen=True)
class Answer:
    """What may be said of a source's reset point.

    Attributes:
        sparsest: that is within the margin of the dense network from the same point; None where
            none is.
    """

    moved: Moved
    reset_epoch: float
    sparsest: Compared | None


def write_transfer(target: Run, moves: Sequence[Moved]) -> Path:
    """Write transfer.html of a target; returns its path."""
    page = target.folder.transfer_page
    write_whole(page, rendered("transfer.html.jinja", content(target, moves)).encode())
    return page


def compared(moved: Moved, own: Mapping[float, Cell], fresh: Mapping[int, Row]) -> list[Compared]:
    """Every transferred ticket that is done.

    Args:
        own: sparsity -> the target's own cell that it is set beside.
        fresh: replicate -> the row of the target's dense run.
    """
    controls = {kind: moved.control(kind) for kind in ("shuffled_mask", "random_init")}
    found = []
    for place, cell in moved.tickets.items():
        if not cell.comparable:
            continue
        beside = {
            "same_point": _by_replicate(moved.dense[cell.reset_epoch]),
            "fresh": {number: [row] for number, row in fresh.items()},
            **{kind: _by_replicate(of[place]) for kind, of in controls.items()},
            "own": _by_replicate(own[cell.sparsity]) if cell.sparsity in own else {},
        }
        told = {kind: _difference(cell, rows) for kind, rows in beside.items()}
        found.append(Compared(cell, {kind: one for kind, one in told.items() if one is not None}))
    return found


def best_own(rows: Rows, target: Run) -> dict[float, Cell]:
    """Sparsity -> the target's own cell with the highest mean validation accuracy."""
    best: dict[float, Cell] = {}
    for cell in cells(rows, target.experiment):
        if not cell.comparable:
            continue
        other = best.get(cell.sparsity)
        if other is None or cell.mean("val_top1") > other.mean("val_top1"):
            best[cell.sparsity] = cell
    return best


def beyond_chance(every: Sequence[Compared], kind: str) -> tuple[int, int, int]:
    """(tested, above, below) of a kind, by Student's t with Holm's correction at 5 %."""
    tested = [one.differences[kind] for one in every if kind in one.differences]
    tested = [one for one in tested if one.p_value is not None]
    adjusted = holm([one.p_value for one in tested if one.p_value is not None])
    sure = [one.value for one, p in zip(tested, adjusted, strict=True) if p <= LEVEL]
    return len(tested), sum(value > 0 for value in sure), sum(value < 0 for value in sure)


def answers(moved: Moved, every: Sequence[Compared], margin: float) -> list[Answer]:
    """Of each reset point of a source, the earliest first."""
    found = []
    for point in sorted(moved.what.tickets.reset.epochs):
        here = [one for one in every if one.cell.reset_epoch == point]
        matching = [
            one
            for one in here
            if "same_point" in one.differences
            and within_margin(one.differences["same_point"].value, margin)
        ]
        sparsest = max(matching, key=lambda one: one.cell.sparsity, default=None)
        found.append(Answer(moved, point, sparsest))
    return found


def content(target: Run, moves: Sequence[Moved]) -> dict[str, Any]:
    """What the template needs to know."""
    rows = collect(target.folder)
    fresh = {
        number: row for number, row in rows.dense.items() if number < target.experiment.replicates
    }
    own = best_own(rows, target)
    tables = [(moved, compared(moved, own, fresh)) for moved in moves]
    margin = target.experiment.report.margin
    return {
        "target": target,
        "experiment": target.experiment,
        "margin": margin,
        "against": AGAINST,
        "tables": tables,
        "answers": [one for moved, every in tables for one in answers(moved, every, margin)],
        "beyond": {
            (moved.name, kind): beyond_chance(every, kind)
            for moved, every in tables
            for kind in AGAINST
        },
        "fresh": fmean(row["val_top1"] for row in fresh.values()) if fresh else None,
        "figures": {
            moved.name: _figures(moved, fresh) for moved, every in tables if every and fresh
        },
        "sources": _sources(moves),
        "glyphs": figures.GLYPHS,
    }


def _by_replicate(cell: Cell) -> dict[int, list[Row]]:
    found: dict[int, list[Row]] = {}
    if cell.comparable:
        for row in cell.done:
            found.setdefault(row["replicate"], []).append(row)
    return found


def _difference(cell: Cell, beside: Mapping[int, Sequence[Row]]) -> Difference | None:
    """Means of each replicate that has both; None where none has."""
    ours = _by_replicate(cell)
    both = sorted(ours.keys() & beside.keys())
    if not both:
        return None

    def values(column: str) -> list[float]:
        return [_mean(ours[number], column) - _mean(beside[number], column) for number in both]

    val = values("val_top1")
    return Difference(fmean(val), fmean(values("test_top1")), mean_interval(val), mean_test(val))


def _mean(rows: Sequence[Row], column: str) -> float:
    return fmean(row[column] for row in rows)


def _figures(moved: Moved, fresh: Mapping[int, Row]) -> list[tuple[str, str]]:
    """(split, figure) of one source: its tickets and controls over density, and fresh training."""
    first = min(moved.what.tickets.reset.epochs)
    fresh_init = [one for (_, at), one in moved.control("random_init").items() if at == first]
    shuffled = list(moved.control("shuffled_mask").values())
    controls = {"shuffled_mask": shuffled, "random_init": fresh_init}
    found = []
    for split in SPLITS:
        level = fmean(row[f"{split}_top1"] for row in fresh.values())
        tickets = list(moved.tickets.values())
        drawn = accuracy_against_density(tickets, controls, level, split, None)
        own_ids = drawn.replace(f"accuracy-{split}", f"accuracy-{split}-{moved.name}")
        found.append((SPLIT_NAMES[split], own_ids))
    return found


def _sources(moves: Sequence[Moved]) -> list[tuple[str, str]]:
    """(reset point, figure of all sources there) of the points that several sources have."""
    if len(moves) < 2:
        return []
    points = set.intersection(*({*one.what.tickets.reset.epochs} for one in moves))
    found = []
    for point in sorted(points):
        lines = []
        for one in moves:
            line = [
                cell for (_, at), cell in one.tickets.items() if at == point and cell.comparable
            ]
            dense = one.dense[point]
            if line and dense.comparable:
                label = f"{one.name} ({one.images:,} images)"
                lines.append(ComparedLine(label, line, dense.mean("val_top1")))
        if len(lines) == len(moves):
            found.append((epoch(point), compared_accuracy(epoch(point), lines)))
    return found
