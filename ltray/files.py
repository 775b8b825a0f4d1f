"""Writing so that a file that is there is whole."""

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

TEMPORARY_PREFIX = ".writing-"


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` at `path` so that a reader sees all of it or none.

    A crash leaves at most a temporary file, whose name no reader looks at. Folders are made.

    Raises:
        OSError: the disk is full or read-only; the temporary file is gone again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{writer}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


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
