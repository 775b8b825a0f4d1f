"""How busy the GPUs were, and what a step took at each sparsity, by the tickets' rows."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import fmean, median

from ltray.analysis.columns import Row
from ltray.analysis.trials import Trial, known


@dataclass(frozen=True)
class GpuMoment:
    """A time in which the same trials ran: their mean utilisation in [0, 1], and how many."""

    start: datetime
    end: datetime
    utilisation: float
    trials: int

    @property
    def seconds(self) -> float:
        return (self.end - self.start).total_seconds()


@dataclass(frozen=True)
class GpuMean:
    """One trial's GPUs over all its trials; `seconds` is how long these trained."""

    node: str
    devices: str
    model: str
    utilisation: float
    seconds: float


@dataclass(frozen=True)
class StepTime:
    """Milliseconds that a training step took of one ticket, the median of n tickets."""

    sparsity: float
    backend: str
    milliseconds: float
    n: int


def gpu_moments(trials: Iterable[Trial]) -> list[GpuMoment]:
    """GPU use over time, as steps; moments in which no trial ran are left out.

    A trial's figure is one mean, so within a trial nothing is told. Trials without one (on a
    CPU, or where NVML could not be read) take no part.
    """
    changes: dict[datetime, tuple[float, int]] = defaultdict(lambda: (0.0, 0))
    for trial in trials:
        use = trial.gpu_utilisation
        if use is not None:
            for moment, sign in ((trial.start, 1), (trial.end, -1)):
                total, running = changes[moment]
                changes[moment] = total + sign * use, running + sign
    found, total, running = [], 0.0, 0
    for start, end in pairwise(sorted(changes)):
        total, running = total + changes[start][0], running + changes[start][1]
        if running:
            found.append(GpuMoment(start, end, min(1.0, max(0.0, total / running)), running))
    return found


def mean_use(moments: Sequence[GpuMoment]) -> float | None:
    """The mean over the trials' time in [0, 1]; None where no trial had a figure."""
    seconds = sum(one.seconds * one.trials for one in moments)
    if not seconds:
        return None
    return sum(one.utilisation * one.seconds * one.trials for one in moments) / seconds


def gpu_means(trials: Iterable[Trial]) -> list[GpuMean]:
    """Each GPU's mean, weighted by the trials' time, in order of node and GPU."""
    by_device = defaultdict(list)
    for trial in trials:
        if trial.gpu_utilisation is not None:
            model = str(trial.rows[0]["device"])
            by_device[trial.node, trial.devices, model].append(trial)
    return [GpuMean(*place, *_mean_of(of)) for place, of in sorted(by_device.items())]


def step_times(rows: Iterable[Row]) -> list[StepTime]:
    """What a step took, by sparsity and backend; tickets without a finished step are left out.

    The seconds of a pack's step are shared out equally among its tickets.
    """
    found = defaultdict(list)
    for row in rows:
        seconds, steps = known(row["train_seconds"]), known(row["steps_trained"])
        if seconds is not None and steps:
            found[row["sparsity"], str(row["backend"])].append(1000 * seconds / steps)
    return [StepTime(*place, median(of), len(of)) for place, of in sorted(found.items())]


def _mean_of(trials: Sequence[Trial]) -> tuple[float, float]:
    """(utilisation, seconds)."""
    uses = [trial.gpu_utilisation or 0.0 for trial in trials]
    seconds = [trial.busy.total_seconds() for trial in trials]
    if not sum(seconds):
        return fmean(uses), 0.0
    return fmean(uses, seconds), sum(seconds)
