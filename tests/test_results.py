"""Also home of the synthetic runs that test_statistics.py and test_page.py read."""

import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ltray.analysis.columns import EPOCH_SCHEMA, TICKET_SCHEMA, Row
from ltray.analysis.results import (
    collect,
    is_matching,
    read_results,
    write_tables,
)
from ltray.errors import LtrayError
from ltray.experiment import Experiment
from ltray.files import write_json
from ltray.layout import RunFolder
from ltray.lottery.matching import TOLERANCE, within_margin
from ltray.lottery.tickets import Ticket, cells_of, grid
from ltray.lottery.trajectory import Trajectory, write_trajectory

VAL_IMAGES, TEST_IMAGES = 194, 500
LAYERS = {"fc1.weight": 19200, "fc2.weight": 30000, "fc3.weight": 1000}
NOON = datetime(2026, 11, 21, 12, 0, 0, 123456, tzinfo=UTC)
TICKET_COLUMNS = """
    ticket mask replicate seed data_seed retraining criterion scope style sparsity density
    density_kept density_all kept_weights prunable_weights dead_layers reset_epoch reset_step
    reset_method reset_schedule control status error val_top1 val_loss test_top1 test_top5 test_loss
    dense_val_top1 dense_test_top1 matching steps_trained epochs_trained train_seconds
    images_per_second gpu_utilisation gpu_memory_bytes backend backend_ms pack device
    cuda_visible_devices node started_at finished_at attempts
"""
EPOCH_COLUMNS = """
    ticket replicate epoch step train_loss val_top1 val_loss test_top1 test_top5 test_loss
    learning_rate seconds
"""
LEVELS = (0.6, 0.8, 0.9, 0.95, 0.97, 0.99)


def experiment_of(**changes: Any) -> Experiment:
    """A resolved experiment; `changes` are keys of its sections, as `reset_epochs`."""
    document: dict[str, Any] = {
        "name": changes.pop("name", "digits"),
        "seed": 0,
        "replicates": changes.pop("replicates", 1),
        "data": {"source": "digits", "image_size": 8, "crop_size": 8, "channels": 1},
        "model": {"arch": changes.pop("arch", "lenet_300_100")},
        "train": {"epochs": 20, "batch_size": 60, "lr": 0.1, "data_seed": 0},
        "prune": {"sparsities": list(changes.pop("sparsities", LEVELS))},
        "reset": {"epochs": list(changes.pop("reset_epochs", (0, 1, 2, 4, 8)))},
        "controls": list(changes.pop("controls", ())),
        "report": {"margin": changes.pop("margin", 0.02)},
    }
    assert not changes, changes
    return Experiment.model_validate(document)


def synthetic_top1(ticket: Ticket, images: int, split: str) -> float:
    """Falls with sparsity, less so for late reset points, more so for controls.

    k / images, as a real one is.
    """
    noise = random.Random(f"{ticket.replicate} {ticket.name} {split}").gauss(0, 0.004)
    fall = 0.003 * ticket.sparsity + 0.12 * ticket.sparsity**60 / (1 + ticket.reset_epoch / 3)
    fall += {"none": 0.0, "random_init": 0.05, "shuffled_mask": 0.03}[ticket.control] * (
        ticket.sparsity**8
    )
    return round(images * min(1.0, 0.978 - fall + noise)) / images


