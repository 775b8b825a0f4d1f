"""A machine that is about to be taken away: its trials write their state and go on elsewhere."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from commands import (
    HANGS,
    attempts_in_training,
    final_bits,
    finish,
    local_cluster,
    only_run,
    rows,
    start,
    wait_until,
    write_experiment,
)
from conftest import MakeRun, small_document, train_without_ray

from ltray.cluster.notices import Watch, aws_notice, this_machine
from ltray.errors import MachineLeaves
from ltray.files import read_json
from ltray.lottery.ready import ready
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack


class Ec2:
    """What an instance asks about itself: nothing to say, or a notice."""

    def __init__(self) -> None:
        self.ends = False
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self._answer(200, "a token" if self.path == "/latest/api/token" else "")

            def do_GET(self) -> None:
                known = self.path == "/latest/meta-data/spot/instance-action"
                allowed = self.headers["X-aws-ec2-metadata-token"] == "a token"
                if service.ends and known and allowed:
                    self._answer(200, '{"action": "terminate", "time": "2026-11-26T08:22:00Z"}')
                else:
                    self._answer(404, "")

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_rest: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def ec2() -> Iterator[Ec2]:
    service = Ec2()
    yield service
    service.close()


def test_aws_tells_when_a_spot_instance_ends(ec2: Ec2, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", ec2.address)
    ask = this_machine()
    assert ask is not None
    assert ask() == ""
    ec2.ends = True
    assert ask() == "AWS will terminate it at 2026-11-26T08:22:00Z"
    assert aws_notice("http://127.0.0.1:9") == "", "a machine where nobody answers is not ended"


def test_a_watch_tells_once() -> None:
    told: list[str] = []
    with Watch(lambda: "it ends", told.append, node="10.0.0.2") as watch:
        assert watch.leaves is not None
        until = time.monotonic() + HANGS
        while not watch.leaves() and time.monotonic() < until:
            time.sleep(0.01)
        assert watch.leaves() == "10.0.0.2: it ends"
    assert told == ["it ends"]
    with Watch(None, told.append, node="10.0.0.2") as quiet:
        assert quiet.leaves is None, "nobody says anything"


def test_state_is_written_at_once_and_training_goes_on_from_it(make_run: MakeRun) -> None:
    run, undisturbed = make_run(), make_run()
    train_without_ray(undisturbed)
    notices = iter([""] * 12)
    leaving = replace(this_place(), leaves=lambda: next(notices, "it ends"))
    with pytest.raises(MachineLeaves, match="it ends"):
        train_dense(run, 0, leaving, lambda _row: None)
    train_dense(run, 0, this_place(), lambda _row: None)
    make_masks(run, 0)
    notices = iter([""] * 12)
    [pack, *_] = ready(run.experiment, set())
    with pytest.raises(MachineLeaves):
        train_pack(run, pack, leaving, lambda _rows, _records: None)
    states = [run.folder.replicate(0).ticket(one.name).state for one in pack.tickets]
    assert any(state.is_file() for state in states)
    train_without_ray(run)
    assert final_bits(run.folder.path) == final_bits(undisturbed.folder.path)


@pytest.mark.ray
@pytest.mark.slow
def test_trials_leave_a_node_that_is_about_to_end(tmp_path: Path, ec2: Ec2) -> None:
    changes: dict[str, Any] = {
        "train__epochs": 150,
        "train__lr": 0.02,
        "sweep": {"backend": "loop", "tickets_per_trial": 1},
    }
    path = write_experiment(tmp_path / "small.yaml", small_document(changes))
    spot = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": ec2.address}
    with local_cluster({}, spot) as address:
        process = start("sweep", path, "--address", address, folder=tmp_path)
        root = tmp_path / "runs"
        wait_until(lambda: len(attempts_in_training(root)) == 4, process)
        ec2.ends = True
        ended = finish(process)
    assert ended.status == 0, ended
    assert "a node is taken away" in ended.out
    found = rows(only_run(root, "small"))
    assert [row["status"] for row in found] == ["done"] * 6
    assert max(row["attempts"] for row in found) == 2


@pytest.mark.ray
@pytest.mark.slow
def test_a_dense_run_on_several_gpus_leaves_such_a_node(tmp_path: Path, ec2: Ec2) -> None:
    changes = {"train__epochs": 80, "sweep": {"dense_gpus": 2}}
    path = write_experiment(tmp_path / "small.yaml", small_document(changes))
    spot = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": ec2.address}
    # Ray packs a group onto one node where it can: the one that ends.
    with local_cluster({}, spot, {}, {}, gpus=[0, 2, 1, 1]) as address:
        process = start("dense", path, "--address", address, folder=tmp_path)
        begun = "small-*/replicate-0/trajectory/step-0000020.safetensors"
        wait_until(lambda: bool(list((tmp_path / "runs").glob(begun))), process)
        ec2.ends = True
        ended = finish(process)
    assert ended.status == 0, ended
    assert "a node is taken away, what it trains goes on elsewhere: " in ended.out
    assert "AWS will terminate it" in ended.out
    row = read_json(only_run(tmp_path / "runs", "small") / "replicate-0/trajectory/trajectory.json")
    assert row["row"]["attempts"] == 2
