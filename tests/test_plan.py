"""`python -m ltray.plan` as a person gives it; only the last of these starts Ray."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Outcome, run, write_experiment
from conftest import small_document

from ltray.files import read_json

ELSEWHERE: dict[str, Any] = {
    "name": "elsewhere",
    "data": {"source": "npz", "path": "not-here.npz", "image_size": 28, "channels": 1},
    "model": {"arch": "lenet_300_100"},
    "train": {"epochs": 4, "batch_size": 60, "lr": 0.1},
    "prune": {"sparsities": [0.5, 0.9]},
    "reset": {"epochs": [0, 1], "schedule": "restart"},
}


def plan(folder: Path, *arguments: object, document: dict[str, Any] | None = None) -> Outcome:
    path = folder / "elsewhere.yaml"
    path.write_text(yaml.safe_dump(document or ELSEWHERE))
    return run("plan", path, *arguments, folder=folder)


@pytest.mark.long
def test_without_the_sources_files_and_without_ray(tmp_path: Path) -> None:
    ended = plan(tmp_path, "--seconds-per-epoch", 900, "--workers", "1,2")
    assert ended.status == 0, ended.err
    assert "elsewhere: 2 masks x 2 reset points = 4 tickets, in 2 trials of up to 2" in ended.out
    assert "4 retrainings of 4 epochs 4.00 h = 4 h 00 min" in " ".join(ended.out.split())
    assert "nothing tells how many images npz has here; give --images" in ended.out
    assert "Storage: not planned" in ended.out
    assert not (tmp_path / "runs").exists()


@pytest.mark.long
def test_everything_that_can_be_asked_for(tmp_path: Path) -> None:
    asked = ["--seconds-per-epoch", "900", "--workers", "2", "--images", "60000,10000"]
    asked += ["--classes", "10", "--instance", "g5.xlarge", "--hours-between-interruptions", "24"]
    ended = plan(tmp_path, *asked, "--plot", tmp_path / "plan.svg")
    assert ended.status == 0, ended.err
    assert "54,000 to train on, 6,000 for validation, 10,000 to test" in ended.out
    assert "On g5.xlarge, 1 worker each, at 1.006 USD an hour" in ended.out
    assert "Each worker interrupted every 24 h, on average" in ended.out
    assert "Storage: " in ended.out
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")
    as_json = json.loads(plan(tmp_path, *asked, "--json").out)
    (on,) = as_json["workers"]
    assert on["retrainings"] == {"low": 7200.0, "likely": 7200.0, "high": 7200.0}
    assert on["speedup_retrainings"] == 2.0
    assert on["machines"] == 2
    assert as_json["storage_bytes"]["masks"] == 2 * 266_200 // 8


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds-per-epoch", "0"], "0 is not a number above 0"),
        (["--workers", "1,x"], "x is not a whole number above 0"),
        (["--images", "600"], "600 is not of the form 60000,10000"),
        (["--instance", "g5.xlarg"], "did you mean 'g5.xlarge'"),
        (["--seconds-per-epoch", "1h"], "1h is not a number above 0"),
        (["--instance", "n", "--prices", "none.yaml"], "--prices: none.yaml: No such file"),
        (["--prices", "none.yaml"], "--prices: comes without a machine"),
        (["--images", "600,100"], "--images: comes without --classes N"),
        (["--classes", "10"], "--classes: comes without --images"),
        (
            ["--seconds-per-epoch", "1", "--images", "60,100", "--classes", "10"],
            "train.batch_size: 60 is more than the 54 train images",
        ),
        (["--plot", "plan.gif"], "ends in none of .svg, .png, .pdf"),
        (["--plot", "no/plan.svg"], "there is no folder no"),
        ([], "nothing tells how many images npz has here"),
    ],
)
@pytest.mark.long
def test_a_mistake_is_told_before_anything_is_tried(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    ended = plan(tmp_path, *arguments)
    assert ended.status == 2
    assert said in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.long
def test_a_wrong_experiment_is_told_as_by_every_command(tmp_path: Path) -> None:
    wrong = ELSEWHERE | {"model": {"arch": "lenet_300_10"}}
    ended = plan(tmp_path, "--seconds-per-epoch", 1, document=wrong)
    assert ended.status == 2
    assert "did you mean 'lenet_300_100'" in ended.err


@pytest.mark.ray
def test_it_tries_the_training_here_and_a_sweep_says_what_is_ahead(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small.yaml", small_document({"sweep__backend": "auto"}))
    ended = run("plan", path, "--json", folder=tmp_path)
    assert ended.status == 0, ended.err
    found = json.loads(ended.out)
    assert found["told_by"].startswith("tried on a CPU with made-up images")
    here = next(on for on in found["workers"] if on["workers"] == found["workers_here"])
    assert 0 < here["training"]["likely"] < here["whole"]["low"] < here["whole"]["high"] < 600
    swept = run("sweep", path, folder=tmp_path)
    assert swept.status == 0, swept.err
    assert "plan: 1 dense run of 3 epochs, then 6 retrainings" in swept.out
    assert "python -m ltray.plan" in swept.out
    (launches,) = (tmp_path / "runs").glob("small-*/launches.json")
    (launch,) = read_json(launches)["launches"]
    assert 0 < launch["planned"]["low"] < launch["planned"]["seconds"] < launch["planned"]["high"]
    again = json.loads(run("plan", path, "--json", "--seconds-per-epoch", 1, folder=tmp_path).out)
    assert (again["tickets"], again["dense_runs"]) == (0, 0)
