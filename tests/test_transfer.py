"""`python -m ltray.transfer`, whole: a source's tickets on other classes of the digits."""

from pathlib import Path

import pytest
from commands import only_run, rows, run, write_experiment
from conftest import MakeRun, located, small_document, train_without_ray


@pytest.mark.ray
def test_tickets_go_to_another_data_set_and_are_trained_there_once(
    tmp_path: Path, make_run: MakeRun
) -> None:
    made = make_run(name="low", data__classes=[0, 1, 2, 3, 4], reset__epochs=[0, 1])
    source = located(tmp_path / "experiment-1.yaml", made.folder.path.parent)
    train_without_ray(source)
    low = source.folder.path
    target = small_document(
        {
            "name": "high",
            "data__classes": [5, 6, 7, 8, 9],
            "reset": {"epochs": [0], "schedule": "restart"},
        }
    )
    write_experiment(tmp_path / "high.yaml", target)
    first = run("transfer", low, "--to", "high.yaml", folder=tmp_path)
    assert first.status == 0, first.err
    folder = only_run(tmp_path / "runs", "high")
    inside = folder / f"transfer-{low.name}"
    assert len(rows(inside)) == 2 + 4 + 4 + 2  # dense, tickets, shuffled masks, fresh weights
    assert len(rows(folder)) == 2  # the target's own
    page = (folder / "transfer.html").read_text()
    assert low.name in page
    assert (inside / "report.html").exists()
    again = run("transfer", low, "--to", folder, folder=tmp_path)
    assert again.status == 0, again.err
    assert "Ray:" not in again.out
    assert "12 of 12 tickets done here" in again.out


def test_a_source_that_was_never_swept_is_refused(tmp_path: Path) -> None:
    write_experiment(tmp_path / "low.yaml", small_document({"name": "low"}))
    target = small_document({"name": "high", "reset": {"epochs": [0], "schedule": "restart"}})
    write_experiment(tmp_path / "high.yaml", target)
    wrong = run("transfer", "low.yaml", "--to", "high.yaml", folder=tmp_path)
    assert wrong.status == 2
    assert "there is no such run yet" in wrong.err
