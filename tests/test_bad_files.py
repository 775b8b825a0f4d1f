"""What a person sees who gives a command something wrong: one clear text, exit 2, at once."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import run, write_experiment
from conftest import small_document

DATA = {"source": "digits"}
BAD: dict[str, dict[str, Any] | str] = {
    "unknown key": {"train__peek_lr": 3},
    "wrong type": {"train__epochs": "four"},
    "bool for a number": {"train__lr": True},
    "not a number": {"train__lr": float("nan")},
    "text that looks like a number": {"train__lr": "1e-4"},
    "reset point past the end": {"reset__epochs": [0, 3]},
    "everything pruned": {"prune__sparsities": [0.5, 1.0]},
    "level twice": {"prune__sparsities": [0.5, 0.5]},
    "missing path": {"data": {"source": "npz", "path": "nowhere.npz"}},
    "unknown source": {"data": {"source": "digit"}},
    "no such network": {"model__arch": "mobilenet_v7"},
    "no such torchvision data set": {"data": {"source": "torchvision:CIFAR11", "path": "."}},
    "unreadable YAML": "name: {a",
    "a list": "- name: x\n",
    "an empty file": "",
    "image smaller than the crop": {"data__crop_size": 9},
    "no such criterion": {"prune__criterion": "nowhere.py:score"},
    "a search level by level": {"prune__search": "matching", "prune__style": "iterative"},
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_experiment_ends_in_one_clear_text(case: str, tmp_path: Path) -> None:
    bad = BAD[case]
    path = tmp_path / "bad.yaml"
    if isinstance(bad, str):
        path.write_text(bad)
    else:
        write_experiment(path, small_document(bad))
    ended = run("sweep", path, "--root", "runs", folder=tmp_path)
    assert ended.status == 2, ended
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert ended.err.count("to mend: ") == 1
    assert ended.cpu_seconds < 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.yaml"]


@pytest.mark.parametrize("command", ["plan", "prepare", "dense", "sweep", "report"])
def test_help_answers_within_a_second(command: str, tmp_path: Path) -> None:
    ended = min(
        (run(command, "--help", folder=tmp_path) for _ in range(3)), key=lambda e: e.cpu_seconds
    )
    assert ended.status == 0
    assert "EXPERIMENT.yaml" in ended.out
    assert ended.cpu_seconds < 1


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path: Path) -> None:
    write_experiment(tmp_path / "digits.yaml", small_document({}))
    ended = run("sweep", "digit.yaml", folder=tmp_path)
    assert ended.status == 2
    assert "did you mean 'digits.yaml'?" in ended.err


def test_a_report_of_a_run_that_does_not_exist(tmp_path: Path) -> None:
    ended = run("report", folder=tmp_path)
    assert ended.status == 2
    assert "no such run yet" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    ended = run("sweep", tmp_path, folder=tmp_path)
    assert ended.status == 2
    assert "is no run" in ended.err


def test_an_unwritable_root_is_said_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    ended = run("sweep", "--root", "runs", folder=tmp_path)
    assert ended.status == 2
    assert "Traceback" not in ended.err
    assert "runs" in ended.err


def test_no_cluster_at_the_address(tmp_path: Path, digits_shards: Path) -> None:
    shutil.copytree(digits_shards / "data", tmp_path / "runs" / "data")
    ended = run("sweep", "--address", "127.0.0.1:1", folder=tmp_path)
    assert ended.status == 2, ended
    assert "Traceback" not in ended.err
    assert "--address" in ended.err


@pytest.mark.long
def test_a_store_that_lets_nobody_in_is_refused_and_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    ended = run("sweep", "--root", "s3://bucket/runs", folder=tmp_path)
    assert ended.status == 2, ended
    assert "--root: s3://bucket/runs: Unable to locate credentials" in ended.err
    assert "Traceback" not in ended.err
    status = run("sweep", "--status", "--root", "s3://bucket/runs", folder=tmp_path)
    assert status.status == 1, status
    assert "storage: Unable to locate credentials" in status.err
    assert list(tmp_path.iterdir()) == []
