"""A launch's own record: when the driver ran, on what, how long each stage took."""

import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ltray import host
from ltray.analysis.planning.planned import OnWorkers
from ltray.cluster.broken_gpus import BrokenGpus
from ltray.cluster.nodes import Demands
from ltray.cluster.resources import Cluster
from ltray.cluster.tracking import MakeTracker
from ltray.files import is_there, read_json, write_json

PACKAGES = ("ltray", "ray", "torch")


class Launch:
    """One call of a command on a run, which adds itself to a launches.json.

    Args:
        record: that file.

    Attributes:
        demands: what it asks of every process that works for it.
        broken: GPUs that it found to fail.
        make_tracker: gives what the trials' reports are handed on to, where a person wants that.
        reached_report: whether a sweep has come as far as that.
    """

    def __init__(
        self,
        record: Path,
        demands: Demands,
        broken: BrokenGpus,
        make_tracker: MakeTracker | None = None,
    ) -> None:
        self.demands = demands
        self.broken = broken
        self.make_tracker = make_tracker
        self.reached_report = False
        self._path = record
        self._before = read_json(self._path)["launches"] if is_there(self._path) else []
        self._started = datetime.now(UTC)
        self._stages: dict[str, float] = {}
        self._machine: dict[str, Any] = {}
        self._planned: dict[str, float] = {}

    @property
    def is_planned(self) -> bool:
        """Whether it was said how long it would take."""
        return bool(self._planned)

    def plan(self, one: OnWorkers, on: OnWorkers) -> None:
        """Note how many seconds more it should take from now, on one worker and on all."""
        passed = (datetime.now(UTC) - self._started).total_seconds()
        planned = {
            "after": passed,
            "seconds": passed + on.whole.likely,
            "low": passed + on.whole.low,
            "high": passed + on.whole.high,
            "seconds_on_one": passed + one.whole.likely,
            "retrainings": on.retrainings.likely,
            "retrainings_on_one": one.retrainings.likely,
        }
        self._planned = {name: round(seconds, 3) for name, seconds in planned.items()}
        self._planned["workers"] = on.workers

    @property
    def name(self) -> str:
        """The launch time, as a folder's name."""
        return self._started.strftime("%Y%m%dT%H%M%S.%fZ")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge the block's wall time to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._stages[name] = round(self._stages.get(name, 0.0) + seconds, 3)

    def on(self, cluster: Cluster) -> None:
        """Note what the launch runs on."""
        self._machine = {
            "nodes": len(cluster.nodes),
            "cpus": cluster.cpus,
            "gpus": cluster.gpus,
            "gpu_names": list(cluster.gpu_names),
            "cpu_name": host.cpu_name(),
        }

    def write(self) -> None:
        """Write the launch, as far as it went, behind the earlier ones."""
        me = {
            "started_at": self._started.isoformat(timespec="microseconds"),
            "finished_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "reached_report": self.reached_report,
            "stages": self._stages,
            "planned": self._planned or None,
            "machine": self._machine,
            "versions": {
                **{package: _version(package) for package in PACKAGES},
                "python": platform.python_version(),
            },
        }
        write_json(self._path, {"launches": [*self._before, me]})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"  # ltray itself, in a checkout
