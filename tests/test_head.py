"""The head is lost in mid-sweep: what was done is kept, and another cluster goes on.

Takes some minutes, since a driver waits a minute for its head: `pytest -m slow tests/test_head.py`.
"""

from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import (
    done_tickets,
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

CHANGES: dict[str, Any] = {
    "train__epochs": 60,
    "prune__sparsities": [0.5, 0.8, 0.9, 0.95],
    "sweep": {"backend": "loop", "tickets_per_trial": 1},
}


def gcs_of(address: str) -> psutil.Process:
    """The head's own process."""
    port = int(address.rpartition(":")[2])
    [found] = [
        process
        for process in psutil.process_iter(["name"])
        if process.info["name"] == "gcs_server"
        and any(
            one.laddr.port == port and one.status == psutil.CONN_LISTEN
            for one in process.net_connections(kind="inet")
        )
    ]
    return found


@pytest.mark.slow
@pytest.mark.ray
def test_a_lost_head_costs_only_what_was_in_training(tmp_path: Path, make_run: MakeRun) -> None:
    undisturbed = make_run(**CHANGES)
    train_without_ray(undisturbed)
    path = write_experiment(tmp_path / "small.yaml", small_document(CHANGES))
    root = tmp_path / "runs"
    with local_cluster({}, {}) as address:
        process = start("sweep", path, "--address", address, folder=tmp_path)
        wait_until(lambda: len(done_tickets(root)) > 2, process)
        gcs_of(address).kill()
        assert finish(process).status != 0
    before = {path: path.read_bytes() for path in done_tickets(root)}
    assert 2 < len(before) < 12
    with local_cluster({}, {}) as address:
        ended = finish(start("sweep", path, "--address", address, folder=tmp_path))
    assert ended.status == 0, ended
    folder = only_run(root, "small")
    assert [row["status"] for row in rows(folder)] == ["done"] * 12
    assert final_bits(folder) == final_bits(undisturbed.folder.path)
    assert {path: path.read_bytes() for path in before} == before
