"""Whole commands on real digits, from a person's side: each starts Ray, so they are few."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import own_network
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from archives import png, release, synset
from commands import (
    Outcome,
    done_tickets,
    final_bits,
    finish,
    halt_in_training,
    kill,
    only_run,
    pretended_gpus,
    rows,
    run,
    start,
    wait_until,
    write_experiment,
)
from conftest import MakeRun, small_document, train_without_ray

from ltray.experiment_file import read_experiment
from ltray.files import read_json, sha256_of
from ltray.layout import RunFolder
from ltray.locate import locate_experiment
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import load_weights

pytestmark = pytest.mark.ray

CHECKOUT = Path(__file__).parents[1]
LONG = {"train__epochs": 60, "prune__sparsities": [0.5, 0.8, 0.9, 0.95]}


def undisturbed_bits(make_run: MakeRun, changes: dict[str, Any]) -> dict[str, str]:
    """What the sweep must give, made in this process without Ray."""
    of = make_run(**changes)
    train_without_ray(of)
    return final_bits(of.folder.path)


def test_from_nothing_to_a_report_then_again_then_grown(tmp_path: Path, make_run: MakeRun) -> None:
    path = write_experiment(tmp_path / "small.yaml", small_document({}))
    first = run("sweep", path, folder=tmp_path)
    assert first.status == 0, first
    folder = only_run(tmp_path / "runs", "small")
    assert [row["status"] for row in rows(folder)] == ["done"] * 6
    assert "6/6 tickets" in first.out
    assert str(folder / "report.html") in first.out
    assert (folder / "report.html").is_file()
    assert list(folder.glob("tune/*/*/*/*/events.out.tfevents*"))
    logs = [path.read_text() for path in folder.glob("tune/*/*/*/*/result.json")]
    shown = [json.loads(line) for log in logs for line in log.splitlines()]
    assert min(one["images_per_second"] for one in shown if "val_top1" in one) > 0
    assert final_bits(folder) == undisturbed_bits(make_run, {})
    assert "Traceback" not in first.err + first.out

    (folder / "tickets.parquet").unlink()
    launches = (folder / "launches.json").read_bytes()
    again = run("sweep", path, folder=tmp_path)
    assert len(rows(folder)) == 6
    assert again.status == 0
    assert (folder / "launches.json").read_bytes() == launches, "it started no Ray"
    assert "all done" in again.out
    assert "report.html" in again.out

    before = {one: one.stat().st_mtime_ns for one in folder.glob("replicate-0/*/*/*")}
    grown = small_document({"prune__sparsities": [0.5, 0.7, 0.9], "reset__epochs": [0, 0.3, 1, 2]})
    more = run("sweep", write_experiment(path, grown), folder=tmp_path)
    assert more.status == 0, more
    assert "3 masks x 4 reset points = 12 tickets, 6 done, 6 to train" in more.out
    assert [row["status"] for row in rows(folder)] == ["done"] * 12
    assert {row["attempts"] for row in rows(folder)} == {1}
    assert before == {one: one.stat().st_mtime_ns for one in before}


def test_chains_of_iterative_pruning_then_their_controls(
    tmp_path: Path, make_run: MakeRun, prepared_root: Path
) -> None:
    keys = {"prune__style": "iterative", "controls": ["shuffled_mask", "random_init"]}
    path = write_experiment(tmp_path / "small.yaml", small_document(keys))
    ended = run("sweep", path, folder=tmp_path)
    assert ended.status == 0, ended
    assert "2 masks x 3 reset points + 12 controls = 18 tickets" in ended.out
    folder = only_run(tmp_path / "runs", "small")
    assert [row["status"] for row in rows(folder)] == ["done"] * 18
    assert final_bits(folder) == undisturbed_bits(make_run, keys)
    assert "Tickets against their controls" in (folder / "report.html").read_text()

    mask = next(folder.glob("replicate-0/masks/*-0.9-*"))
    step = max(folder.glob("replicate-0/trajectory/step-*"))
    before = sha256_of(mask), load_weights(step)
    mask.unlink()
    step.unlink()
    refused = run("sweep", path, folder=tmp_path)
    assert (refused.status, step.exists()) == (0, False)
    assert "`python -m ltray.dense` makes these again" in refused.out
    assert run("dense", path, folder=tmp_path).status == 0
    again = run("sweep", path, folder=tmp_path)
    assert again.status == 0, again
    assert "masks are missing: they are made, always to the same bits" in again.out
    assert sha256_of(mask) == before[0]
    assert all(torch.equal(load_weights(step)[name], part) for name, part in before[1].items())
    assert {row["attempts"] for row in rows(folder)} == {1}


def code_block(page: Path, part: str) -> str:
    """The one Python block of a page that has this part."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (found,) = (block for block in blocks if part in block)
    return found


