"""A plan's times and speed-ups on 1, 2, ... P workers, as lines."""

from collections.abc import Iterator

from ltray.analysis.planning.estimate import Estimate
from ltray.analysis.planning.planned import (
    OnWorkers,
    Plan,
    best_tickets_per_trial,
    workers_that_pay,
)
from ltray.analysis.planning.scaling_laws import amdahl_limit
from ltray.analysis.planning.wording import hours, spread, times
from ltray.analysis.wording import quantity

SOONER = 0.95  # another pack size is worth a line when a sweep takes at most so much of the time
_COLUMNS = f"  {'P':>6} {'time':>31} {'speed-up':>9} {'efficiency':>11}"


def retrainings_table(plan: Plan) -> Iterator[str]:
    """The retrainings' training, which is all that the write-up's complexity counts."""
    yield "The retrainings alone, whole trials on P workers"
    yield _COLUMNS
    for on in plan.on:
        yield _line(on, on.retrainings, plan.work.retrainings)


def training_table(plan: Plan) -> Iterator[str]:
    """With the dense run before them, and what the laws make of that."""
    yield "With the dense run, which every ticket waits for"
    yield f"{_COLUMNS} {'Amdahl':>8} {'Gustafson':>10}"
    for on in plan.on:
        laws = f"{times(plan.amdahl(on.workers)):>8} {times(plan.gustafson(on)):>10}"
        yield f"{_line(on, on.training, plan.work.training)} {laws}"
    limit = times(amdahl_limit(plan.serial))
    yield f"  {100 * plan.serial:.2f} % is serial: by Amdahl's law never more than {limit} times"
    yield "  as fast as one worker. Gustafson's is the speed-up of a grid that grows with P."


def whole_table(plan: Plan, here: int | None) -> Iterator[str]:
    """All that a person waits for.

    Args:
        here: how many workers there are now, here or at the address; None where nobody asked.
    """
    one = next((on.whole for on in plan.on if on.workers == 1), None)
    yield "From the command to the report, with starts and preparing"
    yield f"{_COLUMNS if one else _COLUMNS[:40]}   range"
    for on in plan.on:
        mark = "  <- here" if on.workers == here else ""
        yield f"{_line(on, on.whole, one)}   {spread(on.whole)}{mark}"


def advice(plan: Plan, here: int | None) -> Iterator[str]:
    """How many workers pay, how large packs should be, and how long workers are held."""
    most, pays = max(1, len(plan.packs)), workers_that_pay(plan)
    if pays < most:
        yield f"Beyond {quantity(pays, 'worker')} it stops paying: with {most:,}, one a trial, the"
        yield "  report comes less than 5 % earlier."
    else:
        pay = "pays" if most == 1 else "pay"
        yield f"Up to {quantity(most, 'worker')} {pay}, one a trial; more have nothing to do."
    for on in plan.on:
        size, seconds = best_tickets_per_trial(plan, on.workers)
        if seconds < SOONER * on.whole.likely:
            workers = quantity(on.workers, "worker")
            yield f"On {workers} `sweep.tickets_per_trial: {size}` would take"
            yield f"  {hours(seconds)} in place of {hours(on.whole.likely)}."
    chosen = next((on for on in plan.on if on.workers == here), plan.on[-1])
    used = plan.work.training.likely / 3600
    workers = quantity(chosen.workers, "worker")
    held = f"{chosen.worker_hours:,.2f} worker-hours in all{_gpu_hours(plan, chosen)}"
    yield f"{workers}: held for {held};"
    yield f"  the training takes one worker {used:,.2f} hours."


def _gpu_hours(plan: Plan, on: OnWorkers) -> str:
    each = plan.experiment.sweep.gpus_per_trial
    if each == "auto":
        return " (GPU-hours, where each has a GPU)"
    return f" ({plan.gpu_hours(on):,.2f} GPU-hours)" if each else ""


def _line(on: OnWorkers, seconds: Estimate, work: Estimate | None) -> str:
    """One row, with speed-up and efficiency against `work` on one worker."""
    line = f"  {on.workers:>6,} {hours(seconds.likely):>31}"
    if work is None:
        return line
    speedup = work.likely / seconds.likely if seconds.likely else 1.0
    return f"{line} {times(speedup):>9} {times(speedup / on.workers):>11}"
