"""The default sweep, killed at many moments: 100 done rows and the undisturbed run's bits.

Thirteen sweeps of a minute or two, by each backend in turn: `pytest -m slow tests/test_kills.py`.
"""

import os
import signal
from collections.abc import Callable
from functools import cache
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

WORKER_MOMENTS = [(1, "fused"), (20, "csr"), (45, "loop"), (70, "fused"), (90, "csr")]
DRIVER_MOMENTS = [(0, "loop"), (2, "csr"), (30, "fused"), (60, "loop"), (95, "csr")]
DIGITS = Path(__file__).parents[1] / "experiments" / "digits.yaml"


def by(backend: str, folder: Path) -> Path:
    """The default experiment with a backend by name: `auto` may choose otherwise each time."""
    path = folder / "digits.yaml"
    path.write_text(f"{DIGITS.read_text()}sweep: {{backend: {backend}}}\n")
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, str]]:
    @cache
    def bits(backend: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp(backend)
        assert run("sweep", by(backend, folder), folder=folder).status == 0
        return final_bits(only_run(folder / "runs", "digits"))

    return bits


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


@pytest.mark.parametrize(("tickets", "backend"), WORKER_MOMENTS)
def test_a_worker_killed_in_mid_sweep(
    tickets: int, backend: str, tmp_path: Path, undisturbed: Callable[[str], dict[str, str]]
) -> None:
    expected, experiment = undisturbed(backend), by(backend, tmp_path)
    process = start("sweep", experiment, folder=tmp_path)
    wait_until(moment(tmp_path / "runs", tickets), process)
    before = {path: path.read_bytes() for path in done_tickets(tmp_path / "runs")}
    workers = trial_workers(process.pid)
    assert workers
    os.kill(workers[0], signal.SIGKILL)
    assert finish(process).status == 0
    assert set(check(only_run(tmp_path / "runs", "digits"), expected, before)) == {1}


@pytest.mark.parametrize(("tickets", "backend"), DRIVER_MOMENTS)
def test_the_driver_killed_and_the_same_command_again(
    tickets: int, backend: str, tmp_path: Path, undisturbed: Callable[[str], dict[str, str]]
) -> None:
    expected, experiment = undisturbed(backend), by(backend, tmp_path)
    process = start("sweep", experiment, folder=tmp_path)
    wait_until(moment(tmp_path / "runs", tickets), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    before = {path: path.read_bytes() for path in done_tickets(tmp_path / "runs")}
    assert run("sweep", experiment, folder=tmp_path).status == 0
    begun = check(only_run(tmp_path / "runs", "digits"), expected, before)
    assert set(begun) <= {1}
