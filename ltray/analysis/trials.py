"""Trials as the rows tell of them: when each trained, and on which worker slot."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from itertools import groupby, pairwise
from statistics import fmean
from typing import Any

from ltray.analysis.accounts import Launch
from ltray.analysis.columns import Row
from ltray.files import is_there, read_json
from ltray.layout import RunFolder

NONE = timedelta()


@dataclass(frozen=True)
class Trial:
    """One unbroken stretch of training of one pack, by one process.

    A pack that was trained in parts, or resumed, has several.

    Attributes:
        devices: its cuda_visible_devices, empty on a CPU.
        start: when its training began; what came before (the process, images, backends) is not
            told by rows.
        end: when the last of its tickets ended.
        attempts: how often the training of a ticket of it was begun, the most of them; 1 where
            rows do not say.
        rows: of its tickets.
    """

    replicate: int
    pack: str
    node: str
    devices: str
    start: datetime
    end: datetime
    attempts: int
    rows: tuple[Row, ...]

    @property
    def busy(self) -> timedelta:
        return self.end - self.start

    @property
    def gpu_utilisation(self) -> float | None:
        """Share in [0, 1] of the trial's time in which its GPUs computed; None where not read."""
        read = [value for row in self.rows if (value := known(row["gpu_utilisation"])) is not None]
        return fmean(read) if read else None


@dataclass(frozen=True)
class Slot:
    """What trains one trial at a time: a GPU or several, or a worker's share of a node's CPUs.

    Attributes:
        place: which of the node's: `GPU 0`, `worker 2`.
        trials: in order of time; none overlaps another.
    """

    node: str
    place: str
    trials: tuple[Trial, ...]

    @property
    def name(self) -> str:
        return f"{self.node} {self.place}"

    @property
    def busy(self) -> timedelta:
        return sum((trial.busy for trial in self.trials), NONE)

    @property
    def pauses(self) -> list[tuple[timedelta, Trial]]:
        """The time before each trial but the first, and the trial."""
        return [(later.start - earlier.end, later) for earlier, later in pairwise(self.trials)]


@dataclass(frozen=True)
class Span:
    """The retrainings of one launch, from the first start of a trial to the last end.

    `launch` is its place in launches.json; None for one, or several, that left no record there.
    """

    launch: int | None
    slots: tuple[Slot, ...]

    @cached_property
    def start(self) -> datetime:
        return min(slot.trials[0].start for slot in self.slots)

    @cached_property
    def end(self) -> datetime:
        return max(slot.trials[-1].end for slot in self.slots)

    @property
    def makespan(self) -> timedelta:
        return self.end - self.start

    def start_up(self, slot: Slot) -> timedelta:
        """From the first start of all to the slot's own."""
        return slot.trials[0].start - self.start

    @property
    def trials(self) -> list[Trial]:
        return [trial for slot in self.slots for trial in slot.trials]

    @property
    def work(self) -> timedelta:
        """All trials one after the other."""
        return sum((slot.busy for slot in self.slots), NONE)


def known(value: Any) -> Any:
    """The value of a row; None for the NaN or NaT that a data frame has in its place."""
    return None if value is None or value != value else value  # noqa: PLR0124 (only NaN differs)


def of_sweeps(run: RunFolder, rows: Iterable[Row]) -> list[Row]:
    """The rows but for those that were trained to see how stable training is.

    Args:
        rows: of the run's tickets, as for `trials_of`.
    """
    path = run.stability.launches
    launches = read_json(path)["launches"] if is_there(path) else []
    aside = [
        tuple(datetime.fromisoformat(launch[key]) for key in ("started_at", "finished_at"))
        for launch in launches
    ]
    return [
        row
        for row in rows
        if known(row["started_at"]) is None
        or not any(start <= _time(row, "started_at") <= end for start, end in aside)
    ]


def trials_of(rows: Iterable[Row]) -> list[Trial]:
    """The trials that trained these tickets, in order of start.

    Args:
        rows: of tickets, as `collect` or `read_results(...).tickets.to_dict("records")` has them.
            Those without times are left out: a failed ticket has none, and a clock that was set
            back between start and end gives none.
    """
    together = defaultdict(list)
    for row in rows:
        if has_times(row):
            devices = known(row["cuda_visible_devices"]) or ""
            together[row["replicate"], row["pack"], row["node"], devices].append(row)
    found = [trial for place, of in together.items() for trial in _stretches(place, of)]
    return sorted(found, key=lambda trial: (trial.start, trial.node, trial.devices, trial.pack))


