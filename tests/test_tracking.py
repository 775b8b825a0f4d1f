"""Trackers of other makers get each trial's figures, when a person asks for it."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run as command
from conftest import MakeRun
from ray import tune

from ltray.cluster.tracking import check_tracker, tracker_of
from ltray.cluster.tuning import _Tracking
from ltray.errors import LtrayError

FIGURES = {"val_top1", "train_loss", "epoch", "learning_rate"}


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_tracker_is_one_clear_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(LtrayError, match=rf"pip install 'ltray\[{name}\]'"):
        check_tracker(name)
    check_tracker(None)


def test_an_unknown_tracker_is_refused(tmp_path: Path) -> None:
    refused = command("sweep", "--track", "paper", folder=tmp_path)
    assert refused.status == 2
    assert "wandb" in refused.err


def test_a_tracker_that_fails_warns_once_and_stops_nobody() -> None:
    class Failing(tune.Callback):  # type: ignore[misc]
        def on_trial_result(self, *_what: Any, **_more: Any) -> None:
            raise ConnectionError("no such host")

    tracking = _Tracking(Failing())
    with pytest.warns(RuntimeWarning, match="no such host"):
        tracking.on_trial_result(trial=None)
    tracking.on_trial_result(trial=None)


def test_wandb_without_a_key_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setenv("NETRC", "/nonexistent")
    with pytest.raises(LtrayError, match="--track"):
        tracker_of("wandb", "some")


@pytest.mark.ray
@pytest.mark.slow
def test_mlflow_gets_every_trial(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    store = (tmp_path / "mlflow").as_uri()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = swept(make_run, tmp_path, "mlflow")
    client = mlflow.MlflowClient(tracking_uri=store)
    (experiment,) = client.search_experiments(filter_string=f"name = '{run}'")
    found = client.search_runs([experiment.experiment_id])
    names = {one.data.tags["mlflow.runName"] for one in found}
    assert "0" in names, "the dense run of replicate 0"
    assert len(names) == 4
    for one in found:
        assert set(one.data.metrics) >= FIGURES
        assert not {"rows", "records"} & {*one.data.metrics, *one.data.params}


@pytest.mark.ray
@pytest.mark.slow
def test_wandb_gets_every_trial(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    swept(make_run, tmp_path, "wandb")
    files = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 4
    for file in files:
        content = file.read_bytes()
        assert all(name.encode() in content for name in FIGURES)
        assert b"records" not in content


def swept(make_run: MakeRun, tmp_path: Path, tracker: str) -> str:
    """The name of a small run that was swept and tracked."""
    run = make_run(sweep__tickets_per_trial=2)
    root = run.folder.path.parent
    file = tmp_path / "experiment-1.yaml"
    assert yaml.safe_load(file.read_text())["name"] == "small"
    done = command("sweep", file, "--root", root, "--track", tracker, folder=tmp_path)
    assert done.status == 0, done.err
    return run.folder.path.name
