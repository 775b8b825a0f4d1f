"""`python -m ltray.transfer`, whole: a source's tickets on other classes of the digits."""

from pathlib import Path

import pytest
from archives import SHARED
from commands import only_run, rows, run, write_experiment
from conftest import MakeRun, located, small_document, train_without_ray

MINI = SHARED / "ilsvrc2012-mini"


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


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(not MINI.is_dir(), reason="shared/data/ilsvrc2012-mini is absent")
def test_a_mobilenet_ticket_goes_from_imagenets_archives_to_ten_classes(tmp_path: Path) -> None:
    """The main job in small: 1,000 folders of the archives, then a target of another size."""
    train = {"epochs": 2, "batch_size": 32, "lr": 0.05, "schedule": "constant"}
    common = {"model": {"arch": "mobilenet_v2"}, "train": train, "prune": {"sparsities": [0.5]}}
    data = {"source": "ilsvrc2012", "path": str(MINI), "image_size": 40, "crop_size": 32}
    source = {**common, "name": "mini", "data": {**data, "augment": "random_resized_crop"}}
    write_experiment(tmp_path / "mini.yaml", {**source, "reset": {"epochs": [0, 1]}})
    data = {"source": "digits", "image_size": 32, "channels": 3, "train_limit": 500}
    reset = {"epochs": [0, 1], "schedule": "restart"}
    write_experiment(tmp_path / "ten.yaml", {**common, "name": "ten", "data": data, "reset": reset})
    swept = run("sweep", "mini.yaml", folder=tmp_path)
    assert swept.status == 0, swept.err
    low = only_run(tmp_path / "runs", "mini")
    moved = run("transfer", low, "--to", "ten.yaml", folder=tmp_path)
    assert moved.status == 0, moved.err
    folder = only_run(tmp_path / "runs", "ten")
    found = rows(folder / f"transfer-{low.name}")
    assert [row["status"] for row in found] == ["done"] * (2 + 2 + 2 + 1)
    assert f"{low.name}: " in moved.out
    page = (folder / "transfer.html").read_text()
    assert all(word in page for word in ("shuffled_mask", "random_init", low.name))
