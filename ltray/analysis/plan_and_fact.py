"""What launches said that they would take, beside what they took."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltray.analysis.accounts import Launch, wall_seconds
from ltray.analysis.columns import Row
from ltray.analysis.measured import Retrainings
from ltray.analysis.whole_sweep import whole_sweep


@dataclass(frozen=True)
class Forecast:
    """What a launch said that it would take from its start, in seconds, and what it took.

    Attributes:
        after: seconds from its start until it said so.
    """

    after: float
    seconds: float
    low: float
    high: float
    took: float

    @property
    def held(self) -> bool:
        """Whether the time that it took lies in the range that was said."""
        return self.low <= self.took <= self.high


@dataclass(frozen=True)
class Speedup:
    """A speed-up by a plan and as measured.

    Attributes:
        what: of what.
        planned: S on `planned_workers`.
        measured: S on `workers`, those that trials ran on.
        at_most: what Amdahl's law gives these with the measured serial share; None without one.
    """

    what: str
    planned: float
    measured: float
    at_most: float | None
    planned_workers: int
    workers: float


def forecasts(launches: Sequence[Launch]) -> list[Forecast]:
    """Plan against fact, of each launch that recorded a plan (`planned`) and was not cut off."""
    return [
        Forecast(planned["after"], planned["seconds"], planned["low"], planned["high"], took)
        for launch in launches
        if (planned := launch.get("planned"))
        and _is_whole(launch)
        and (took := wall_seconds(launch)) is not None
    ]


def speedups(found: Retrainings, launches: Sequence[Launch], dense: Sequence[Row]) -> list[Speedup]:
    """Of the last launch that planned its own: of its retrainings, and from its start to its end.

    What had passed when it planned counts there as much for one worker as for all.

    Args:
        dense: rows of the dense runs.
    """
    numbers = [
        number
        for number, launch in enumerate(launches)
        if _is_whole(launch) and (launch.get("planned") or {}).get("retrainings")
    ]
    spans = tuple(
        replace(span, launch=0) for span in found.spans if numbers and span.launch == numbers[-1]
    )
    if not spans:
        return []
    launch, alone = launches[numbers[-1]], Retrainings(spans, ())
    planned, whole = launch["planned"], whole_sweep(alone, [launch], dense)
    on = planned["workers"], alone.workers
    said = planned["retrainings_on_one"] / planned["retrainings"]
    compared = [Speedup("the retrainings", said, alone.speedup, None, *on)]
    if whole:
        said = planned["seconds_on_one"] / planned["seconds"]
        compared.append(Speedup("the whole launch", said, whole.speedup, whole.amdahl, *on))
    return compared


def _is_whole(launch: Launch) -> bool:
    """Whether it was not cut off; records without `reached_report` are older."""
    return bool(launch.get("reached_report", "report" in launch["stages"]))