def has_times(row: Row) -> bool:
    """Whether a row says when and where it was trained."""
    if any(known(row[name]) is None for name in ("started_at", "finished_at", "node", "pack")):
        return False
    return _time(row, "started_at") <= _time(row, "finished_at")


def spans_of(trials: Iterable[Trial], launches: Sequence[Launch]) -> list[Span]:
    """The trials by launch, each launch's on its slots; in order of time.

    Args:
        launches: of launches.json, in order. A trial belongs to the launch in whose time it
            began. A launch that was killed, or still runs, has not recorded itself.
    """
    by_launch = defaultdict(list)
    for trial in trials:
        by_launch[_launch_of(trial, launches)].append(trial)
    return [
        Span(None if after else number, tuple(_slots(of)))
        for (number, after), of in sorted(by_launch.items())
    ]


def _time(row: Row, name: str) -> datetime:
    return datetime.fromisoformat(str(row[name]))


def _stretches(place: tuple[int, str, str, str], rows: Sequence[Row]) -> list[Trial]:
    """One trial for each time that the rows of a pack in one place have no training between."""
    stretches: list[tuple[datetime, datetime, list[Row]]] = []
    for row in sorted(rows, key=lambda row: (_time(row, "started_at"), row["ticket"])):
        start, end = _time(row, "started_at"), _time(row, "finished_at")
        if stretches and (start == stretches[-1][0] or start < stretches[-1][1]):
            first, last, of = stretches[-1]
            stretches[-1] = first, max(last, end), [*of, row]
        else:
            stretches.append((start, end, [row]))
    return [
        Trial(*place, start, end, max(int(known(row["attempts"]) or 1) for row in of), tuple(of))
        for start, end, of in stretches
    ]


def _launch_of(trial: Trial, launches: Sequence[Launch]) -> tuple[int, bool]:
    """The last launch that had begun, and whether it had ended before the trial began."""
    starts = [datetime.fromisoformat(launch["started_at"]) for launch in launches]
    number = bisect_right(starts, trial.start) - 1
    if number < 0:
        return number, True
    end = launches[number]["finished_at"]
    return number, end is not None and datetime.fromisoformat(end) < trial.start


def _slots(trials: Sequence[Trial]) -> list[Slot]:
    by_node = groupby(sorted(trials, key=lambda trial: trial.node), lambda trial: trial.node)
    return [slot for node, of in by_node for slot in _slots_of_node(node, list(of))]


def _slots_of_node(node: str, trials: Sequence[Trial]) -> list[Slot]:
    slots = []
    for devices, of in _device_groups(trials):
        lanes = _lanes(of)
        for number, lane in enumerate(lanes, 1):
            place = f"GPU {','.join(devices)}" if devices else f"worker {number}"
            shared = f" ({number})" if devices and len(lanes) > 1 else ""
            slots.append(Slot(node, place + shared, tuple(lane)))
    return slots


def _device_groups(trials: Sequence[Trial]) -> list[tuple[list[str], list[Trial]]]:
    """A node's trials by the GPUs that they could meet on; all of a node's CPU trials are one.

    Trials of two GPUs each may be given 0,1 and then 1,2: these three are one group.
    """
    groups: list[tuple[set[str], list[Trial]]] = []
    for trial in trials:
        devices, of = {name for name in trial.devices.split(",") if name}, [trial]
        meeting = [one for one in groups if one[0] & devices or not one[0] | devices]
        for group in meeting:
            groups.remove(group)
            devices, of = devices | group[0], group[1] + of
        groups.append((devices, of))
    named = [(sorted(devices, key=_by_number), of) for devices, of in groups]
    return sorted(named, key=lambda group: [_by_number(name) for name in group[0]])


def _by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (-1, name)


def _lanes(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The fewest lanes in which no trial overlaps another: each goes to the first that is free."""
    lanes: list[list[Trial]] = []
    for trial in sorted(trials, key=lambda trial: (trial.start, trial.end, trial.pack)):
        free = (lane for lane in lanes if lane[-1].end <= trial.start)
        lane = next(free, None)
        if lane is None:
            lanes.append([trial])
        else:
            lane.append(trial)
    return lanes
