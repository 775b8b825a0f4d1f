"""What runs inside a trial: the core's functions, given a place and a way to report."""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

from ltray.errors import LtrayError
from ltray.lottery.tickets import Pack
from ltray.run import Run

if TYPE_CHECKING:
    from ltray.training.place import Place

SHOWN = (
    "epoch",
    "train_loss",
    "val_top1",
    "val_loss",
    "test_top1",
    "learning_rate",
    "images_per_second",
    "gpu_utilisation",
    "gpu_memory_bytes",
)
REPORT_EVERY_SECONDS = 1.0  # each report waits for the driver: often is slow for small networks

Row = dict[str, Any]


def dense_trial(config: Row, run: Run) -> None:
    """Tune's trainable for one replicate's dense run."""
    from ltray.training.dense import train_dense

    report = _Reports()
    place = _place(config)
    try:
        train_dense(run, config["replicate"], place, lambda row: report.add([row], []))
    except LtrayError as error:  # it would fail the same way again: nothing for Tune to retry
        report.flush(stage_failed=json.dumps([type(error).__name__, error.args]))
    report.flush()


def pack_trial(config: Row, run: Run, packs: dict[str, Pack]) -> None:
    """Tune's trainable for one pack of tickets."""
    from ltray.training.retrain import train_pack

    report = _Reports()
    train_pack(run, packs[config["pack"]], _place(config), report.add)
    report.flush()


@ray.remote  # type: ignore[untyped-decorator]
def masks_task(run: Run, replicate: int) -> dict[str, list[str]]:
    """Make a replicate's missing masks; sparsity -> tensors that a new one leaves nothing of."""
    from ltray.lottery.pruning import make_masks
    from ltray.lottery.trajectory import read_trajectory

    folder = run.folder.replicate(replicate)
    trajectory = read_trajectory(folder)
    assert trajectory is not None, "masks are made when the trajectory is whole"
    return make_masks(run.experiment, folder, trajectory)


class _Reports:
    """Rows on their way to the driver, sent in few messages and never lost at the end.

    Rows travel as JSON text, which Tune's loggers pass over; the plain numbers beside them are
    what TensorBoard and Tune's own tables show.
    """

    def __init__(self) -> None:
        self._rows: list[Row] = []
        self._records: list[Row] = []
        self._ended = 0
        self._sent = time.monotonic()

    def add(self, rows: Sequence[Row], records: Sequence[Row]) -> None:
        self._rows += rows
        self._records += records
        self._ended += len(records)
        if records or time.monotonic() - self._sent > REPORT_EVERY_SECONDS:
            self.flush()

    def flush(self, **more: str) -> None:
        if not (self._rows or self._records or more):
            return
        tune.report(
            {
                **_shown(self._rows),
                "tickets_ended": self._ended,
                "rows": json.dumps(self._rows),
                "records": json.dumps(self._records),
                **more,
            }
        )
        self._rows, self._records = [], []
        self._sent = time.monotonic()


def _shown(rows: Sequence[Row]) -> dict[str, float]:
    """Means over the pack at its last epoch of what is known."""
    last = [row for row in rows if row["step"] == rows[-1]["step"]]
    found = {name: [row[name] for row in last if row[name] is not None] for name in SHOWN}
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def _place(config: Row) -> "Place":
    from ltray.training.place import this_place

    node = ray.util.get_node_ip_address()
    return this_place(config["gpus"], config["cpus"], node)
