"""The current grid as cells: one sparsity at one reset point, over all replicates."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from ltray.analysis.columns import Row
from ltray.analysis.results import Rows
from ltray.analysis.wording import quantity
from ltray.experiment import Experiment
from ltray.lottery.matching import by_seed, within_margin
from ltray.lottery.ready import left_aside, wanted
from ltray.lottery.search import most_levels
from ltray.lottery.tickets import cells_of, control_of, grid, key, retraining_of

Place = tuple[float, float]
"""(sparsity, reset_epoch)"""


Over = Literal["images", "replicates", "retrainings"]
"""What chance is reckoned over: other images for one training, other seeds, other data orders."""


@dataclass(frozen=True)
class Cell:
    """The tickets of one sparsity and one reset point: of each replicate one for each retraining.

    `missing` counts those that have no row yet.
    """

    sparsity: float
    reset_epoch: float
    done: tuple[Row, ...]
    diverged: tuple[Row, ...]
    failed: tuple[Row, ...]
    missing: int

    @property
    def place(self) -> Place:
        return self.sparsity, self.reset_epoch

    @property
    def asked(self) -> int:
        """How many tickets it is to have."""
        return len(self.done) + len(self.diverged) + len(self.failed) + self.missing

    @property
    def comparable(self) -> bool:
        """Whether the mean speaks for the cell: without its diverged tickets it would flatter."""
        return bool(self.done) and not self.diverged

    @property
    def seeds(self) -> int:
        """Of how many replicates the tickets are that are done."""
        return len({row["replicate"] for row in self.done})

    @property
    def over(self) -> Over:
        """What chance can be reckoned over, from the tickets that are done."""
        if len(self.done) == 1:
            return "images"
        return "replicates" if self.seeds > 1 else "retrainings"

    @property
    def differences(self) -> list[float]:
        """val_top1 minus the dense run's of the same replicate."""
        return self.values(lambda row: row["val_top1"] - row["dense_val_top1"])

    @property
    def difference(self) -> float:
        """The mean of `differences`."""
        return fmean(self.differences)

    @property
    def test_differences(self) -> list[float]:
        """test_top1 minus the dense run's of the same replicate; chooses nothing."""
        return self.values(lambda row: row["test_top1"] - row["dense_test_top1"])

    @property
    def test_difference(self) -> float:
        """The mean of `test_differences`."""
        return fmean(self.test_differences)

    def values(self, of: Callable[[Row], float]) -> list[float]:
        """One value for each that chance is reckoned over."""
        return by_seed([(row["replicate"], of(row)) for row in self.done])

    def matches(self, margin: float) -> bool:
        """Whether the cell matches as it is: the mean difference is within the margin."""
        return self.comparable and within_margin(self.difference, margin)

    def mean(self, column: str) -> float:
        """The mean of a column over the tickets that are done."""
        return fmean(self.values(lambda row: row[column]))


def cells(rows: Rows, experiment: Experiment, control: str = "none") -> list[Cell]:
    """Every cell of the current grid, in order of sparsity, then of reset point.

    Args:
        rows: of the run; tickets that the current grid does not ask for are left aside, and in a
            search those of cells that it does not go on with.
        experiment: resolved.
        control: put the controls of this kind into the places of the tickets; one that stands
            beside several reset points is in all of their places.
    """
    places: dict[Place, list[Row | None]] = {}
    aside = left_aside(experiment, rows.tickets)
    times = 1 if control == "random_init" else experiment.reset.retrainings
    for cell in cells_of(experiment):
        first = control_of(cell, control)
        place = places.setdefault((cell.sparsity, cell.reset_epoch), [])
        every = (retraining_of(first, number) for number in range(times))
        unasked = control != "random_init" and (cell.sparsity, cell.reset_epoch) in aside
        place += [None if unasked else rows.tickets.get(key(one)) for one in every]
    return [_cell(*place, found) for place, found in places.items()]


def asked_for(rows: Rows, experiment: Experiment) -> list[Row]:
    """The rows that the experiment asks for, controls too, by sparsity, then by reset point."""
    found = (rows.tickets.get(key(one)) for one in wanted(experiment, rows.tickets))
    return sorted(
        (row for row in found if row is not None),
        key=lambda row: (row["sparsity"], row["reset_epoch"], row["control"], row["replicate"]),
    )


def counts_of(rows: Rows, experiment: Experiment) -> dict[str, int]:
    """How many tickets are `done`, `diverged`, `failed` and `missing`, and there are in `all`."""
    counts = Counter(row["status"] for row in asked_for(rows, experiment))
    every = len(wanted(experiment, rows.tickets))
    named = {status: counts[status] for status in ("done", "diverged", "failed")}
    return {**named, "missing": every - counts.total(), "all": every}


def in_words(experiment: Experiment) -> str:
    """As in `20 masks x 5 reset points x 3 replicates + 60 controls = 360 tickets`."""
    if experiment.prune.search == "matching":
        return _search_in_words(experiment)
    masks, points = len(experiment.prune.sparsities), len(experiment.reset.epochs)
    said = f"{quantity(masks, 'mask')} x {quantity(points, 'reset point')}"
    if experiment.replicates > 1:
        said += f" x {experiment.replicates} replicates"
    times = experiment.reset.retrainings
    if times > 1:
        said += f" x {times} retrainings"
    tickets, without = len(grid(experiment)), times * len(cells_of(experiment))
    if tickets > without:
        said += f" + {quantity(tickets - without, 'control')}"
    return f"{said} = {quantity(tickets, 'ticket')}"


def _search_in_words(experiment: Experiment) -> str:
    masks, points = len(experiment.prune.sparsities), len(experiment.reset.epochs)
    each = points * experiment.replicates * experiment.reset.retrainings
    where = f"{quantity(masks, 'mask')} at each of {quantity(points, 'reset point')}"
    most = f"{most_levels(masks) * each} of {quantity(masks * each, 'retraining')}"
    controls = ", and controls of what is found" if experiment.controls else ""
    return f"a search among {where}, as a rule at most {most}{controls}"


def skipped(experiment: Experiment, rows: Rows) -> int:
    """How many cells a search has left out so far; 0 of a grid."""
    asked = {
        (ticket.sparsity, ticket.reset_epoch)
        for ticket in wanted(experiment, rows.tickets)
        if ticket.control == "none"
    }
    return len(experiment.prune.sparsities) * len(experiment.reset.epochs) - len(asked)


def single_seeds(cells: Sequence[Cell]) -> list[Row]:
    """The tickets that chance can only be reckoned over images for: the one seed of their cell."""
    return [row for cell in cells if cell.comparable and len(cell.done) == 1 for row in cell.done]


def outside(rows: Rows, experiment: Experiment) -> int:
    """How many tickets of the run the current grid, or search, does not ask for."""
    aside = left_aside(experiment, rows.tickets)
    asked = {
        key(one)
        for one in grid(experiment)
        # One on fresh weights stands beside several reset points.
        if one.control == "random_init" or (one.sparsity, one.reset_epoch) not in aside
    }
    return len(rows.tickets.keys() - asked)


def _cell(sparsity: float, reset_epoch: float, found: list[Row | None]) -> Cell:
    rows = [row for row in found if row is not None]

    def having(status: str) -> tuple[Row, ...]:
        return tuple(row for row in rows if row["status"] == status)

    return Cell(
        sparsity=sparsity,
        reset_epoch=reset_epoch,
        done=having("done"),
        diverged=having("diverged"),
        failed=having("failed"),
        missing=len(found) - len(rows),
    )
