"""The current grid as cells: one sparsity at one reset point, over all replicates."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ltray.analysis.columns import Row
from ltray.analysis.results import Rows, within_margin
from ltray.experiment import Experiment
from ltray.lottery.tickets import grid, key

Place = tuple[float, float]
"""(sparsity, reset_epoch)"""


@dataclass(frozen=True)
class Cell:
    """The tickets of one sparsity and one reset point, one of each replicate.

    `missing` counts the replicates that have no row yet.
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
    def replicates(self) -> int:
        return len(self.done) + len(self.diverged) + len(self.failed) + self.missing

    @property
    def comparable(self) -> bool:
        """Whether the mean speaks for the cell: without its diverged tickets it would flatter."""
        return bool(self.done) and not self.diverged

    @property
    def differences(self) -> list[float]:
        """val_top1 minus the dense run's of the same replicate."""
        return [row["val_top1"] - row["dense_val_top1"] for row in self.done]

    @property
    def difference(self) -> float:
        """The mean of `differences`."""
        return fmean(self.differences)

    @property
    def test_differences(self) -> list[float]:
        """test_top1 minus the dense run's of the same replicate; chooses nothing."""
        return [row["test_top1"] - row["dense_test_top1"] for row in self.done]

    @property
    def test_difference(self) -> float:
        """The mean of `test_differences`."""
        return fmean(self.test_differences)

    def matches(self, margin: float) -> bool:
        """Whether the cell matches as it is: the mean difference is within the margin."""
        return self.comparable and within_margin(self.difference, margin)

    def mean(self, column: str) -> float:
        """The mean of a column over the replicates that are done."""
        return fmean(row[column] for row in self.done)


def cells(rows: Rows, experiment: Experiment) -> list[Cell]:
    """Every cell of the current grid, in order of sparsity, then of reset point.

    Args:
        rows: of the run; tickets that the current grid does not ask for are left aside.
        experiment: resolved.
    """
    places: dict[Place, list[Row | None]] = {}
    for ticket in grid(experiment):
        place = places.setdefault((ticket.sparsity, ticket.reset_epoch), [])
        place.append(rows.tickets.get(key(ticket)))
    return [_cell(*place, found) for place, found in places.items()]


def counts_of(cells: Sequence[Cell]) -> dict[str, int]:
    """How many tickets are `done`, `diverged`, `failed` and `missing`, and there are in `all`."""
    return {
        "done": sum(len(cell.done) for cell in cells),
        "diverged": sum(len(cell.diverged) for cell in cells),
        "failed": sum(len(cell.failed) for cell in cells),
        "missing": sum(cell.missing for cell in cells),
        "all": sum(cell.replicates for cell in cells),
    }


def single_seeds(cells: Sequence[Cell]) -> list[Row]:
    """The tickets that chance can only be reckoned over images for: the one seed of their cell."""
    return [row for cell in cells if cell.comparable and len(cell.done) == 1 for row in cell.done]


def outside(rows: Rows, experiment: Experiment) -> int:
    """How many tickets of the run the current grid does not ask for."""
    return len(rows.tickets.keys() - {key(ticket) for ticket in grid(experiment)})


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
