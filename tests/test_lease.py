import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import HANGS

from ltray.cluster import lease as lease_module
from ltray.cluster.lease import LAPSES_AFTER_SECONDS, only_driver
from ltray.errors import LtrayError
from ltray.files import read_json, write_json
from ltray.layout import RunFolder
from ltray.say import Say


def test_a_second_driver_is_refused_and_the_first_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with only_driver(run):
        with pytest.raises(LtrayError, match=f"process {os.getpid()} on "), only_driver(run):
            pytest.fail("two drivers on one run")
        assert run.lease.is_file()
    assert list(run.path.iterdir()) == [run.lock]


def test_a_dead_driver_of_this_host_is_taken_over_at_once(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    code = (
        "import os, sys; from pathlib import Path; from ltray.layout import RunFolder\n"
        "from ltray.cluster.lease import only_driver\n"
        "with only_driver(RunFolder(Path(sys.argv[1]))): os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(run.path)], check=False)
    assert killed.returncode == -9
    assert run.lease.is_file()
    with only_driver(run):
        assert read_json(run.lease)["pid"] == os.getpid()


def test_a_process_with_a_dead_drivers_number_is_not_taken_for_it(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with only_driver(run):
        lease = read_json(run.lease)
    write_json(run.lease, {**lease, "pid_started": "1"})
    with only_driver(run):
        pass


@pytest.mark.parametrize("seconds", [0.0, 2 * LAPSES_AFTER_SECONDS, -1e6])
def test_a_driver_of_another_host_is_taken_over_when_its_lease_has_lapsed(
    tmp_path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "WATCHED_SECONDS", 1.0)
    run = RunFolder(tmp_path / "run")
    with only_driver(run):
        lease = read_json(run.lease)
    write_json(run.lease, {**lease, "host": "elsewhere", "renewed_at": time.time() - seconds})
    if seconds:
        with only_driver(run):
            assert read_json(run.lease)["host"] != "elsewhere"
    else:
        with pytest.raises(LtrayError, match="elsewhere"), only_driver(run):
            pytest.fail("took over a living driver")


def test_a_driver_whose_clock_is_behind_is_not_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "WATCHED_SECONDS", 10.0)
    run = RunFolder(tmp_path / "run")
    with only_driver(run):
        lease = {**read_json(run.lease), "host": "elsewhere", "renewed_at": 1.0}
    write_json(run.lease, lease)
    timer = threading.Timer(1.5, write_json, (run.lease, {**lease, "renewed_at": 16.0}))
    timer.start()
    with pytest.raises(LtrayError, match="elsewhere"), only_driver(run):
        pytest.fail("took over a driver that renews its lease")
    timer.join()


def go_on(say: Say) -> None:
    until = time.monotonic() + HANGS
    while time.monotonic() < until:
        say("still at work")
        time.sleep(0.01)


def test_a_driver_that_lost_its_run_stops_at_its_next_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEWED_EVERY_SECONDS", 0.05)
    run = RunFolder(tmp_path / "run")
    with only_driver(run) as lease:
        say = lease.also(lambda _line: None)
        say("at work")
        write_json(run.lease, {**read_json(run.lease), "token": "another", "host": "elsewhere"})
        with pytest.raises(LtrayError, match="elsewhere"):
            go_on(say)
    assert read_json(run.lease)["token"] == "another"


def test_a_lease_keeps_the_drivers_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEWED_EVERY_SECONDS", 0.05)
    run = RunFolder(tmp_path / "run")
    heard: list[str] = []
    with only_driver(run) as lease:
        lease.also(heard.append)("37/100 tickets")
        until = time.monotonic() + HANGS
        while read_json(run.lease)["said"] != "37/100 tickets" and time.monotonic() < until:
            time.sleep(0.01)
        assert read_json(run.lease)["said"] == "37/100 tickets"
    assert heard == ["37/100 tickets"]


def test_a_damaged_lease_does_not_stop_the_driver_that_renews_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEWED_EVERY_SECONDS", 0.05)
    run = RunFolder(tmp_path / "run")
    with only_driver(run) as lease:
        run.lease.write_text("{")
        time.sleep(0.3)
        lease.check()
        run.lease.unlink()
        until = time.monotonic() + HANGS
        while not run.lease.is_file() and time.monotonic() < until:
            time.sleep(0.01)
        assert read_json(run.lease)["token"] == lease.token


def test_a_driver_that_slept_too_long_leaves_the_next_ones_lease_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with only_driver(run):
        write_json(run.lease, {**read_json(run.lease), "token": "another"})
    assert read_json(run.lease)["token"] == "another"


def test_a_damaged_lease_is_named(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.path.mkdir()
    run.lease.write_text("{")
    with pytest.raises(LtrayError, match="is no lease"), only_driver(run):
        pytest.fail("took a lease that it could not read")


def test_of_many_that_try_at_once_one_becomes_the_driver(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    with only_driver(run):
        dead = {**read_json(run.lease), "pid_started": "1"}
    write_json(run.lease, dead)
    together = threading.Barrier(8)
    done = threading.Event()
    won: list[int] = []
    refused: list[int] = []

    def contend(number: int) -> None:
        together.wait()
        try:
            with only_driver(run):
                won.append(number)
                done.wait(HANGS)
        except LtrayError:
            refused.append(number)
            if len(refused) == 7:
                done.set()

    threads = [threading.Thread(target=contend, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(refused)) == (1, 7)


def test_a_store_that_fails_does_not_end_the_renewing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "RENEWED_EVERY_SECONDS", 0.05)
    run = RunFolder(tmp_path / "run")
    tries = []

    def fails(lease: object) -> None:
        tries.append(lease)
        raise RuntimeError("a store's own error")

    with only_driver(run):
        monkeypatch.setattr(lease_module.Lease, "renew", fails)
        until = time.monotonic() + HANGS
        while len(tries) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    assert len(tries) >= 3
    assert not run.lease.exists()
