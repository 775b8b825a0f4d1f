"""A plan as lines of plain text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ltray.analysis.grid import in_words
from ltray.analysis.planning.bill import Prices
from ltray.analysis.planning.estimate import Estimate
from ltray.analysis.planning.planned import Plan
from ltray.analysis.planning.scaling_tables import (
    advice,
    retrainings_table,
    training_table,
    whole_table,
)
from ltray.analysis.planning.spending import interruptions, money, storage
from ltray.analysis.planning.wording import hours, spread
from ltray.analysis.planning.work import epochs_of, packs_left
from ltray.analysis.wording import quantity
from ltray.experiment import as_written

NARROW = "\N{NARROW NO-BREAK SPACE}"


@dataclass(frozen=True)
class Shown:
    """A plan and what a person wants to be told beside it.

    Attributes:
        images: what is known of them, in a line.
        storage: kind of file -> bytes; None where nothing is known of the images.
        workers_here: how many trials run at a time on what the command found; None if not asked.
        instance: name of a kind of machine, and the table that has its price.
        hours_between: of two interruptions of a worker, on average.
    """

    plan: Plan
    images: str
    storage: Mapping[str, int] | None = None
    workers_here: int | None = None
    instance: tuple[str, Prices] | None = None
    hours_between: float | None = None


def lines(shown: Shown) -> list[str]:
    """The whole plan; parts are set off by empty lines."""
    return [line.replace(NARROW, " ") for part in _parts(shown) for line in (*part, "")][:-1]


def _parts(shown: Shown) -> Iterator[Iterator[str]]:
    plan, here = shown.plan, shown.workers_here
    yield _head(shown)
    yield _work(plan)
    if not plan.tickets:
        return
    yield retrainings_table(plan)
    if plan.dense_runs:
        yield training_table(plan)
    yield whole_table(plan, here)
    yield advice(plan, here)
    if shown.hours_between is not None:
        yield interruptions(plan, shown.hours_between)
    if shown.instance is not None:
        yield money(plan, *shown.instance, shown.hours_between)
    yield storage(shown.storage)


def _head(shown: Shown) -> Iterator[str]:
    plan, experiment = shown.plan, shown.plan.experiment
    whole = sum(len(pack.tickets) for pack in packs_left(experiment))
    left = "" if plan.tickets == whole else f", {plan.tickets:,} of them left"
    size = max((len(pack.tickets) for pack in plan.packs), default=0)
    packs = f", in {quantity(len(plan.packs), 'trial')} of up to {size}" if plan.packs else ""
    yield f"{experiment.name}: {in_words(experiment)}{left}{packs}"
    yield f"images: {shown.images}"
    yield f"cost of an epoch: {plan.costs.told_by}"
    yield from _epochs(plan)


def _epochs(plan: Plan) -> Iterator[str]:
    """What was measured, where it was."""
    training = plan.costs.training(1)
    if not training.backends:
        return
    yield f"  {'dense run':<22} {_precise(training.dense)}"
    for level, each in sorted(training.tickets.items()):
        what = f"ticket, {as_written(level)} sparse"
        yield f"  {what:<22} {_precise(each)} by {training.backends[level]}"
    yield f"  {'images, once a trial':<22} {_precise(training.shared)}"


def _precise(estimate: Estimate) -> str:
    low, likely, high = (f"{seconds:.3g}" for seconds in estimate.ends)
    return f"{likely} s ({low} to {high})"


def _work(plan: Plan) -> Iterator[str]:
    work, experiment = plan.work, plan.experiment
    yield "Work, one thing after the other"
    if plan.dense_runs:
        epochs = quantity(experiment.train.epochs, "epoch")
        runs = f"{quantity(plan.dense_runs, 'dense run')} of {epochs}"
        yield _row(runs, work.dense)
    if plan.packs:
        yield _row(f"{quantity(plan.tickets, 'retraining')}{_length(plan)}", work.retrainings)
    if plan.dense_runs:
        yield _row("both", work.training)
    if work.prepare is None:
        yield "  preparing the images: not planned, since nothing is known of them"
    elif work.prepare.high:
        yield _row("preparing the images", work.prepare)
    yield _row("starting, masks, report", work.starts)


def _length(plan: Plan) -> str:
    """Epochs of the retrainings that are left."""
    tickets = [ticket for pack in plan.packs for ticket in pack.tickets]
    epochs = {epochs_of(ticket, plan.experiment) for ticket in tickets}
    if len(epochs) == 1:
        (each,) = epochs
        return f" of {as_written(each)} epoch{'' if each == 1 else 's'}"
    return f" of {as_written(min(epochs))} to {as_written(max(epochs))} epochs"


def _row(what: str, seconds: Estimate) -> str:
    ends = spread(seconds)
    return f"  {what:<37} {hours(seconds.likely):>31}" + (f"   ({ends})" if ends else "")
