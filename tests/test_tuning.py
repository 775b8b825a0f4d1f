"""Trials through Tune, by a driver of their own."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ltray.cluster.broken_gpus import BrokenGpus
from ltray.cluster.resources import Cluster
from ltray.cluster.slots import Slots
from ltray.cluster.tuning import _Reporting

ONE_NODE = Cluster(((2, 2),), (), "", joined=True)
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
with session(Connection()) as cluster:
    errors = run_trials(
        trial,
        "pack",
        sys.argv[2:],
        slots=Slots({"cpu": 1, "gpu": 0}, cluster, BrokenGpus(quiet), quiet),
        storage=Path(sys.argv[1]),
        max_failures=3,
        on_report=lambda report: ended.extend(report["records"]),
    )
print(json.dumps({"ended": ended, "errors": errors}))
"""


def test_failures_count_only_while_a_trial_gets_no_further() -> None:
    slots = Slots({"cpu": 1, "gpu": 0}, ONE_NODE, BrokenGpus(print), print)
    reporting = _Reporting(lambda _report: None, slots, "pack")
    trial = SimpleNamespace(config={"pack": "some"}, run_metadata=SimpleNamespace(num_failures=2))

    def report(**result: object) -> int:
        trial.run_metadata.num_failures = 2
        known = {"rows": "[]", "records": "[]", **result}
        reporting.on_trial_result(trial=trial, result=known)
        return int(trial.run_metadata.num_failures)

    def at(**steps: int) -> str:
        return json.dumps([{"ticket": ticket, "step": step} for ticket, step in steps.items()])

    assert report(rows=at(a=100)) == 0, "further than ever"
    assert report(rows=at(a=100)) == 2, "where it was before it failed"
    assert report(rows=at(a=50, b=10)) == 0, "one of its tickets is further"
    assert report() == 2, "nothing new"
    assert report(leaves="it ends") == 1, "the failure that comes next is not its own"


def test_the_loss_of_a_node_is_no_failure_of_its_trial_up_to_a_bound(tmp_path: Path) -> None:
    from ray.core.generated.common_pb2 import ActorDiedErrorContext
    from ray.exceptions import ActorDiedError, ActorUnavailableError

    def died(how: str) -> ActorDiedError:
        return ActorDiedError(ActorDiedErrorContext(error_message=how, actor_id=bytes(16)))

    slots = Slots({"cpu": 1, "gpu": 0}, ONE_NODE, BrokenGpus(print), print)
    reporting = _Reporting(lambda _report: None, slots, "pack")

    def counted(error: Exception) -> bool:
        """Whether a failure stays one."""
        data = SimpleNamespace(num_failures=2, error_filename=None)
        trial = SimpleNamespace(
            config={"pack": "some"},
            run_metadata=data,
            local_path=str(tmp_path),
            get_pickled_error=lambda: error,
        )
        reporting.on_trial_recover(trial=trial)
        return bool(data.num_failures == 2)

    gone = died("The actor died because its node has died. Node Id: a")
    assert counted(died("The actor is dead because its worker process has died."))
    assert not counted(ActorUnavailableError("Socket closed", None))
    assert [counted(gone) for _ in range(10)] == [False] * 9 + [True]


def test_a_trial_on_a_broken_gpu_holds_it_while_others_would_be_given_it() -> None:
    slots = Slots({"cpu": 1, "gpu": 1}, ONE_NODE, BrokenGpus(print), print)
    reporting = _Reporting(lambda _report: None, slots, "pack")

    def trials(*statuses: str) -> list[SimpleNamespace]:
        return [SimpleNamespace(trial_id=str(n), status=one) for n, one in enumerate(statuses)]

    broken = {"broken": "{}"}
    reporting.begin(3)
    reporting.on_step_begin(trials=trials("RUNNING", "RUNNING"))  # the third is not made yet
    assert not reporting.lets_go("0", {"rows": "[]"}), "it is in order"
    assert not reporting.lets_go("0", broken), "the third would be given the GPU"
    reporting.on_step_begin(trials=trials("RUNNING", "RUNNING", "PENDING"))
    assert reporting.lets_go("1", broken) is False
    reporting.on_step_begin(trials=trials("RUNNING", "RUNNING", "PENDING"))
    assert reporting.lets_go("1", broken), "none is left that would get on"
    reporting.lets_go("1", {"rows": "[]"})
    reporting.on_step_begin(trials=trials("RUNNING", "RUNNING", "TERMINATED"))
    assert reporting.lets_go("0", broken), "nobody waits for it"


@pytest.mark.ray
def test_a_worker_that_dies_between_two_trials_fails_neither(tmp_path: Path) -> None:
    names = ["first", "second", "third", "fourth"]
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), *names]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended
    assert (tmp_path / "died").is_file()
    told = json.loads(ended.stdout.splitlines()[-1])
    assert told["errors"] == {}
    assert sorted(told["ended"]) == sorted(names)
