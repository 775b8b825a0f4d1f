"""Copies of remote shards on the disk of the node that reads them, one for all its processes."""

import hashlib
import os
from pathlib import Path

from ltray.errors import LtrayError
from ltray.files import alone, is_local, write_whole


def on_this_node(path: Path, sha256: str) -> Path:
    """A file to read again and again: `path` itself, or the copy of a remote one.

    Copies are found by content, so they are never stale; LTRAY_CACHE names their folder, which
    may be deleted at any time that nothing reads it.

    Raises:
        LtrayError: the file is not what the manifest says.
        OSError: the disk is full.
    """
    if is_local(path):
        return path
    copy = cache_folder() / sha256[:2] / sha256
    if copy.is_file():
        return copy
    with alone(copy.with_name(".lock")):
        if not copy.is_file():
            write_whole(copy, _content(path, sha256))
    return copy


def _content(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise LtrayError(
            str(path),
            f"has sha256 {found}; the manifest says {sha256}",
            "find all such parts with `python -m ltray.prepare EXPERIMENT.yaml --verify`,"
            " delete them and manifest.json, and prepare again",
        )
    return content


def cache_folder() -> Path:
    """$LTRAY_CACHE, else a folder of the person's cache."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ltray"
    return Path(os.environ.get("LTRAY_CACHE", default)) / "shards"
