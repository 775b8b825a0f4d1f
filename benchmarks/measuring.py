"""What the benchmarks share: CPU seconds of whole process trees, rounds side by side, a table."""

import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil


@dataclass(frozen=True)
class Reading:
    """What one round of one variant took."""

    wall_seconds: float
    cpu_seconds: float


class TreeMeter:
    """CPU seconds of this process and all below it, also of those that end meanwhile.

    Processes are looked at five times a second: what one does in its last fifth is lost. What
    looking costs is taken off.
    """

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._seen: dict[tuple[int, float], float] = {}
        self._peaks: dict[tuple[int, float], tuple[str, int]] = {}

    def __enter__(self) -> "TreeMeter":
        self._look()
        self._before = dict(self._seen)
        self._started = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()
        spent = sum(now - self._before.get(key, 0.0) for key, now in self._seen.items())
        me = next(key for key in self._seen if key[0] == os.getpid())
        self.own_process_seconds = self._seen[me] - self._before[me] - self._looking_seconds
        self.reading = Reading(time.perf_counter() - self._started, spent - self._looking_seconds)

    def peak_mib(self, name: str) -> float:
        """The most unshared memory that a process of this name had, in MiB."""
        return (
            max((peak for called, peak in self._peaks.values() if name in called), default=0)
            / 2**20
        )

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._look()
        self._looking_seconds = time.thread_time()

    def _look(self) -> None:
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                with process.oneshot():
                    key = (process.pid, process.create_time())
                    times = process.cpu_times()
                    name = " ".join(process.cmdline()[:2]) or process.name()
                    memory = process.memory_info()
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
            self._seen[key] = times.user + times.system
            resident = memory.rss - memory.shared
            self._peaks[key] = (name, max(resident, self._peaks.get(key, ("", 0))[1]))


def interleaved(
    variants: Mapping[str, Callable[[], object]],
    rounds: int,
    before: Callable[[], object] = lambda: None,
) -> dict[str, list[Reading]]:
    """Run every variant once a round, in turn, each after `before`; readings by variant."""
    readings: dict[str, list[Reading]] = {name: [] for name in variants}
    for number in range(rounds):
        for name, run in variants.items():
            before()
            with TreeMeter() as meter:
                run()
            readings[name].append(meter.reading)
            print(f"  round {number + 1}/{rounds}, {name}: {meter.reading}", flush=True)
    return readings


def rates(readings: Sequence[Reading], images: int) -> list[float]:
    """Images per CPU second of each round."""
    return [images / reading.cpu_seconds for reading in readings]


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one shape, with the columns under each other."""
    names = list(rows[0])
    shown = [[_shown(row[name]) for name in names] for row in rows]
    widths = [max(len(name), *(len(row[n]) for row in shown)) for n, name in enumerate(names)]
    for row in [names, *shown]:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )


def summary(values: Sequence[float]) -> dict[str, float | int]:
    """Median, range and number of some figures."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def conditions(*packages: str) -> dict[str, Any]:
    """Machine and versions, to be written beside every figure."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def write_json(path: str | None, result: Mapping[str, Any]) -> None:
    """Write a result where it was asked for."""
    if path:
        Path(path).write_text(json.dumps(result, indent=1) + "\n")


def _shown(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
