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
from ltray.files import alone, is_local, read_json, write_json
from ltray.layout import RunFolder

RENEWED_EVERY_SECONDS = 15.0
LAPSES_AFTER_SECONDS = 60.0
SETTLES_AFTER_SECONDS = 1.0


@contextmanager
def only_driver(run: RunFolder) -> Iterator[None]:
    """Hold the run's lease while the block runs.

    A dead driver is taken over at once on its own host, else when its lease has lapsed.

    Raises:
        LtrayError: another driver is at work; it is named.
    """
    me = _myself()
    with _alone(run):
        other = _holder(run)
        if other is not None and _is_alive(other):
            raise _taken(run.path, other)
        write_json(run.lease, me)
    if not is_local(run.lease):
        time.sleep(SETTLES_AFTER_SECONDS)
        if not _is_ours(run, me):
            raise _taken(run.path, _holder(run) or me)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(run, me, stop), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        with _alone(run):
            if _is_ours(run, me):
                run.lease.unlink()


def has_driver(run: RunFolder) -> bool:
    """Whether a living driver is at work on the run."""
    other = _holder(run)
    return other is not None and _is_alive(other)


@contextmanager
def _alone(run: RunFolder) -> Iterator[None]:
    """Keep other processes from reading and then writing the lease at the same time."""
    if not is_local(run.lock):
        yield  # an object store has no locks: what is written is read again
        return
    with alone(run.lock):
        yield


def _renew(run: RunFolder, me: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(RENEWED_EVERY_SECONDS):
        with suppress(OSError), _alone(run):  # a full disk must not end the sweep
            if not _is_ours(run, me):
                return  # this host slept, the lease lapsed, and another driver has it now
            write_json(run.lease, {**me, "renewed_at": time.time()})


def _holder(run: RunFolder) -> dict[str, Any] | None:
    try:
        return read_json(run.lease)
    except FileNotFoundError:
        return None
    except ValueError as error:
        mend = "delete it, if no sweep is at work on this run"
        raise LtrayError(str(run.lease), f"is no lease: {error}", mend) from None


def _is_ours(run: RunFolder, me: dict[str, Any]) -> bool:
    other = _holder(run)
    return other is not None and bool(other["token"] == me["token"])


def _myself() -> dict[str, Any]:
    return {
        "token": secrets.token_hex(8),
        "host": socket.gethostname(),
        "boot": _boot(),
        "pid": os.getpid(),
        "pid_started": _process_start(os.getpid()),
        "renewed_at": time.time(),
    }


def _is_alive(other: dict[str, Any]) -> bool:
    if (other["host"], other["boot"]) == (socket.gethostname(), _boot()):
        return bool(other["pid_started"] == _process_start(other["pid"]))
    return bool(time.time() - other["renewed_at"] < LAPSES_AFTER_SECONDS)


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
