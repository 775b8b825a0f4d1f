"""Within a cluster the head says who drives a run, and whether who joins must show a token."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import local_cluster

PROGRAM = """
import sys
from pathlib import Path
from pathlib import Path

from ltray.cluster import lock
from ltray.cluster.session import Connection, session
from ltray.errors import LtrayError
from ltray.layout import RunFolder

lock.DIES_WITHIN_SECONDS = float(sys.argv[2])
with session(Connection(sys.argv[1])), lock.only_driver_here(RunFolder(Path("/runs/one"))):
    with lock.only_driver_here(RunFolder(Path("/runs/other"))):
        print("held", flush=True)
    sys.stdin.readline()
"""


def driver(address: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, address, str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.ray
def test_a_second_driver_of_the_cluster_is_refused_and_a_dead_ones_place_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who has a token joins a cluster that asks for none, too.
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("1" * 64)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with local_cluster({}) as address:
        monkeypatch.delenv("RAY_AUTH_MODE")
        first = driver(address, seconds=1.0)
        assert first.stdout is not None
        assert first.stdout.readline() == "held\n"
        second = driver(address, seconds=1.0)
        _, told = second.communicate("\n")
        assert second.returncode == 1
        assert "another driver of this cluster is at work on this run" in told
        first.kill()
        first.communicate()  # its place is free at once, or soon
        third = driver(address, seconds=60.0)
        out, told = third.communicate("\n")
        assert out == "held\n", told
