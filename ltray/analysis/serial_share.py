"""The serial share that a measured speed-up stands for, and how far chance could move it."""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heapreplace
from random import Random
from statistics import stdev

from ltray.analysis.intervals import CONFIDENCE
from ltray.analysis.measured import Retrainings
from ltray.analysis.planning.scaling_laws import karp_flatt
from ltray.analysis.trials import Span

RESAMPLES = 400
_MOST_SCHEDULED = 2_000_000  # trials in all resamples together: a second or two


@dataclass(frozen=True)
class SerialShare:
    """Karp and Flatt's share, with a 95 % interval in [0, 1].

    Above 1 where the workers were slower than one alone would have been: no share explains that.
    """

    share: float
    low: float
    high: float
    resamples: int


@dataclass(frozen=True)
class _Seconds:
    """What a span is scheduled anew from: the seconds of its parts."""

    start_ups: list[float]
    trials: list[float]
    pauses: list[float]

    def schedule(self, random: Random) -> tuple[float, float]:
        """Trials drawn anew, each to the slot that is free first -> (work, makespan)."""
        slots = len(self.start_ups)
        drawn = random.choices(self.trials, k=len(self.trials))
        ends = [start + trial for start, trial in zip(self.start_ups, drawn, strict=False)]
        heapify(ends)
        pauses = random.choices(self.pauses, k=len(drawn) - slots) if self.pauses else []
        for pause, trial in zip(pauses, drawn[slots:], strict=True):
            heapreplace(ends, ends[0] + pause + trial)
        return sum(drawn), max(ends)


def serial_share(found: Retrainings, random: Random) -> SerialShare | None:
    """The serial share that the speed-up of the retrainings stands for; None for one worker.

    Every idle moment counts as if it were work that cannot be shared. The interval is Student's
    t times a bootstrap's standard error to both sides: as many trials, and pauses between them,
    are drawn with replacement from the measured ones and given to the slots as they become free.
    The draws' own quantiles would not do: what ends last makes their distribution skew, to the
    other side than the error's. Of a sweep with one trial a slot it is too narrow all the same.

    Args:
        random: decides what is drawn; the same gives the same interval.

    Source: Karp and Flatt 1990, "Measuring parallel processor performance"; Efron 1979,
        "Bootstrap methods"; Student 1908, "The probable error of a mean".
    """
    from scipy.special import stdtrit

    if found.workers <= 1 or not found.makespan:
        return None
    share = karp_flatt(found.workers, found.speedup)
    parts = [_seconds(span) for span in found.spans]
    trials = sum(len(part.trials) for part in parts)
    resamples = max(40, min(RESAMPLES, _MOST_SCHEDULED // trials))
    error = stdev(_drawn_share(parts, random) for _ in range(resamples))
    half = float(stdtrit(trials - 1, (1 + CONFIDENCE) / 2)) * error
    return SerialShare(
        share=share,
        low=max(0.0, share - half),
        high=min(max(1.0, share), share + half),
        resamples=resamples,
    )


def _seconds(span: Span) -> _Seconds:
    return _Seconds(
        [span.start_up(slot).total_seconds() for slot in span.slots],
        [trial.busy.total_seconds() for trial in span.trials],
        [pause.total_seconds() for slot in span.slots for pause, _ in slot.pauses],
    )


def _drawn_share(parts: Sequence[_Seconds], random: Random) -> float:
    scheduled = [(len(part.start_ups), *part.schedule(random)) for part in parts]
    work = sum(work for _, work, _ in scheduled)
    makespan = sum(makespan for *_, makespan in scheduled)
    workers = sum(slots * makespan for slots, _, makespan in scheduled) / makespan
    return karp_flatt(workers, work / makespan)
