"""`python -m ltray.plan` as a person gives it; only the last of these starts Ray."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Outcome, run, write_experiment
from conftest import MakeRun, small_document, train_without_ray
from own_network import NETS

from ltray.files import read_json
from ltray.record import write_experiment as write_run

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
    assert "Storage: 62.4 MB: shards 54.9 MB, trajectories 3.2 MB, masks 66.5 kB" in ended.out
    assert (tmp_path / "plan.svg").read_text().startswith("<?xml")
    as_json = json.loads(plan(tmp_path, *asked, "--json", "--plot", tmp_path / "plan.png").out)
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")
    (on,) = as_json["workers"]
    assert on["retrainings"] == {"low": 7200.0, "likely": 7200.0, "high": 7200.0}
    assert on["speedup_retrainings"] == 2.0
    assert on["machines"] == 2
    weights = 4 * (784 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10)
    assert as_json["storage_bytes"] == {
        "shards": 70_000 * 784,
        "trajectories": 3 * weights,  # epochs 0, 1 and 4, without momentum
        "masks": 2 * 266_200 // 8,
        "tickets": 4 * (weights + 16_000 // 8),
    }
    assert as_json["interruptions"]["between"] == 24 * 3600
    assert on["whole_interrupted"] > on["whole"]["likely"]


@pytest.mark.long
def test_a_table_of_prices_of_ones_own(tmp_path: Path) -> None:
    rack = {"cpus": 8, "gpus": 2, "per_hour": 0.5}
    table = {"as_of": "2026-11", "currency": "EUR", "where": "our rack", "instances": {"r1": rack}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(table))
    asked = ["--seconds-per-epoch", "900", "--workers", "2", "--instance", "r1"]
    ended = plan(tmp_path, *asked, "--prices", tmp_path / "own.yaml")
    assert ended.status == 0, ended.err
    assert "On r1, 2 workers each, at 0.5 EUR an hour\n  (our rack, as of 2026-11)" in ended.out
    assert "2 workers on 1 machine " in ended.out


@pytest.mark.long
def test_the_folder_of_a_half_done_run_whose_network_is_a_persons_own(
    tmp_path: Path, make_run: MakeRun
) -> None:
    (tmp_path / "nets.py").write_text(NETS)
    made = make_run(
        model__arch=f"{tmp_path / 'nets.py'}:small",
        train__epochs=2,
        prune__scope="global",
        prune__output_rate=None,
    )
    write_run(made)
    train_without_ray(made)
    (tmp_path / "nets.py").unlink()
    lost = next(made.folder.path.glob("replicate-0/tickets/*-reset-1-*/ticket.json"))
    lost.unlink()
    asked = ["--seconds-per-epoch", "10", "--plot", tmp_path / "plan.svg"]
    ended = run("plan", made.folder.path, *asked, folder=tmp_path)
    assert ended.status == 0, ended.err
    assert "= 6 tickets, 1 of them left, in 1 trial of up to 1" in ended.out
    assert "in the prepared shards" in ended.out
    assert "1 retraining of 1 epoch " in ended.out
    assert "dense run" not in ended.out
    assert "preparing the images" not in ended.out
    assert (tmp_path / "plan.svg").exists()


@pytest.mark.long
def test_nothing_left_is_said_and_not_drawn(tmp_path: Path, make_run: MakeRun) -> None:
    made = make_run()
    write_run(made)
    train_without_ray(made)
    asked = ["--seconds-per-epoch", "10", "--plot", tmp_path / "plan.svg"]
    ended = run("plan", made.folder.path, *asked, folder=tmp_path)
    assert ended.status == 0, ended.err
    assert "= 6 tickets, 0 of them left" in ended.out
    assert "nothing is left to train" in ended.err
    assert not (tmp_path / "plan.svg").exists()


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
def test_it_tries_the_training_here_and_a_sweep_says_what_is_ahead(
    tmp_path: Path, prepared_root: Path
) -> None:
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
    (launches,) = prepared_root.glob("small-*/launches.json")
    (launch,) = read_json(launches)["launches"]
    assert launch["reached_report"]
    assert launch["planned"]["retrainings_on_one"] >= launch["planned"]["retrainings"] > 0
    assert 0 < launch["planned"]["low"] < launch["planned"]["seconds"] < launch["planned"]["high"]
    again = json.loads(run("plan", path, "--json", "--seconds-per-epoch", 1, folder=tmp_path).out)
    assert (again["tickets"], again["dense_runs"]) == (0, 0)
