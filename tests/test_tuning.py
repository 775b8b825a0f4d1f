"""Trials through Tune, by a driver of their own."""

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import json
import os
import sys
from pathlib import Path

from ltray.cluster.broken_gpus import BrokenGpus
from ltray.cluster.session import Connection, session
from ltray.cluster.slots import Slots
from ltray.cluster.tuning import run_trials


DIED = Path(sys.argv[1]) / "died"


def die(**_any):
    DIED.touch()
    os._exit(1)


def trial(config):
    from ray import tune
    from ray.train._internal.session import get_session

    if config["pack"] == "first":  # its worker dies while the next trial is handed to it
        get_session().finish = die
    tune.report({"rows": "[]", "records": json.dumps([config["pack"]])})


def quiet(_line):
    pass


ended = []
with session(Connection()):
    errors = run_trials(
        trial,
        "pack",
        sys.argv[2:],
        slots=Slots({"cpu": 1, "gpu": 0}, (), BrokenGpus(quiet), quiet),
        storage=Path(sys.argv[1]),
        max_failures=3,
        on_report=lambda report: ended.extend(report["records"]),
    )
print(json.dumps({"ended": ended, "errors": errors}))
"""


def test_a_worker_that_dies_between_two_trials_fails_neither(tmp_path: Path) -> None:
    names = ["first", "second", "third", "fourth"]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), *names]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended
    assert (tmp_path / "died").is_file()
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["errors"] == {}
    assert sorted(told["ended"]) == sorted(names)
