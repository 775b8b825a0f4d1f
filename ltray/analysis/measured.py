"""What training side by side gave a sweep, and where its workers' time went."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from statistics import median_low
from typing import Literal, get_args

from ltray.analysis.accounts import Launch
from ltray.analysis.columns import Row
from ltray.analysis.trials import NONE, Slot, Span, Trial, spans_of, trials_of

Reason = Literal["start-up", "waiting", "failures", "straggler"]
REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True)
class IdleStretch:
    """A time in which a slot trained nothing.

    Attributes:
        reason: start-up: from the first start of the launch's trials to the slot's own first.
            waiting: between two trials: processes, images, the choice of a backend, reports.
            failures: of these two, what is put down to attempts that were lost; see `slot_uses`.
            straggler: from the slot's last end to the last end of all.
    """

    reason: Reason
    start: datetime
    end: datetime


@dataclass(frozen=True)
class SlotUse:
    """A slot's time in a launch: its trials and `idle` fill the makespan without overlap."""

    slot: Slot
    idle: tuple[IdleStretch, ...]

    def idle_for(self, reason: Reason) -> timedelta:
        """How long the slot was idle for one reason."""
        return sum((one.end - one.start for one in self.idle if one.reason == reason), NONE)


@dataclass(frozen=True)
class Retrainings:
    """The parallel part of a run, over all its launches.

    Attributes:
        spans: one for each launch.
        uses: of the slots of each span.
    """

    spans: tuple[Span, ...]
    uses: tuple[tuple[SlotUse, ...], ...]

    @property
    def work(self) -> timedelta:
        """All trials one after the other, each as long as it took beside the others."""
        return sum((span.work for span in self.spans), NONE)

    @property
    def makespan(self) -> timedelta:
        """From the first start to the last end of a launch, summed over launches."""
        return sum((span.makespan for span in self.spans), NONE)

    @property
    def slot_time(self) -> timedelta:
        """p x makespan, summed over launches: the time that the slots were there for."""
        return sum((len(span.slots) * span.makespan for span in self.spans), NONE)

    @property
    def workers(self) -> float:
        """p, the slots on which trials ran; over launches their mean, weighted by makespan."""
        if not self.makespan:
            return float(max(len(span.slots) for span in self.spans))
        return self.slot_time / self.makespan

    @property
    def speedup(self) -> float:
        """S = work / makespan: how many trials trained at a time, on average."""
        return self.work / self.makespan if self.makespan else 1.0

    @property
    def efficiency(self) -> float:
        """E = S / p: the share of the slots' time in which they trained."""
        return self.speedup / self.workers

    @property
    def idle(self) -> dict[Reason, timedelta]:
        """By reason, over all slots; with `work` it adds up to `slot_time`, exactly."""
        uses = [use for of in self.uses for use in of]
        return {reason: sum((use.idle_for(reason) for use in uses), NONE) for reason in REASONS}


def retrainings(rows: Sequence[Row], launches: Sequence[Launch]) -> Retrainings | None:
    """The parallel part of a run by its tickets' rows; None where no ticket has times.

    Args:
        rows: of all tickets of the run: slots work for every grid that asked.
        launches: of launches.json.
    """
    spans = spans_of(trials_of(rows), launches)
    if not spans:
        return None
    uses = tuple(tuple(slot_uses(span, number == 0)) for number, span in enumerate(spans))
    return Retrainings(tuple(spans), uses)


def slot_uses(span: Span, first_launch: bool) -> list[SlotUse]:
    """How each slot of a launch spent its time.

    Rows tell when a ticket's last attempt began, and how many were begun before it, but not
    when. So where a trial has lost attempts, what the slot's time before it has above the median
    before trials without (in the same launch; nothing where there are none) is put down to
    failures. Before a slot's first trial that is done in a run's first launch only: later, the
    lost attempt is one of an earlier launch. A failed ticket has no times: what was lost in it
    stays with waiting or straggler.

    Args:
        first_launch: whether it is the run's first.
    """
    usual_start = _usual([(span.start_up(slot), slot.trials[0]) for slot in span.slots])
    usual_pause = _usual([pause for slot in span.slots for pause in slot.pauses])
    found = []
    for slot in span.slots:
        first, last = slot.trials[0], slot.trials[-1]
        idle = _before("start-up", span.start, first, usual_start if first_launch else None)
        for earlier, later in pairwise(slot.trials):
            idle += _before("waiting", earlier.end, later, usual_pause)
        idle.append(IdleStretch("straggler", last.end, span.end))
        found.append(SlotUse(slot, tuple(one for one in idle if one.start < one.end)))
    return found


def _usual(befores: Sequence[tuple[timedelta, Trial]]) -> timedelta:
    """The median time before trials that lost no attempt."""
    times = [time for time, trial in befores if trial.attempts == 1]
    return median_low(times) if times else NONE


def _before(
    reason: Reason, start: datetime, trial: Trial, usual: timedelta | None
) -> list[IdleStretch]:
    """The time from `start` to a trial; with lost attempts, only `usual` of it for the reason."""
    lost_from = trial.start
    if trial.attempts > 1 and usual is not None:
        lost_from = min(start + usual, trial.start)
    return [
        IdleStretch(reason, start, lost_from),
        IdleStretch("failures", lost_from, trial.start),
    ]
