"""Files of a file system or an object store: read whole or in ranges, written whole or not at all.

A path is a `pathlib.Path`, or a `UPath` of the same interface where it lies in an object store.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from ltray.errors import LtrayError

TEMPORARY_PREFIX = ".writing-"
ABANDONED_AFTER_SECONDS = 3600  # nobody takes so long over one file, whatever the clocks say
READ_AHEAD_BYTES = 8 * 1024 * 1024
READ_AT_ONCE = 32
# A store that is away or too busy is asked again, for about a minute and a half in all.
S3_PATIENCE = {
    "retries": {"mode": "standard", "max_attempts": 12},
    "connect_timeout": 10,
    "read_timeout": 20,
}


def at(text: str, where: str) -> Path:
    """The path that a person wrote: of a file system, or `s3://bucket/key`, `gs://bucket/key`.

    Args:
        where: what to call it in an error.

    Raises:
        LtrayError: what reads such an address is not installed.
    """
    if "://" not in text:
        return Path(text)
    try:
        from upath import UPath

        options = {"config_kwargs": S3_PATIENCE} if text.startswith("s3://") else {}
        path = UPath(text, use_listings_cache=False, **options)  # others write there too
        path.fs  # noqa: B018 (connects; tells whether its library is there)
    except ImportError as error:
        mend = "pip install 'ltray[s3]' or 'ltray[gs]'"
        raise LtrayError(where, f"{text} needs a library: {error}", mend) from None
    except ValueError as error:
        raise LtrayError(
            where, f"{text}: {error}", "write a folder, s3://... or gs://..."
        ) from None
    return cast("Path", path)


def absolute(text: str, folder: Path) -> Path:
    """What a file in `folder` means by a path that is no address: folder may be in a store."""
    given = Path(text).expanduser()
    return given if given.is_absolute() else folder.resolve() / text


def is_local(path: Path) -> bool:
    """Whether it lies in a file system, and not in an object store."""
    return isinstance(path, Path)


def lies_below(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder, however both are written: links and `..` are followed."""
    place, around = path.resolve(), folder.resolve()
    if is_local(place) or is_local(around):
        return around in place.parents
    # Not as addresses: s3:// and s3a:// are one.
    return PurePosixPath(cast("Any", around).path) in PurePosixPath(cast("Any", place).path).parents


def is_there(path: Path) -> bool:
    """Whether there is a file; `path.is_file()` says no of a store that does not answer, too.

    Raises:
        Exception: the store does not answer, or lets nobody ask.
    """
    if is_local(path):
        return path.is_file()
    store = cast("Any", path)
    try:
        return bool(store.fs.info(store.path)["type"] == "file")
    except FileNotFoundError:
        return False


def open_to_read(path: Path) -> BinaryIO:
    """A file to be read at several places, from its beginning to its end."""
    if is_local(path):
        return path.open("rb")
    store = cast("Any", path)
    file = store.fs.open(store.path, "rb", block_size=READ_AHEAD_BYTES, cache_type="readahead")
    return cast("BinaryIO", file)


def read_range(path: Path, start: int, size: int) -> bytes:
    """Bytes [start, start + size) of a file; fewer where it ends before."""
    if is_local(path):
        with path.open("rb") as file:
            file.seek(start)
            return file.read(size)
    if not size:
        return b""  # a store would take the empty range for the whole file
    store = cast("Any", path)
    return bytes(store.fs.cat_file(store.path, start=start, end=start + size))


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees all of it or none.

    A crash leaves at most a temporary file, whose name no reader looks at. Folders are made.

    Raises:
        OSError: the disk is full or read-only; the temporary file is gone again.
    """
    if not is_local(path):
        store = cast("Any", path)
        store.fs.pipe_file(store.path, content)  # one put of complete bytes
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{writer}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk's error has none
        with suppress(OSError):
            temporary.unlink()
        raise


def remove(path: Path) -> None:
    """Remove a file, if it is there."""
    if is_local(path):
        path.unlink(missing_ok=True)
        return
    store = cast("Any", path)
    with suppress(FileNotFoundError):
        store.fs.rm_file(store.path)


def check_takes_files(folder: Path) -> None:
    """Write an empty file and remove it again; what goes wrong is raised."""
    probe = folder / f"{TEMPORARY_PREFIX}probe-{secrets.token_hex(4)}"
    write_whole(probe, b"")
    remove(probe)


def names_below(folder: Path) -> list[str]:
    """The files below a folder as paths from it, sorted; none where there is no folder.

    What is being written, or was left by a writer that was killed, is left out. An object store is
    asked once for each thousand files, not once a folder.
    """
    if is_local(folder):
        found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
        names = [path.relative_to(folder).as_posix() for path in found]
    else:
        store = cast("Any", folder)
        prefix = store.path.rstrip("/") + "/"
        names = [name.removeprefix(prefix) for name in store.fs.find(store.path)]
    return sorted(name for name in names if not _is_temporary(name))


def _is_temporary(name: str) -> bool:
    return any(part.startswith(TEMPORARY_PREFIX) for part in name.split("/"))


def read_all(paths: Sequence[Path]) -> Iterator[bytes | None]:
    """What each file holds, in their order and read side by side; None for one that is gone."""
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        yield from pool.map(_read_if_there, paths)


def _read_if_there(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def remove_folder(folder: Path) -> None:
    """Remove a folder and all in it, if it is there.

    Raises:
        OSError: not all of it could be removed.
    """
    if not is_local(folder):
        store = cast("Any", folder)
        with suppress(FileNotFoundError):
            store.fs.rm(store.path, recursive=True)
        return
    shutil.rmtree(folder, ignore_errors=True)  # a file may vanish while the others go
    if folder.exists():
        shutil.rmtree(folder)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary files that lie below `folder` since a writer was killed."""
    if not is_local(folder):
        return  # a put that was cut leaves nothing
    too_old = time.time() - ABANDONED_AFTER_SECONDS
    for path in folder.rglob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):  # another driver removes it too, or another user wrote it
            if path.stat().st_mtime < too_old:
                path.unlink()


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process of this host is here with the same lock file, which stays."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file is closed, or the process dies
        yield


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as readable JSON; NaN and infinity are refused, since JSON has none."""
    write_whole(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`."""
    value = json.loads(path.read_bytes())
    assert isinstance(value, dict), path
    return value


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file's bytes, in hex; read in pieces, so any size will do."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(value: object) -> str:
    """8 hex digits that depend on everything in a JSON value and on nothing else."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:8]