def test_ones_own_network_reaches_the_workers_by_the_run_alone(tmp_path: Path) -> None:
    """Network and criterion are those of README and docs."""
    prune = {**own_network.OWN["prune"], "criterion": "mine.py:by_gradient"}
    network = code_block(CHECKOUT / "README.md", "def small(")
    path = own_network.written(tmp_path / "mine", network, prune=prune)
    criterion = code_block(CHECKOUT / "docs/criteria.md", "def by_gradient(")
    (tmp_path / "mine/mine.py").write_text(criterion)
    (tmp_path / "elsewhere").mkdir()
    process = start("sweep", path, "--root", tmp_path / "runs", folder=tmp_path / "elsewhere")
    wait_until(lambda: bool(list(tmp_path.glob("runs/small-*/experiment.yaml"))), process)
    (tmp_path / "mine/nets.py").unlink()
    ended = finish(process)
    assert ended.status == 0, ended
    folder = only_run(tmp_path / "runs", "small")
    assert [row["status"] for row in rows(folder)] == ["done"] * 4
    assert {row["criterion"].rpartition(":")[2] for row in rows(folder)} == {"by_gradient"}
    assert "How sparse can small become" in (folder / "report.html").read_text()
    again = run("sweep", folder, folder=tmp_path)
    assert again.status == 0, again
    assert "all done" in again.out
    gone = run("sweep", path, "--root", tmp_path / "runs", folder=tmp_path)
    assert gone.status == 2
    assert gone.err.startswith(f"model.arch: {tmp_path / 'mine/nets.py'}: no such file")


