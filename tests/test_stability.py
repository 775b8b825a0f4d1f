"""`python -m ltray.stability`, whole: copies, lines, table and page."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from commands import only_run, rows, run, write_experiment
from conftest import small_document

from ltray.locate import locate


@pytest.mark.ray
def test_copies_are_trained_and_measured_once(tmp_path: Path, prepared_root: Path) -> None:
    document = small_document({"reset__epochs": [0, 1], "train__epochs": 2})
    write_experiment(tmp_path / "small.yaml", document)
    first = run("stability", "small.yaml", "--sparsities", "0.9", folder=tmp_path)
    assert first.status == 0, first.err
    folder = only_run(prepared_root, "small")
    table = pq.read_table(folder / "stability" / "barriers.parquet").to_pylist()
    assert [(row["sparsity"], row["reset_epoch"]) for row in table] == [
        (0, 0),
        (0, 1),
        (0.9, 0),
        (0.9, 1),
    ]
    assert all(0 <= row["val_barrier"] <= 1 for row in table)
    page = (folder / "stability" / "report.html").read_text()
    assert "the dense network" in page
    assert "tickets at 90" in page
    again = run("stability", "small.yaml", "--sparsities", "0.9", folder=tmp_path)
    assert again.status == 0
    assert "Ray:" not in again.out
    assert pq.read_table(folder / "stability" / "barriers.parquet").to_pylist() == table
    status = run("sweep", "small.yaml", "--status", folder=tmp_path)
    # The copies in the dense run's own order are the grid's.
    assert "4 tickets: 2 done, 0 diverged, 0 failed, 2 to train" in status.out
    assert len(rows(folder)) == 2 + 6  # the others are kept beside the grid

    document["prune"]["sparsities"] = [0.5, 0.9, 0.95]
    write_experiment(tmp_path / "small.yaml", document)
    assert run("stability", "small.yaml", "--sparsities", "0.9", folder=tmp_path).status == 0
    assert locate(folder).experiment.prune.sparsities == (0.5, 0.9, 0.95)
    document["reset"]["epochs"] = [0, 1, 1.01]
    write_experiment(tmp_path / "small.yaml", document)
    for command in ("stability", "dense"):
        ended = run(command, "small.yaml", folder=tmp_path)
        assert (ended.status, "are both step 20" in ended.err) == (2, True), ended


def test_a_sparsity_that_is_not_in_the_grid_is_refused_at_once(tmp_path: Path) -> None:
    write_experiment(tmp_path / "small.yaml", small_document({}))
    wrong = run("stability", "small.yaml", "--sparsities", "0.7", folder=tmp_path)
    assert wrong.status == 2
    assert "choose from 0.5, 0.9" in wrong.err
    assert not (tmp_path / "runs").exists()
