"""One driver per run: a small file that says who is at work, renewed while it is."""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ltray.errors import LtrayError
from ltray.files import alone, is_local, read_json, remove, write_json
from ltray.layout import RunFolder
from ltray.say import Say

RENEWED_EVERY_SECONDS = 15.0
LAPSES_AFTER_SECONDS = 60.0
WATCHED_SECONDS = 2 * RENEWED_EVERY_SECONDS + 5
SETTLES_AFTER_SECONDS = 1.0


class Lease:
    """A driver's hold on a run.

    Attributes:
        token: this driver's own; it stands in driver.json, where every worker can read it.
    """

    def __init__(self, run: RunFolder) -> None:
        self._run = run
        self._said = ""
        self._lost: dict[str, Any] | None = None
        self._me = {
            "token": secrets.token_hex(8),
            "host": socket.gethostname(),
            "boot": _boot(),
            "pid": os.getpid(),
            "pid_started": _process_start(os.getpid()),
        }

    @property
    def token(self) -> str:
        return str(self._me["token"])

    def also(self, say: Say) -> Say:
        """Say, and keep the last line for `--status`, which reads it from the lease.

        Raises:
            LtrayError: from the call, when another driver has taken the run over.
        """

        def and_keep(line: str) -> None:
            self.check()
            self._said = line
            say(line)

        return and_keep

    def check(self) -> None:
        """Stop a driver that slept until its lease had lapsed and another took the run over.

        Raises:
            LtrayError: naming the other.
        """
        if self._lost is not None:
            raise _taken(self._run.path, self._lost)

    def content(self) -> dict[str, Any]:
        """What driver.json says from now on."""
        return {**self._me, "renewed_at": time.time(), "said": self._said}

    def renew(self) -> None:
        """Say that this driver is alive, unless the lease is another's."""
        with _alone(self._run):
            other = holder(self._run)
            if other is not None and other["token"] != self.token:
                self._lost = other
            else:
                write_json(self._run.lease, self.content())

    def release(self) -> None:
        """Leave the run to others."""
        with _alone(self._run):
            other = holder(self._run)
            if other is not None and other["token"] == self.token:
                remove(self._run.lease)


@contextmanager
def only_driver(run: RunFolder) -> Iterator[Lease]:
    """Hold the run's lease while the block runs.

    A dead driver is taken over at once on its own host; else when its lease has lapsed, and is
    not seen to be renewed: clocks of two hosts may differ, or jump.

    Raises:
        LtrayError: another driver is at work; it is named.
    """
    lease = Lease(run)
    _take(run, lease)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(lease, stop), daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        stop.set()
        renewing.join()
        with suppress(Exception):  # it would hide why the block ended; the lease lapses by itself
            lease.release()


def has_driver(run: RunFolder) -> bool:
    """Whether a living driver is at work on the run."""
    other = holder(run)
    return other is not None and _is_alive(run, other)


def holder(run: RunFolder) -> dict[str, Any] | None:
    """What driver.json says, if it is there.

    Raises:
        LtrayError: it is damaged.
    """
    try:
        return read_json(run.lease)
    except FileNotFoundError:
        return None
    except ValueError as error:
        mend = "delete it, if no sweep is at work on this run"
        raise LtrayError(str(run.lease), f"is no lease: {error}", mend) from None


def _take(run: RunFolder, lease: Lease) -> None:
    while True:
        other = holder(run)
        if other is not None and _is_alive(run, other):
            raise _taken(run.path, other)
        with _alone(run):
            if holder(run) != other:
                continue  # somebody was faster
            write_json(run.lease, lease.content())
            break
    if not is_local(run.lease):
        time.sleep(SETTLES_AFTER_SECONDS)
        winner = holder(run) or lease.content()
        if winner["token"] != lease.token:
            raise _taken(run.path, winner)


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    """Keep other processes from reading and then writing the lease at the same time."""
    if not is_local(run.lock):
        yield  # an object store has no locks: what is written is read again
        return
    with alone(run.lock):
        yield


def _renew(lease: Lease, stop: threading.Event) -> None:
    while not stop.wait(RENEWED_EVERY_SECONDS):
        # A full disk, a store that is away or a damaged file must not end the renewing.
        with suppress(Exception):
            lease.renew()


def _is_alive(run: RunFolder, other: dict[str, Any]) -> bool:
    if (other["host"], other["boot"]) == (socket.gethostname(), _boot()):
        return bool(other["pid_started"] == _process_start(other["pid"]))
    if abs(time.time() - other["renewed_at"]) < LAPSES_AFTER_SECONDS:
        return True
    return _is_renewed(run, other)


def _is_renewed(run: RunFolder, other: dict[str, Any]) -> bool:
    """Whether a lease that has lapsed by this host's clock is renewed while one looks."""
    until = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < until:
        time.sleep(1.0)
        now = holder(run)
        if now != other:
            return now is not None
    return False


def _taken(run: Path, other: dict[str, Any]) -> LtrayError:
    return LtrayError(
        str(run),
        f"process {other['pid']} on {other['host']} is at work on this run",
        "wait for it, or stop it first: one driver per run",
    )


def _boot() -> str:
    """This boot of this machine, and which process numbers count: a container has its own."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {Path('/proc/self/ns/pid').readlink()}"


def _process_start(pid: int) -> str | None:
    """The kernel's clock tick at which the process began; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may hold spaces: fields are counted after it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
