"""What Prometheus finds on each node's endpoint: how trials train, and how far the sweep is.

Ray hands a gauge on once after it was set, and its endpoint forgets a value that is not handed on
again for two of its intervals (20 s). So values are set again every second as long as they hold,
and those of a pack that has ended are gone half a minute later, though its process lives on: a
sweep of 10,000 tickets never has more series than its running packs give.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from threading import Event, Lock, Thread
from typing import Any, Self

from ltray.run import Run

SET_EVERY_SECONDS = 1.0
DENSE = "dense"  # what the dense run is called where a pack has its name

# name -> what Prometheus tells about it. Ray puts `ray_` before each.
OF_TRIALS = {
    "ltray_epoch": "Epoch that the trial has reached, counted as in the dense run",
    "ltray_progress_ratio": "Epoch that the trial has reached, as a share of all epochs",
    "ltray_train_loss": "Mean training loss since the evaluation before, over the trial's tickets",
    "ltray_val_top1_ratio": "Validation accuracy, 0 to 1, mean over the trial's tickets",
    "ltray_learning_rate": "Learning rate of the last step",
    "ltray_images_per_second": "Training images per second, counted once for each ticket",
    "ltray_gpu_utilisation_ratio": "Share of the time in which the trial's GPUs computed, 0 to 1",
    "ltray_gpu_memory_bytes": "Most bytes in use on the trial's GPUs, all together",
    "ltray_tickets_training": "Tickets of the trial that have not ended",
}
OF_SWEEPS = {
    "ltray_tickets": "Tickets of the grid by status: done, diverged, failed, left",
    "ltray_tickets_matching": "Tickets that match the dense run",
    "ltray_packs": "Packs of this round by state: running, waiting",
    "ltray_time_left_seconds": "Estimated time until the last ticket ends",
}
TRIAL_TAGS = ("run", "replicate", "pack")
SWEEP_TAGS = {
    "ltray_tickets": ("run", "status"),
    "ltray_tickets_matching": ("run",),
    "ltray_packs": ("run", "state"),
    "ltray_time_left_seconds": ("run",),
}
COLUMNS = {  # of an epoch row -> series
    "epoch": "ltray_epoch",
    "train_loss": "ltray_train_loss",
    "val_top1": "ltray_val_top1_ratio",
    "learning_rate": "ltray_learning_rate",
    "images_per_second": "ltray_images_per_second",
    "gpu_utilisation": "ltray_gpu_utilisation_ratio",
    "gpu_memory_bytes": "ltray_gpu_memory_bytes",
}

SeeShown = Callable[[Mapping[str, float], int], None]
"""Takes the columns of a report that are known, and how many tickets have ended."""


def unseen(_shown: Mapping[str, float], _ended: int) -> None:
    """Take a report in where nobody looks."""


class Series:
    """Values that are on the endpoint while the block runs.

    Nothing that goes wrong here reaches the caller: training goes on without it.

    Args:
        tags: of all values.
    """

    def __init__(self, **tags: str) -> None:
        self._tags = tags
        self._values: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._lock = Lock()
        self._end = Event()
        self._thread = Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._end.set()
        self._thread.join()

    def put(self, name: str, value: float | None, **tags: str) -> None:
        """Take a value in, to be shown from now on; None takes it away."""
        key = name, tuple(sorted(tags.items()))
        with self._lock:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value

    def set(self) -> None:
        """Hand all values to Ray, which takes a few microseconds each."""
        with self._lock:
            values = list(self._values.items())
        for (name, tags), value in values:
            try:
                _gauge(name).set(value, {**self._tags, **dict(tags)})
            except Exception:  # noqa: BLE001 (whatever it is, training can go on)
                return

    def _keep(self) -> None:
        while not self._end.wait(SET_EVERY_SECONDS):
            self.set()


@contextmanager
def trial_series(run: Run, replicate: int, pack: str, tickets: int) -> Iterator[SeeShown]:
    """Show what a trial reports while the block runs.

    Args:
        pack: its name, or DENSE.
        tickets: how many it trains.
    """
    with Series(run=run.folder.path.name, replicate=str(replicate), pack=pack) as series:

        def see(shown: Mapping[str, float], ended: int) -> None:
            for column, name in COLUMNS.items():
                if column in shown:
                    series.put(name, shown[column])
            if "epoch" in shown:
                series.put("ltray_progress_ratio", shown["epoch"] / run.experiment.train.epochs)
            series.put("ltray_tickets_training", tickets - ended)
            series.set()

        see({}, 0)
        yield see


class SweepSeries(Series):
    """What the driver knows of a sweep, on the endpoint of the driver's node."""

    def __init__(self, run: Run) -> None:
        super().__init__(run=run.folder.path.name)

    def tickets(self, by_status: Mapping[str, int], matching: int) -> None:
        """Take in how many tickets there are of each status, and how many of them match."""
        for status, count in by_status.items():
            self.put("ltray_tickets", count, status=status)
        self.put("ltray_tickets_matching", matching)
        self.set()

    def time_left(self, seconds: float | None) -> None:
        """Take in the estimate, None where there is none."""
        self.put("ltray_time_left_seconds", seconds)

    def packs(self, running: int, waiting: int) -> None:
        """Take in how many packs of the round have been begun and not ended, or not begun."""
        self.put("ltray_packs", running, state="running")
        self.put("ltray_packs", waiting, state="waiting")
        self.set()


@cache
def _gauge(name: str) -> Any:
    from ray.util.metrics import Gauge

    tags = SWEEP_TAGS.get(name, TRIAL_TAGS)
    return Gauge(name, (OF_TRIALS | OF_SWEEPS)[name], tag_keys=tags)
