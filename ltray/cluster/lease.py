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
from ltray.files import TEMPORARY_PREFIX, read_json, write_json
from ltray.layout import RunFolder

RENEWED_EVERY_SECONDS = 15.0
LAPSES_AFTER_SECONDS = 60.0


@contextmanager
def only_driver(run: RunFolder) -> Iterator[None]:
    """Hold the run's lease while the block runs.

    A dead driver is taken over at once on its own host, else when its lease has lapsed.

    Raises:
        LtrayError: another driver is at work; it is named.
    """
    me = _myself()
    _take(run.lease, me)
    stop = threading.Event()
    renewing = threading.Thread(target=_renew, args=(run.lease, me, stop), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        with suppress(FileNotFoundError):
            run.lease.unlink()


def has_driver(run: RunFolder) -> bool:
    """Whether a living driver is at work on the run."""
    try:
        return _is_alive(read_json(run.lease))
    except FileNotFoundError:
        return False


def _take(lease: Path, me: dict[str, Any]) -> None:
    lease.parent.mkdir(parents=True, exist_ok=True)
    while not _published(lease, me):
        with suppress(FileNotFoundError, ValueError):
            other = read_json(lease)
            if _is_alive(other):
                raise _taken(lease.parent, other)
            _put_aside(lease, other)


def _published(lease: Path, me: dict[str, Any]) -> bool:
    """Whether the lease is now ours; a link, unlike a write, fails where the name exists."""
    whole = lease.with_name(f"{TEMPORARY_PREFIX}{me['token']}-{lease.name}")
    write_json(whole, me)
    try:
        os.link(whole, lease)
    except FileExistsError:
        return False
    finally:
        whole.unlink()
    return True


def _put_aside(lease: Path, dead: dict[str, Any]) -> None:
    """Remove a dead driver's lease, and only that one, whoever else tries the same."""
    aside = lease.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}-{lease.name}")
    lease.rename(aside)
    if read_json(aside)["token"] != dead["token"]:
        with suppress(FileExistsError):
            os.link(aside, lease)  # another took over in between: the lease is theirs
    aside.unlink()


def _renew(lease: Path, me: dict[str, Any], stop: threading.Event) -> None:
    while not stop.wait(RENEWED_EVERY_SECONDS):
        with suppress(OSError):  # a full disk must not end the sweep; the lease may lapse
            write_json(lease, {**me, "renewed_at": time.time()})


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
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _process_start(pid: int) -> str | None:
    """The kernel's clock tick at which the process began; None when there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The command's name, in parentheses, may hold spaces: fields are counted after it.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
