"""A sweep from its first command to its end, and what Amdahl and Gustafson make of that."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ltray.analysis.accounts import RETRAININGS, Launch, wall_seconds
from ltray.analysis.columns import Row
from ltray.analysis.measured import Retrainings
from ltray.analysis.planning.scaling_laws import amdahl, amdahl_limit, gustafson
from ltray.analysis.trials import known

DENSE_RUN = "dense run"  # the stage in which those of all replicates train side by side


@dataclass(frozen=True)
class WholeSweep:
    """A sweep with what everyone waited for; in seconds.

    Attributes:
        launches: how many were counted: those that wrote down their end.
        serial_seconds: of every stage but the retrainings, as if all dense runs but the longest
            took nothing.
        beside_seconds: of these others, one after the other: they can train beside the longest.
        work_seconds: of the trials, one after the other.
        makespan_seconds: in which they trained.
        retraining_seconds: of that stage; it also has the first trials' start and the last's end.
        unstaged_seconds: of the wall time: in no stage.
        wall_seconds: from start to end of the launches.
        workers: p, as of the retrainings.
    """

    launches: int
    serial_seconds: float
    beside_seconds: float
    work_seconds: float
    makespan_seconds: float
    retraining_seconds: float
    unstaged_seconds: float
    wall_seconds: float
    workers: float

    @property
    def alone_seconds(self) -> float:
        """What one worker would have needed for all."""
        return self.serial_seconds + self.beside_seconds + self.work_seconds

    @property
    def speedup(self) -> float:
        """S = one worker's time / wall time."""
        return self.alone_seconds / self.wall_seconds

    @property
    def serial_share(self) -> float:
        """s, of the time on one worker."""
        return self.serial_seconds / self.alone_seconds

    def amdahl_on(self, workers: float) -> float:
        """What so many workers give at most, with this serial share."""
        return amdahl(workers, self.serial_share, self.beside_seconds / self.alone_seconds)

    @property
    def amdahl(self) -> float:
        """What p workers give at most."""
        return self.amdahl_on(self.workers)

    @property
    def limit(self) -> float:
        """What any number of workers gives at most."""
        return amdahl_limit(self.serial_share)

    @property
    def around_seconds(self) -> float:
        """Of the stage of retrainings: before the first trial trained, and after the last."""
        return max(0.0, self.retraining_seconds - self.makespan_seconds)

    @property
    def unshared_share(self) -> float:
        """Of the wall time: outside the makespan of the retrainings."""
        return max(0.0, 1 - self.makespan_seconds / self.wall_seconds)

    @property
    def gustafson(self) -> float:
        """Scaled speed-up s + (1 - s) p with `unshared_share`, were no slot ever idle."""
        return gustafson(self.workers, self.unshared_share)


def whole_sweep(
    found: Retrainings, launches: Sequence[Launch], dense: Sequence[Row]
) -> WholeSweep | None:
    """The sweep with its serial stages; None where no launch with retrainings has ended.

    Launches that prepared or trained the dense run only count too. What trained in a launch
    that left no record is not in it.

    Args:
        dense: rows of the dense runs.
    """
    ended = {
        number: wall
        for number, launch in enumerate(launches)
        if (wall := wall_seconds(launch)) is not None
    }
    spans = tuple(span for span in found.spans if span.launch in ended)
    wall = sum(ended.values())
    if not spans or not wall:
        return None
    counted = Retrainings(spans, ())
    stages = [launches[number]["stages"] for number in ended]
    waited = sum(seconds for of in stages for name, seconds in of.items() if name != RETRAININGS)
    retraining = sum(of.get(RETRAININGS, 0.0) for of in stages)
    runs = [_dense_runs(dense, launches[number]) for number in ended]
    return WholeSweep(
        launches=len(ended),
        serial_seconds=waited - sum(took - longest for took, longest, _ in runs),
        beside_seconds=sum(max(took, work) - longest for took, longest, work in runs),
        work_seconds=counted.work.total_seconds(),
        makespan_seconds=counted.makespan.total_seconds(),
        retraining_seconds=retraining,
        unstaged_seconds=max(0.0, wall - waited - retraining),
        wall_seconds=wall,
        workers=counted.workers,
    )


def amdahl_points(whole: WholeSweep) -> list[tuple[float, float]]:
    """(workers, what they give at most with the sweep's serial share), up to twice its workers."""
    counts = {2.0**power for power in range(1, 20) if 2.0**power <= 2 * whole.workers}
    return [(p, whole.amdahl_on(p)) for p in sorted({1.0, whole.workers, *counts})]


def _dense_runs(dense: Sequence[Row], launch: Launch) -> tuple[float, float, float]:
    """Seconds of a launch's dense runs: first start to last end, the longest, all together."""
    began, ended = (datetime.fromisoformat(launch[key]) for key in ("started_at", "finished_at"))
    times = [
        (
            datetime.fromisoformat(str(row["started_at"])),
            datetime.fromisoformat(str(row["finished_at"])),
        )
        for row in dense
        if known(row["started_at"]) and known(row["finished_at"])
    ]
    times = [(start, end) for start, end in times if began <= start <= end <= ended]
    if not times or DENSE_RUN not in launch["stages"]:
        return 0.0, 0.0, 0.0
    each = [(end - start).total_seconds() for start, end in times]
    took = (max(end for _, end in times) - min(start for start, _ in times)).total_seconds()
    return min(took, launch["stages"][DENSE_RUN]), max(each), sum(each)