def test_stage_by_stage_and_from_the_runs_own_folder(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small.yaml", small_document({}))
    root = tmp_path / "elsewhere"
    prepared = run("prepare", path, "--root", root, folder=tmp_path)
    assert prepared.status == 0, prepared
    assert "1,438 train" in prepared.out
    folder = only_run(root, "small")
    assert run("prepare", folder, "--verify", folder=tmp_path).status == 0
    dense = run("dense", folder, folder=tmp_path)
    assert dense.status == 0, dense
    record = RunFolder(folder).replicate(0).trajectory
    assert read_json(record)["prunable"] == {
        "fc1.weight": 19200,
        "fc2.weight": 30000,
        "fc3.weight": 1000,
    }
    page = run("report", folder, folder=tmp_path)
    assert page.status == 0, page
    assert (folder / "report.html").is_file()
    part = next((root / "data").glob("*/train/part-00000.parquet"))
    damaged = bytearray(part.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    part.write_bytes(damaged)
    verified = run("prepare", folder, "--verify", folder=tmp_path)
    assert verified.status == 1
    assert "part-00000" in verified.out


def test_archives_are_compared_with_the_published_ones_when_asked(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    release(tmp_path / "data", [("n00000001.tar", synset(tmp_path, "n00000001_1.JPEG"))])
    source = {"source": "ilsvrc2012", "path": "data", "image_size": 8, "validation_fraction": 0.5}
    path = write_experiment(tmp_path / "small.yaml", small_document({"data": source}))
    ended = run("prepare", path, "--checksums", folder=tmp_path)
    assert ended.status == 2, ended
    assert "the published file has" in ended.err
    assert "Traceback" not in ended.err + ended.out
    assert not list(tmp_path.glob("runs/data/*"))


def test_killed_workers_then_a_killed_driver_cost_nothing_but_their_time(
    tmp_path: Path, make_run: MakeRun, prepared_root: Path
) -> None:
    path = write_experiment(tmp_path / "long.yaml", small_document(LONG))
    process = start("sweep", path, folder=tmp_path)
    wait_until(lambda: len(done_tickets(prepared_root)) >= 3, process)
    kill(halt_in_training(prepared_root, process))
    begun_again = halt_in_training(prepared_root, process, attempts=2)
    kill([process.pid, *begun_again])
    process.communicate()
    before = {one: one.read_bytes() for one in done_tickets(prepared_root)}
    ended = run("sweep", path, folder=tmp_path)
    assert ended.status == 0, ended
    folder = only_run(prepared_root, "small")
    assert [row["status"] for row in rows(folder)] == ["done"] * 12
    assert final_bits(folder) == undisturbed_bits(make_run, LONG)
    assert {one: one.read_bytes() for one in before} == before
    assert max(row["attempts"] for row in rows(folder)) > 2, "once by each kill, then to its end"


def test_ctrl_c_stops_cleanly_and_a_second_driver_is_refused(
    tmp_path: Path, prepared_root: Path
) -> None:
    changes = {**LONG, "train__epochs": 150, "sweep__tickets_per_trial": 1}
    path = write_experiment(tmp_path / "long.yaml", small_document(changes))
    process = start("sweep", path, folder=tmp_path)
    wait_until(lambda: bool(done_tickets(tmp_path / "runs")), process)
    second = run("sweep", path, folder=tmp_path)
    assert second.status == 2
    assert f"process {process.pid} on " in second.err
    page = run("report", path, folder=tmp_path)
    assert page.status == 0, page
    assert "report.html" in page.out
    folder = only_run(tmp_path / "runs", "small")
    os.killpg(process.pid, signal.SIGINT)
    check_interrupted(finish(process), folder)
    before = len(done_tickets(tmp_path / "runs"))
    process = start("sweep", path, folder=tmp_path)
    wait_until(lambda: len(done_tickets(tmp_path / "runs")) > before, process)
    process.terminate()  # as job managers do
    check_interrupted(finish(process), folder)


def check_interrupted(ended: Outcome, folder: Path) -> None:
    assert ended.status == 130, ended
    assert "the same command goes on" in ended.err
    assert "Traceback" not in ended.err
    assert 0 < len(rows(folder)) <= len(done_tickets(folder.parent))
    assert not (folder / "driver.json").exists()


def test_what_always_fails_is_failed_with_its_error_and_the_rest_is_done(
    tmp_path: Path, prepared_root: Path
) -> None:
    changes = {"sweep__max_failures": 0, "reset__epochs": [0, 1]}
    path = write_experiment(tmp_path / "small.yaml", small_document(changes))
    there = locate_experiment(read_experiment(path), prepared_root)
    names = [pack.tickets[0] for pack in ready(there.experiment, set())]
    mask = there.folder.replicate(0).mask(names[0].mask)
    mask.parent.mkdir(parents=True)
    mask.write_bytes(b"no mask")
    ended = run("sweep", path, folder=tmp_path)
    assert ended.status == 1, ended
    folder = there.folder.path
    by_status = {(row["mask"], row["status"]) for row in rows(folder)}
    assert by_status == {(names[0].mask, "failed"), (names[1].mask, "done")}
    failed = [row for row in rows(folder) if row["status"] == "failed"]
    assert all("Safetensor" in row["error"] for row in failed)
    mask.unlink()
    mended = run("sweep", path, folder=tmp_path)
    assert mended.status == 0, mended
    assert [row["status"] for row in rows(folder)] == ["done"] * 4
    assert not list(folder.rglob("failed.json"))


def test_what_goes_wrong_while_looking_through_is_one_clear_text(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, last in enumerate((1, -7)):
        table = pa.table({"image": [png(n) for n in range(40)], "label": [0, 1] * 19 + [0, last]})
        pq.write_table(table, tmp_path / f"data/{number}.parquet")
    source = {"source": "parquet", "path": "data"}
    path = write_experiment(tmp_path / "small.yaml", small_document({"data": source}))
    ended = run("prepare", path, folder=tmp_path)
    assert ended.status == 2
    assert ended.err.startswith(f"{tmp_path / 'data/1.parquet'}: label: has label -7; labels")
    assert ended.err.count("\n") == 2, "nothing but the text"
    assert not list(tmp_path.rglob("*.images"))

    pq.write_table(table.slice(0, 39), tmp_path / "data/1.parquet")
    ended = run("prepare", path, folder=tmp_path)
    assert ended.status == 0, ended
    assert "prepared 63 train, 16 test images" in ended.out
    assert not list(tmp_path.rglob("*.images"))


def test_what_goes_wrong_in_a_part_is_one_clear_text(tmp_path: Path) -> None:
    images = [png(n, side=8 if n < 30 else 9) for n in range(40)]
    table = pa.table({"image": images, "label": [n % 2 for n in range(40)]})
    pq.write_table(table, tmp_path / "some.parquet")
    source = {"source": "parquet", "path": str(tmp_path / "some.parquet")}
    path = write_experiment(tmp_path / "small.yaml", small_document({"data": source}))
    ended = run("prepare", path, folder=tmp_path)
    assert ended.status == 2
    assert ended.err.startswith("data.image_size: is not written, and the source's images are not")
    assert ended.err.count("\n") == 2, "nothing but the text"


def test_what_goes_wrong_in_the_dense_run_is_one_clear_text(
    tmp_path: Path, prepared_root: Path
) -> None:
    cases = {
        "prune__keep_dense": (["fc1.wieght"], 2, "did you mean 'fc1.weight'"),
        "train__lr": (1e30, 1, "lower train.lr"),
    }
    for key, (value, status, said) in cases.items():
        path = write_experiment(tmp_path / "small.yaml", small_document({key: value}))
        ended = run("dense", path, folder=tmp_path)
        assert ended.status == status, ended
        assert said in ended.err
        assert "Traceback" not in ended.err + ended.out
        assert not list(tmp_path.rglob("trajectory.json"))


def test_trials_are_pinned_to_distinct_gpus_also_pretended_ones(
    tmp_path: Path, prepared_root: Path
) -> None:
    path = write_experiment(tmp_path / "small.yaml", small_document({}))
    with pretended_gpus(2) as (address, _):
        ended = run("sweep", path, "--address", address, folder=tmp_path)
    assert ended.status == 0, ended
    found = rows(only_run(tmp_path / "runs", "small"))
    assert {row["cuda_visible_devices"] for row in found} == {"0", "1"}
    assert {row["device"] for row in found} == {"cpu"}
    assert ended.out.count("torch sees no GPU") == 1


@pytest.mark.slow  # the notebooks do it too, in CI
def test_the_python_api_does_what_the_commands_do(tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small.yaml", small_document({"replicates": 2}))
    code = (
        "import ltray, sys\n"
        "experiment = ltray.load_experiment(sys.argv[1])\n"
        "results = ltray.run_sweep(experiment, root='runs', say=print)\n"
        "print(len(results.tickets), sorted(set(results.tickets.replicate)))\n"
        "print(results.epochs.query('ticket == \"dense\"').val_top1.notna().sum())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended
    assert ended.stdout.splitlines()[-2:] == ["12 [0, 1]", "6"]