def ticket_row(ticket: Ticket, **changes: Any) -> Row:
    kept = round(50200 * (1 - ticket.sparsity))
    row: Row = {
        **{name: getattr(ticket, name) for name in ("mask", "replicate", "seed", "data_seed")},
        **{name: getattr(ticket, name) for name in ("retraining", "criterion", "scope", "style")},
        **{name: getattr(ticket, name) for name in ("reset_epoch", "reset_method", "control")},
        "ticket": ticket.name,
        "sparsity": ticket.sparsity,
        "density": 1 - ticket.sparsity,
        "density_kept": kept / 50200,
        "density_all": (kept + 410) / 50610,
        "kept_weights": kept,
        "prunable_weights": 50200,
        "dead_layers": ["fc1.weight"] if ticket.sparsity > 0.98 else [],
        "reset_step": round(25 * ticket.reset_epoch),
        "reset_schedule": ticket.reset_schedule,
        "status": "done",
        "error": None,
        "val_top1": synthetic_top1(ticket, VAL_IMAGES, "val"),
        "val_loss": 0.12,
        "test_top1": synthetic_top1(ticket, TEST_IMAGES, "test"),
        "test_top5": 0.998,
        "test_loss": 0.13,
        "dense_val_top1": 190 / VAL_IMAGES,
        "dense_test_top1": 488 / TEST_IMAGES,
        "best_val_top1": 191 / VAL_IMAGES,
        "best_val_epoch": 17.0,
        "steps_trained": 500 - round(25 * ticket.reset_epoch),
        "epochs_trained": 20 - ticket.reset_epoch,
        "train_seconds": 0.25,
        "images_per_second": 61000.0,
        "gpu_utilisation": None,
        "gpu_memory_bytes": None,
        "backend": "loop",
        "backend_ms": None,
        "pack": f"r{ticket.replicate}-{ticket.mask}",
        "device": "cpu",
        "cuda_visible_devices": "",
        "node": "node-1",
        "started_at": NOON.isoformat(),
        "finished_at": (NOON + timedelta(seconds=0.25)).isoformat(),
        "attempts": 1,
    }
    return {**row, **changes}


def failed_row(ticket: Ticket, status: str = "failed", **changes: Any) -> Row:
    unknown = [column.name for column in TICKET_SCHEMA if column.nullable]
    row = {**ticket_row(ticket), **dict.fromkeys(unknown), "status": status, **changes}
    del row["matching"]
    return row


def epoch_rows(name: str, replicate: int, first: float, last_top1: float) -> list[Row]:
    return [
        {
            "ticket": name,
            "replicate": replicate,
            "epoch": float(epoch),
            "step": 25 * epoch,
            "train_loss": 1 / epoch,
            "val_top1": last_top1 * (1 - 0.5 ** (epoch - first + 1)),
            "val_loss": 1.2 / epoch,
            "test_top1": last_top1 * (1 - 0.5 ** (epoch - first + 1)),
            "test_top5": 0.99,
            "test_loss": 1.3 / epoch,
            "learning_rate": 0.1,
            "seconds": 0.01,
        }
        for epoch in range(int(first) + 1, 21)
    ]


def write_dense(run: RunFolder, replicate: int) -> None:
    row = {
        "ticket": "dense",
        "replicate": replicate,
        "seed": replicate,
        "data_seed": replicate,
        "val_top1": 190 / VAL_IMAGES,
        "val_loss": 0.1,
        "test_top1": 488 / TEST_IMAGES,
        "test_top5": 0.998,
        "test_loss": 0.11,
        "best_val_top1": 191 / VAL_IMAGES,
        "best_val_epoch": 18.0,
        "steps_trained": 500,
        "epochs_trained": 20.0,
        "train_seconds": 0.31,
        "images_per_second": 60500.0,
        "gpu_utilisation": None,
        "gpu_memory_bytes": None,
        "backend": "loop",
        "backend_ms": None,
        "device": "cpu",
        "cuda_visible_devices": "",
        "node": "node-1",
        "started_at": NOON.isoformat(),
        "finished_at": NOON.isoformat(),
        "attempts": 1,
    }
    trajectory = Trajectory(
        row=row,
        epochs=epoch_rows("dense", replicate, 0, 190 / VAL_IMAGES),
        prunable=LAYERS,
        output_layer="fc3.weight",
        parameters=50610,
        steps_per_epoch=25,
        total_steps=500,
        sha256={},
    )
    write_trajectory(run.replicate(replicate), trajectory)


def write_ticket(run: RunFolder, row: Row, name: str = "") -> Path:
    """ticket.json of a done or diverged row, failed.json of a failed one; returns its path."""
    folder = run.replicate(row["replicate"]).ticket(name or row["ticket"])
    failed = row["status"] == "failed"
    first, top1 = row["reset_epoch"], row["val_top1"]
    epochs = [] if top1 is None else epoch_rows(row["ticket"], row["replicate"], first, top1)
    path = folder.failed if failed else folder.done
    write_json(path, {"row": row, "epochs": epochs} | ({} if failed else {"sha256": {}}))
    return path


def write_experiment(run: RunFolder, experiment: Experiment) -> None:
    run.path.mkdir(parents=True, exist_ok=True)
    run.experiment.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))


