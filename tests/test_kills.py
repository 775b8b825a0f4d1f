"""The default sweep, killed at many moments: 100 done rows and the undisturbed run's bits.

Ten sweeps of a minute or two: `pytest -m slow tests/test_kills.py`.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import (
    done_tickets,
    final_bits,
    finish,
    only_run,
    rows,
    run,
    start,
    trial_workers,
    wait_until,
)

from ltray.files import read_json

pytestmark = [pytest.mark.slow, pytest.mark.ray]

WORKER_MOMENTS = [1, 20, 45, 70, 90]
DRIVER_MOMENTS = [0, 2, 30, 60, 95]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run("sweep", folder=folder).status == 0
    return final_bits(only_run(folder / "runs", "digits"))


def moment(root: Path, tickets: int) -> Callable[[], bool]:
    """That many tickets are done; 0 is the dense run's first saved step."""
    if tickets == 0:
        return lambda: bool(list(root.glob("*/replicate-0/trajectory/step-*")))
    return lambda: len(done_tickets(root)) >= tickets


def check(folder: Path, undisturbed: dict[str, str], before: dict[Path, bytes]) -> list[int]:
    found = rows(folder)
    assert [row["status"] for row in found] == ["done"] * 100
    assert final_bits(folder) == undisturbed
    assert {path: path.read_bytes() for path in before} == before
    begun_once = [read_json(path.with_name("attempts.json"))["attempts"] for path in before]
    print(f"{len(before)} tickets were done when it was killed, attempts {set(begun_once)}")  # noqa: T201 (for the note)
    return begun_once


@pytest.mark.parametrize("tickets", WORKER_MOMENTS)
def test_a_worker_killed_in_mid_sweep(
    tickets: int, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    process = start("sweep", folder=tmp_path)
    wait_until(moment(tmp_path / "runs", tickets), process)
    before = {path: path.read_bytes() for path in done_tickets(tmp_path / "runs")}
    workers = trial_workers(process.pid)
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    assert finish(process).status == 0
    assert set(check(only_run(tmp_path / "runs", "digits"), undisturbed, before)) == {1}


@pytest.mark.parametrize("tickets", DRIVER_MOMENTS)
def test_the_driver_killed_and_the_same_command_again(
    tickets: int, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    process = start("sweep", folder=tmp_path)
    wait_until(moment(tmp_path / "runs", tickets), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.read_bytes() for path in done_tickets(tmp_path / "runs")}
    assert run("sweep", folder=tmp_path).status == 0
    begun = check(only_run(tmp_path / "runs", "digits"), undisturbed, before)
    assert set(begun) <= {1}
