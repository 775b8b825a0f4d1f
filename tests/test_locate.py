"""From an experiment file to its run, where the source is absent."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import small_document

from ltray.errors import LtrayError
from ltray.experiment_file import read_experiment
from ltray.locate import experiment_and_run, locate_experiment
from ltray.record import write_experiment
from ltray.run import Run


@pytest.fixture
def experiment_file(tmp_path: Path) -> Path:
    """Of a source `some.npz` beside it, which is not there."""
    data: dict[str, Any] = {"source": "npz", "path": "some.npz"}
    path = tmp_path / "some.yaml"
    path.write_text(yaml.safe_dump(small_document({"name": "some", "data": data})))
    return path


def begun(experiment_file: Path, value: int) -> Run:
    """The run of a source of so bright images, which is gone again."""
    images, labels = np.full((40, 6, 6), value, np.uint8), np.arange(40) % 4
    some = {"x_train": images, "y_train": labels, "x_test": images[:20], "y_test": labels[:20]}
    source = experiment_file.with_name("some.npz")
    np.savez(source, **some)  # type: ignore[arg-type]
    run = locate_experiment(read_experiment(experiment_file), experiment_file.parent / "runs")
    write_experiment(run)
    source.unlink()
    return run


def test_why_the_source_is_left_aside_is_said(experiment_file: Path) -> None:
    said: list[str] = []
    experiment, run = experiment_and_run(experiment_file, experiment_file.parent, said.append)
    assert (experiment.name, run) == ("some", None)
    (line,) = said
    assert line.startswith("without the source's own files: ")
    assert "some.npz" in line


def test_of_a_source_that_is_absent_the_one_run_that_fits_is_found(experiment_file: Path) -> None:
    made = begun(experiment_file, 1)
    said: list[str] = []
    root = experiment_file.parent / "runs"
    experiment, run = experiment_and_run(experiment_file, root, said.append)
    assert run is not None
    assert (run.folder, experiment.data.image_size, said) == (made.folder, 6, [])


def test_folders_of_its_name_that_are_other_runs_are_passed_by(experiment_file: Path) -> None:
    made = begun(experiment_file, 1)
    root = made.folder.path.parent
    shutil.copytree(made.folder.path, root / f"{made.folder.path.name}-backup")
    (root / "some-00000000").mkdir()
    (root / "some-00000000/experiment.yaml").write_text("what: is this\n")
    _, run = experiment_and_run(experiment_file, root, print)
    assert run is not None
    assert run.folder == made.folder
    shutil.rmtree(made.folder.path)
    with pytest.raises(LtrayError, match="some-00000000"):
        locate_experiment(read_experiment(experiment_file), root)


def test_two_runs_that_fit_are_an_error_that_names_both(experiment_file: Path) -> None:
    one, two = begun(experiment_file, 1), begun(experiment_file, 2)
    root = experiment_file.parent / "runs"
    with pytest.raises(LtrayError, match="two runs fit") as error:
        experiment_and_run(experiment_file, root, print)
    assert one.folder.path.name in str(error.value)
    assert two.folder.path.name in str(error.value)
