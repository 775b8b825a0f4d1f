"""When networks have learnt: the evaluation with the lowest validation loss, and what holds there.

Frankle & Carbin 2019 (arXiv 1803.03635, section 1) judge tickets by it: how early it comes, and
the test accuracy at that moment.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from ltray.analysis.columns import Row
from ltray.analysis.grid import Cell
from ltray.analysis.intervals import Interval, mean_interval
from ltray.analysis.results import DENSE, Rows
from ltray.lottery.matching import by_seed

FEWEST_EVALUATIONS = 10  # of the dense run: with fewer the lowest is hardly a moment


@dataclass(frozen=True)
class Mean:
    """A mean over replicates, or retrainings of one, and its interval; None for a single value."""

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Learnt:
    """One cell: its tickets beside their dense runs and their controls on fresh initial weights.

    Epochs are counted as in epochs.parquet: those before the reset point count too, where training
    goes on from there.

    Attributes:
        epoch: of the lowest validation loss.
        earlier: epochs by which that comes before the dense run's.
        control_later: epochs by which the control's comes after the ticket's; None without one.
        test_top1: at that moment.
        above: that minus the dense run's at its own.
    """

    sparsity: float
    reset_epoch: float
    epoch: Mean
    earlier: Mean
    control_later: Mean | None
    test_top1: Mean
    above: Mean


def lowest(epochs: Sequence[Row]) -> Row | None:
    """The first row with the lowest validation loss; None where nothing was evaluated."""
    measured = [row for row in epochs if row["val_loss"] is not None]
    return min(measured, key=lambda row: row["val_loss"], default=None)


def learnt(rows: Rows, cells: Sequence[Cell], controls: Sequence[Cell]) -> list[Learnt]:
    """Every cell with a finished ticket; nothing where networks were evaluated too rarely.

    Args:
        cells: of the grid.
        controls: on fresh initial weights, at the same places; empty where none were asked for.
    """
    often = (len(rows.epochs[number, DENSE]) >= FEWEST_EVALUATIONS for number in rows.dense)
    if not rows.dense or not all(often):
        return []
    beside = {cell.place: cell for cell in controls}
    return [_learnt(rows, cell, beside.get(cell.place)) for cell in cells if cell.comparable]


def _learnt(rows: Rows, cell: Cell, control: Cell | None) -> Learnt:
    own = [(row["replicate"], _moment(rows, row["replicate"], row["ticket"])) for row in cell.done]
    dense = {number: _moment(rows, number, DENSE) for number, _ in own}
    return Learnt(
        sparsity=cell.sparsity,
        reset_epoch=cell.reset_epoch,
        epoch=_mean([(number, moment["epoch"]) for number, moment in own]),
        earlier=_mean([(number, dense[number]["epoch"] - one["epoch"]) for number, one in own]),
        control_later=_later(rows, own, control),
        test_top1=_mean([(number, moment["test_top1"]) for number, moment in own]),
        above=_mean([(at, one["test_top1"] - dense[at]["test_top1"]) for at, one in own]),
    )


def _later(rows: Rows, own: Sequence[tuple[int, Row]], control: Cell | None) -> Mean | None:
    """Epochs by which the controls come after the tickets, in the replicates that have both."""
    if control is None or not control.comparable:
        return None
    fresh = {
        row["replicate"]: _moment(rows, row["replicate"], row["ticket"]) for row in control.done
    }
    both = [(number, moment) for number, moment in own if number in fresh]
    pairs = [(number, fresh[number]["epoch"] - moment["epoch"]) for number, moment in both]
    return _mean(pairs) if pairs else None


def _mean(values: Sequence[tuple[int, float]]) -> Mean:
    """Of (replicate, value)."""
    found = by_seed(values)
    return Mean(fmean(found), mean_interval(found))


def _moment(rows: Rows, replicate: int, ticket: str) -> Row:
    found = lowest(rows.epochs[replicate, ticket])
    assert found is not None, "what is done has been evaluated at its end"
    return found
