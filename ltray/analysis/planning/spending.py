"""What a plan costs beside time: interruptions, money, storage, as lines."""

from collections.abc import Iterator, Mapping

from ltray.analysis.planning.bill import Prices, bill, workers_on
from ltray.analysis.planning.checkpointing import (
    Interruptions,
    dalys_interval,
    slowdown,
    youngs_interval,
)
from ltray.analysis.planning.estimate import Estimate
from ltray.analysis.planning.planned import OnWorkers, Plan
from ltray.analysis.planning.wording import hours
from ltray.analysis.wording import data_size, quantity

SAVED_EVERY_SECONDS = 300.0  # within long epochs; after epochs as often as writing is cheap
NODE_COMES_SECONDS = 300.0  # until a cloud's new machine takes the place of a lost one
NEVER = 1000.0  # work that takes so many times as long is not done in anyone's lifetime


def interrupted(plan: Plan, hours_between: float) -> Interruptions:
    """What an interruption costs a worker of this plan.

    Args:
        hours_between: of a worker, on average.
    """
    return Interruptions(
        between=hours_between * 3600,
        write=plan.costs.state_seconds,
        restart=NODE_COMES_SECONDS + plan.costs.starting.trials.likely,
    )


def slowed_down(found: Interruptions, every: float = SAVED_EVERY_SECONDS) -> float | None:
    """How many times as long training takes, a state every so many seconds; None: never ends."""
    times_as_long = slowdown(every, found)
    return None if times_as_long > NEVER else times_as_long


def interrupted_whole(on: OnWorkers, found: Interruptions) -> Estimate | None:
    """Seconds from the command to the report, with states as ltray saves them; None: never."""
    times_as_long = slowed_down(found)
    if times_as_long is None:
        return None
    return on.whole - on.training + on.training * times_as_long


def held(plan: Plan, on: OnWorkers, hours_between: float | None) -> Estimate | None:
    """Seconds that machines are held; None where workers are interrupted too often to end.

    Args:
        hours_between: of two interruptions of a worker, on average; None where there are none.
    """
    if hours_between is None:
        return on.whole
    return interrupted_whole(on, interrupted(plan, hours_between))


def interruptions(plan: Plan, hours_between: float) -> Iterator[str]:
    """What it costs that workers are taken away.

    Args:
        hours_between: of a worker, on average.
    """
    found = interrupted(plan, hours_between)
    daly, young = (law(found.write, found.between) for law in (dalys_interval, youngs_interval))
    mine = slowdown(SAVED_EVERY_SECONDS, found)
    yield f"Each worker interrupted every {hours_between:g} h, on average"
    yield f"  writing a state takes {found.write:.2g} s, a new worker {found.restart / 60:.0f} min"
    yield f"  best interval of states {daly:.0f} s (Daly; {young:.0f} s by Young): training takes"
    yield f"  {_times(slowdown(daly, found))} as long; {_times(mine)} with states every"
    yield f"  {SAVED_EVERY_SECONDS:.0f} s, the longest that ltray leaves between two"
    for on in plan.on:
        whole = interrupted_whole(on, found)
        took = "practically never ends" if whole is None else hours(whole.likely)
        yield f"  {quantity(on.workers, 'worker'):>16} {took:>31}"


def _times(slower: float) -> str:
    return f"over {NEVER:.0f} times" if slower > NEVER else f"{slower:.3f} times"


def money(
    plan: Plan, name: str, prices: Prices, hours_between: float | None = None
) -> Iterator[str]:
    """What machines of one kind cost that are held from the command to the report.

    Args:
        hours_between: of two interruptions of a worker, on average; None where there are none.
    """
    found = prices.instance(name)
    each = workers_on(found, plan.experiment.sweep)
    rate = f"{found.per_hour:g} {prices.currency} an hour"
    yield f"On {name}, {quantity(each, 'worker')} each, at {rate}"
    yield f"  ({prices.where}, as of {prices.as_of})"
    for on in plan.on:
        machines, price = bill(on.workers, held(plan, on, hours_between), found, each)
        what = f"{quantity(on.workers, 'worker')} on {quantity(machines, 'machine')}"
        if price is None:
            yield f"  {what:>32} without end"
            continue
        low, likely, high = (f"{end:,.2f}" for end in price.ends)
        spread = "" if low == high else f"   ({low} to {high})"
        yield f"  {what:>32} {likely:>12} {prices.currency}{spread}"
    if hours_between is not None:
        yield "  with the time that interruptions add;"
    yield "  without head, storage and traffic; an epoch is taken to cost there what it costs here"


def storage(found: Mapping[str, int] | None) -> Iterator[str]:
    """What the run leaves in its root.

    Args:
        found: kind of file -> bytes; None where that is unknown.
    """
    if found is None:
        yield "Storage: not planned, since nothing is known of the images"
        return
    parts = ", ".join(f"{what} {data_size(count)}" for what, count in found.items())
    yield f"Storage: {data_size(sum(found.values()))}: {parts}"
