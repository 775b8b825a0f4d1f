"""The columns of tickets.parquet and epochs.parquet, and whether a row has exactly these."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ltray.errors import LtrayError, did_you_mean

Row = dict[str, Any]

STATUSES = ("done", "diverged", "failed")

TIME = pa.timestamp("us", tz="UTC")


def _known(name: str, kind: pa.DataType) -> pa.Field:
    """A column that every row knows, also a failed one's."""
    return pa.field(name, kind, nullable=False)


TICKET_SCHEMA = pa.schema(
    [
        _known("ticket", pa.string()),
        _known("mask", pa.string()),
        _known("replicate", pa.int64()),
        _known("seed", pa.int64()),
        _known("data_seed", pa.int64()),
        _known("retraining", pa.int64()),
        _known("criterion", pa.string()),
        _known("scope", pa.string()),
        _known("style", pa.string()),
        _known("sparsity", pa.float64()),
        _known("density", pa.float64()),
        pa.field("density_kept", pa.float64()),
        pa.field("density_all", pa.float64()),
        pa.field("kept_weights", pa.int64()),
        pa.field("prunable_weights", pa.int64()),
        pa.field("dead_layers", pa.list_(pa.string())),
        _known("reset_epoch", pa.float64()),
        _known("reset_step", pa.int64()),
        _known("reset_method", pa.string()),
        _known("reset_schedule", pa.string()),
        _known("control", pa.string()),
        _known("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("val_top1", pa.float64()),
        pa.field("val_loss", pa.float64()),
        pa.field("test_top1", pa.float64()),
        pa.field("test_top5", pa.float64()),
        pa.field("test_loss", pa.float64()),
        pa.field("dense_val_top1", pa.float64()),
        pa.field("dense_test_top1", pa.float64()),
        pa.field("best_val_top1", pa.float64()),
        pa.field("best_val_epoch", pa.float64()),
        pa.field("matching", pa.bool_()),
        pa.field("steps_trained", pa.int64()),
        pa.field("epochs_trained", pa.float64()),
        pa.field("train_seconds", pa.float64()),
        pa.field("images_per_second", pa.float64()),
        pa.field("gpu_utilisation", pa.float64()),  # mean in [0, 1] of the last attempt, by NVML
        pa.field("gpu_memory_bytes", pa.int64()),  # most in use on the device in that time
        pa.field("backend", pa.string()),
        pa.field("backend_ms", pa.string()),
        pa.field("pack", pa.string()),
        pa.field("device", pa.string()),
        pa.field("cuda_visible_devices", pa.string()),
        pa.field("node", pa.string()),
        pa.field("started_at", TIME),
        pa.field("finished_at", TIME),
        pa.field("attempts", pa.int64()),
    ]
)

EPOCH_SCHEMA = pa.schema(
    [
        _known("ticket", pa.string()),
        _known("replicate", pa.int64()),
        _known("epoch", pa.float64()),
        _known("step", pa.int64()),
        pa.field("train_loss", pa.float64()),
        pa.field("val_top1", pa.float64()),
        pa.field("val_loss", pa.float64()),
        pa.field("test_top1", pa.float64()),
        pa.field("test_top5", pa.float64()),
        pa.field("test_loss", pa.float64()),
        pa.field("learning_rate", pa.float64()),
        pa.field("seconds", pa.float64()),
    ]
)

_TICKET_FIELDS = [column for column in TICKET_SCHEMA if column.name != "matching"]
TICKET_COLUMNS = tuple(column.name for column in _TICKET_FIELDS)
_EPOCH_FIELDS = list(EPOCH_SCHEMA)
_MEASURED = (
    "density_kept",
    "dead_layers",
    "val_top1",
    "test_top1",
    "dense_val_top1",
    "dense_test_top1",
    "epochs_trained",
    "train_seconds",
)
_PYTHON_TYPES: dict[pa.DataType, tuple[type, ...]] = {
    pa.string(): (str,),
    pa.int64(): (int,),
    pa.float64(): (int, float),
    pa.list_(pa.string()): (list,),
    TIME: (str,),
}


def check_ticket(path: Path, row: Row) -> None:
    """Refuse a ticket's row that does not have exactly the columns that a ticket.json holds."""
    _check_row(path, row, _TICKET_FIELDS)
    if row["status"] not in STATUSES:
        raise damaged(path, f"status is {row['status']!r}, not one of {', '.join(STATUSES)}")
    for name in _MEASURED:
        if row["status"] == "done" and row[name] is None:
            raise damaged(path, f"{name} is null, though the ticket is done")


def check_epochs(path: Path, epochs: Sequence[Row]) -> None:
    """Refuse epoch rows that do not have exactly the columns of epochs.parquet."""
    for row in epochs:
        _check_row(path, row, _EPOCH_FIELDS)


def damaged(path: Path, problem: str) -> LtrayError:
    """The error of a file that does not hold what its writer should have put there."""
    return LtrayError(
        str(path),
        problem,
        "if another version of ltray wrote it, use that one; else delete the file, and sweep "
        "makes it anew",
    )


def _check_row(path: Path, row: Row, fields: Sequence[pa.Field]) -> None:
    """Refuse a row whose columns are not exactly `fields`, each of its type or null."""
    for column in fields:
        if column.name not in row:
            raise damaged(path, f"row has no column '{column.name}'")
        value = row[column.name]
        if not _fits(value, column):
            raise damaged(path, f"{column.name} is {value!r}, expected {column.type}")
    if len(row) > len(fields):
        known = [column.name for column in fields]
        unknown = next(name for name in row if name not in known)
        raise damaged(path, f"unknown column '{unknown}'{did_you_mean(unknown, known)}")


def _fits(value: object, column: pa.Field) -> bool:
    # Arrow itself would take 1.5 for an integer and True for a float.
    if value is None:
        return bool(column.nullable)
    if isinstance(value, bool) or not isinstance(value, _PYTHON_TYPES[column.type]):
        return False
    return column.type != TIME or _is_time(str(value))


def _is_time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
