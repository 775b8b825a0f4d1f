"""When networks have learnt: the evaluation with the lowest validation loss, and what holds there.

Frankle & Carbin 2019 (arXiv 1803.03635, section 1) judge tickets by it: how early it comes, and
the test accuracy at that moment.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ltray.analysis.columns import Row
from ltray.analysis.grid import Cell, Over
from ltray.analysis.intervals import Interval, mean_interval
from ltray.analysis.results import DENSE, Rows
from ltray.analysis.statistics import over_of, vary
from ltray.experiment import Experiment
from ltray.lottery.matching import by_seed
from ltray.lottery.tickets import TicketKey

FEWEST_EVALUATIONS = 10  # of the dense run: with fewer the lowest is hardly a moment


@dataclass(frozen=True)
class Mean:
    """A mean over replicates, or retrainings of one, and its interval.

    None for a single value, and where retrainings of one seed stand beside one training.
    """

    value: float
    interval: Interval | None


@dataclass(frozen=True)
class Learnt:
    """One cell: its tickets beside their dense runs and their controls on fresh initial weights.

    Epochs are counted as in epochs.parquet: those before the reset point count too, where training
    goes on from there.

    Attributes:
        cell: its tickets, of which some may be missing.
        epoch: of the lowest validation loss.
        earlier: epochs by which that comes before the dense run's; None where it could not, as the
            ticket was first evaluated after the dense run's had come.
        control_later: epochs by which the control's comes after the ticket's; None without one, and
            where it could not.
        test_top1: at that moment.
        above: that minus the dense run's at its own.
        at_end: how many of the networks compared have it at their last evaluation, so that it may
            not be reached.
    """

    cell: Cell
    epoch: Mean
    earlier: Mean | None
    control_later: Mean | None
    test_top1: Mean
    above: Mean
    at_end: int


@dataclass(frozen=True)
class Moment:
    """Where a network has its lowest validation loss.

    Attributes:
        first: the epoch of its first evaluation.
        last: whether the moment is its last evaluation.
    """

    epoch: float
    test_top1: float
    first: float
    last: bool


Pairs = Sequence[tuple[TicketKey, TicketKey]]
"""Tickets, and what each is set beside"""


def lowest(epochs: Sequence[Row]) -> Moment | None:
    """The first evaluation with the lowest validation loss; None where nothing was evaluated."""
    measured = [row for row in epochs if None not in (row["val_loss"], row["test_top1"])]
    if not measured:
        return None
    found = min(measured, key=lambda row: row["val_loss"])
    first = min(row["epoch"] for row in measured)
    return Moment(found["epoch"], found["test_top1"], first, found is measured[-1])


def learnt(
    rows: Rows, experiment: Experiment, cells: Sequence[Cell], controls: Sequence[Cell]
) -> list[Learnt]:
    """Every cell with a finished ticket; nothing where networks were evaluated too rarely.

    Args:
        cells: of the grid.
        controls: on fresh initial weights, at the same places; empty where none were asked for.
    """
    numbers = [number for number in rows.dense if number < experiment.replicates]
    often = (len(rows.epochs[number, DENSE]) >= FEWEST_EVALUATIONS for number in numbers)
    if not numbers or not all(often):
        return []
    beside = {cell.place: cell for cell in controls}
    over = over_of(experiment)
    found = [_learnt(rows, cell, beside.get(cell.place), over) for cell in cells if cell.comparable]
    return [one for one in found if one is not None]


def _learnt(rows: Rows, cell: Cell, control: Cell | None, over: Over) -> Learnt | None:
    """None where no ticket and dense run of one replicate have been evaluated."""
    tickets = [_key(row) for row in cell.done]
    fresh = control.done if control is not None and control.comparable else ()
    of_dense = {number: (number, DENSE) for number in rows.dense}
    of_fresh = {row["replicate"]: _key(row) for row in fresh}
    moments = _moments(rows, [*tickets, *of_dense.values(), *of_fresh.values()])
    dense, later = (_pairs(tickets, others, moments) for others in (of_dense, of_fresh))
    if not dense:
        return None

    def alone(value: Callable[[Moment], float]) -> Mean:
        return _mean([(one[0], value(moments[one])) for one, _ in dense], over, once=False)

    def against(pairs: Pairs, value: Callable[[Moment, Moment], float]) -> Mean:
        values = [(a[0], value(moments[a], moments[b])) for a, b in pairs]
        return _mean(values, over, once=True)

    def epochs_before(pairs: Pairs) -> Mean | None:
        could = [moments[one].first < moments[other].epoch for one, other in pairs]
        return against(pairs, lambda a, b: b.epoch - a.epoch) if pairs and all(could) else None

    return Learnt(
        cell=cell,
        epoch=alone(lambda ticket: ticket.epoch),
        earlier=epochs_before(dense),
        control_later=epochs_before(later),
        test_top1=alone(lambda ticket: ticket.test_top1),
        above=against(dense, lambda ticket, beside: ticket.test_top1 - beside.test_top1),
        at_end=sum(moments[one].last for one in {one for pair in (*dense, *later) for one in pair}),
    )


def _pairs(
    tickets: Sequence[TicketKey],
    others: Mapping[int, TicketKey],
    moments: Mapping[TicketKey, Moment],
) -> Pairs:
    """Tickets beside the other of their replicate, where both were evaluated."""
    both = [(one, others[one[0]]) for one in tickets if one[0] in others]
    return [pair for pair in both if all(one in moments for one in pair)]


def _mean(values: Sequence[tuple[int, float]], over: Over, *, once: bool) -> Mean:
    """Of (replicate, value); `once` where each is beside what is trained once in a replicate."""
    found = by_seed(values)
    varying = vary([number for number, _ in values], over, once)
    return Mean(fmean(found), mean_interval(found) if varying else None)


def _moments(rows: Rows, keys: Sequence[TicketKey]) -> dict[TicketKey, Moment]:
    """Of those that were evaluated."""
    found = {key: lowest(rows.epochs.get(key, [])) for key in keys}
    return {key: moment for key, moment in found.items() if moment is not None}


def _key(row: Row) -> TicketKey:
    """What identifies a row's ticket in its run."""
    return row["replicate"], row["ticket"]