def write_run(
    folder: Path, experiment: Experiment, row_of: Callable[[Ticket], Row | None] = ticket_row
) -> RunFolder:
    """A run with a dense run per replicate and what `row_of` gives for each ticket."""
    run = RunFolder(folder)
    write_experiment(run, experiment)
    for replicate in range(experiment.replicates):
        write_dense(run, replicate)
    for ticket in grid(experiment):
        row = row_of(ticket)
        if row is not None:
            write_ticket(run, row)
    return run


SMALL = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2))


def test_tables_have_every_column_and_row(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    write_tables(run, collect(run), margin=0.02)
    tickets, epochs = pq.read_table(run.tickets_table), pq.read_table(run.epochs_table)
    assert tickets.schema.equals(TICKET_SCHEMA)
    assert epochs.schema.equals(EPOCH_SCHEMA)
    assert tickets.num_rows == 4
    # The dense run has 20 epochs, a ticket that goes on from epoch 2 has 18.
    assert epochs.num_rows == 20 + 2 * (20 + 18)
    assert epochs["ticket"].to_pylist().count("dense") == 20
    assert tickets["started_at"][0].as_py() == NOON
    assert sorted(path.name for path in run.path.glob("*")) == [
        "epochs.parquet",
        "experiment.yaml",
        "replicate-0",
        "tickets.parquet",
    ]


def test_design_names_of_columns_are_all_there() -> None:
    assert set(TICKET_COLUMNS.split()) <= set(TICKET_SCHEMA.names)
    assert EPOCH_COLUMNS.split() == EPOCH_SCHEMA.names


def test_results_are_the_same_from_tables_and_from_folders(tmp_path: Path) -> None:
    import pandas as pd

    def row_of(ticket: Ticket) -> Row:
        lost = ticket.sparsity == 0.9 and ticket.reset_epoch == 2
        return failed_row(ticket, error="killed") if lost else ticket_row(ticket)

    run = write_run(tmp_path, SMALL, row_of)
    write_tables(run, collect(run), margin=0.02)
    from_tables = read_results(tmp_path)
    run.tickets_table.unlink()
    from_folders = read_results(str(tmp_path))
    pd.testing.assert_frame_equal(from_tables.tickets, from_folders.tickets)
    pd.testing.assert_frame_equal(from_tables.epochs, from_folders.epochs)
    assert from_tables.experiment == SMALL
    assert from_tables.tickets["status"].tolist() == ["done", "done", "done", "failed"]
    # One ticket has no verdict; choosing by the column must work all the same.
    assert len(from_tables.tickets[from_tables.tickets["matching"]]) == 3


def test_a_damaged_table_is_named(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    write_tables(run, collect(run), margin=0.02)
    whole = run.epochs_table.read_bytes()
    for damaged in (whole[:-20], whole[:4] + bytes(200) + whole[204:]):
        run.epochs_table.write_bytes(damaged)
        with pytest.raises(LtrayError, match=r"(?s)epochs\.parquet: cannot be read: .*delete it"):
            read_results(tmp_path)


def test_matching_follows_the_margin_of_today(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, lambda ticket: ticket_row(ticket, val_top1=186 / VAL_IMAGES))
    write_tables(run, collect(run), margin=0.03)
    assert pq.read_table(run.tickets_table)["matching"].to_pylist() == [True] * 4
    assert read_results(tmp_path).tickets["matching"].tolist() == [False] * 4


def test_the_grid_is_that_of_the_experiment_alone(tmp_path: Path) -> None:
    """The run has controls, retrainings, and tickets of a larger grid and of more replicates."""
    larger = experiment_of(replicates=2, controls=("random_init", "shuffled_mask"))
    larger = larger.model_copy(update={"reset": larger.reset.model_copy(update={"retrainings": 2})})
    run = write_run(tmp_path, larger)
    run.experiment.write_text(yaml.safe_dump(SMALL.model_dump(mode="json")))
    results = read_results(tmp_path)
    assert len(results.tickets) == len(grid(larger))
    both = {ticket.name for ticket in cells_of(SMALL)} & set(results.tickets["ticket"])
    assert len(both) == 2  # 0.9 at two reset points lies in both grids
    assert list(results.grid["replicate"]) == [0, 0]
    assert set(results.grid["ticket"]) == both


def test_matching_is_for_done_tickets_only() -> None:
    ticket = grid(SMALL)[0]
    assert is_matching(ticket_row(ticket, val_top1=0.95, dense_val_top1=0.96), 0.01) is True
    assert is_matching(ticket_row(ticket, val_top1=0.949, dense_val_top1=0.96), 0.01) is False
    assert is_matching(failed_row(ticket), 0.01) is None
    assert is_matching(failed_row(ticket, status="diverged"), 0.01) is None


@given(
    images=st.integers(1, 10_000_000),
    dense=st.floats(0, 1),
    below=st.integers(-3, 3),
    margin=st.integers(0, 9_999),
)
def test_margin_is_judged_as_in_exact_arithmetic(
    images: int, dense: float, below: int, margin: int
) -> None:
    # Near the verdict's edge: `right` is where exact arithmetic puts it, or 3 images around.
    dense_right = round(dense * images)
    right = dense_right - margin * images // 10_000 + below
    exact = (right - dense_right) * 10_000 >= -margin * images
    assert within_margin(right / images - dense_right / images, margin / 10_000) is exact
    assert TOLERANCE < 1 / (10_000_000 * 10_000)


def test_done_counts_where_an_old_failure_lies_beside(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    ticket = grid(SMALL)[0]
    write_ticket(run, failed_row(ticket))
    assert [row["status"] for row in collect(run).tickets.values()] == ["failed"]
    write_ticket(run, ticket_row(ticket))
    assert [row["status"] for row in collect(run).tickets.values()] == ["done"]


def test_a_later_row_takes_the_place_of_an_earlier(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    ticket = grid(SMALL)[0]
    write_ticket(run, failed_row(ticket))
    rows = collect(run)
    rows.put(ticket_row(ticket), [])
    assert [row["status"] for row in rows.tickets.values()] == ["done"]


def test_unfinished_and_temporary_things_are_no_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    tickets = run.replicate(0).tickets
    (tickets / ".writing-a-ticket").mkdir()
    (tickets / ".writing-a-ticket" / "ticket.json").write_text("{")
    (tickets / "half-done").mkdir()
    (tickets / "half-done" / ".writing-host-1-ticket.json").write_text("{")
    (tmp_path / "replicate-old").mkdir()
    assert len(collect(run).tickets) == 4


def test_an_empty_run_has_empty_tables(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_experiment(run, SMALL)
    write_tables(run, collect(run), margin=0.02)
    assert len(read_results(tmp_path).tickets) == 0
    assert len(read_results(tmp_path).epochs) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"test_loss": "0.9"}, "test_loss is '0.9', expected double"),
        ({"attempts": 1.5}, "attempts is 1.5, expected int64"),
        ({"attempts": True}, "attempts is True, expected int64"),
        ({"mask": None}, "mask is None, expected string"),
        ({"started_at": "noon"}, "started_at is 'noon'"),
        ({"started_at": "2026-11-21T12:00:00"}, "started_at is '2026-11-21T12:00:00'"),
        ({"status": "finished"}, "status is 'finished', not one of done, diverged, failed"),
        ({"val_top1": None}, "val_top1 is null, though the ticket is done"),
        ({"val_top_1": 0.9}, "unknown column 'val_top_1'; did you mean 'val_top1'?"),
        ({"matching": True}, "unknown column 'matching'"),
    ],
)
def test_a_wrong_row_is_an_error_naming_the_file(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    run = RunFolder(tmp_path)
    row = ticket_row(grid(SMALL)[0])
    path = write_ticket(run, {**row, **change}, name=row["ticket"])
    with pytest.raises(LtrayError) as caught:
        collect(run)
    assert str(caught.value).startswith(f"{path}: {says}")


def test_a_missing_column_is_an_error_naming_the_file(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    path = write_ticket(run, ticket_row(grid(SMALL)[0]))
    record = json.loads(path.read_text())
    del record["row"]["device"]
    path.write_text(json.dumps(record))
    with pytest.raises(LtrayError, match="row has no column 'device'"):
        collect(run)
    path.write_text(json.dumps({"row": record["row"]}))
    with pytest.raises(LtrayError, match="has no 'epochs'"):
        collect(run)
    path.write_text("{")
    with pytest.raises(LtrayError, match="is not JSON"):
        collect(run)


def test_a_copied_ticket_folder_is_an_error(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_ticket(run, ticket_row(grid(SMALL)[0]), name="copy")
    with pytest.raises(LtrayError, match="speaks of replicate 0, ticket 'magnitude-"):
        collect(run)


def test_a_folder_that_is_no_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match=r"is not a run: it has no experiment\.yaml"):
        read_results(tmp_path)
