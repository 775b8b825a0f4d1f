"""`--status` reads files alone, from any machine that sees the root."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import run as command
from conftest import MakeRun

from ltray.cluster.lease import only_driver
from ltray.cluster.status import status
from ltray.files import read_json, write_json
from ltray.lottery.ready import ready
from ltray.lottery.tickets import grid
from ltray.record import write_experiment
from ltray.run import Run
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack
from ltray.training.start import begin


def nobody(*_what: Any) -> None:
    pass


def half_done(run: Run) -> None:
    """Three tickets done, one begun, two not."""
    write_experiment(run)
    place = this_place()
    train_dense(run, 0, place, nobody)
    make_masks(run, 0)
    train_pack(run, ready(run.experiment, set())[0], place, nobody)
    begin(run.folder.replicate(0).ticket(grid(run.experiment)[3].name).attempts)


def test_counts_what_is_done_begun_and_left(make_run: MakeRun) -> None:
    run = make_run()
    write_experiment(run)
    lines, failed = status(run)
    assert "6 tickets: 0 done, 0 diverged, 0 failed, 6 to train, 0 of them begun" in lines[0]
    assert lines[1:] == ["dense run, replicate 0: not begun", "no driver is at work"]
    half_done(run)
    lines, failed = status(run)
    assert "6 tickets: 3 done, 0 diverged, 0 failed, 3 to train, 1 of them begun" in lines[0]
    assert lines[1].startswith("dense run, replicate 0: done, validation 0.")
    assert failed == 0


def test_a_failed_ticket_is_named_with_its_error(make_run: MakeRun) -> None:
    run = make_run()
    half_done(run)
    ticket = grid(run.experiment)[0]
    folder = run.folder.replicate(0).ticket(ticket.name)
    record = read_json(folder.done)
    folder.done.unlink()
    row = {**record["row"], "status": "failed", "error": "Segmentation fault"}
    write_json(folder.failed, {"row": row, "epochs": []})
    lines, failed = status(run)
    assert failed == 1
    assert "1 failed" in lines[0]
    assert lines[-1] == f"failed: {ticket.name}: Segmentation fault"


def test_tells_who_drives_and_what_it_said_last(make_run: MakeRun) -> None:
    run = make_run()
    with only_driver(run.folder) as lease:
        lease.also(nobody)("37/100 tickets, about 12 min left")
        lease.renew()
        (line,) = [line for line in status(run)[0] if line.startswith("driver")]
        assert f"process {os.getpid()} on " in line
        assert line.endswith("ago: 37/100 tickets, about 12 min left")
        write_json(run.folder.lease, {**read_json(run.folder.lease), "renewed_at": 1.0})
        (line,) = [line for line in status(run)[0] if line.startswith("driver")]
        assert "silent for" in line


@pytest.mark.long
def test_the_command_answers_without_ray(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    half_done(run)
    code = (
        "import sys; sys.modules['ray'] = None\n"
        "from ltray.sweep import main\n"
        f"sys.argv = ['sweep', {str(run.folder.path)!r}, '--status']\n"
        "sys.exit(main())"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert ended.returncode == 0, ended.stderr
    assert "3 done" in ended.stdout
    absent = command("sweep", "--status", "--root", tmp_path / "nothing", folder=tmp_path)
    assert absent.status == 2
    assert "there is no such run yet" in absent.err
