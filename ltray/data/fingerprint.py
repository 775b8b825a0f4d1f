"""What tells one source from another, wherever it lies."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ltray.data.archives.sources import open_source
from ltray.experiment import Data, SourceFacts
from ltray.files import at, read_range

SAMPLED_FILES = 64
SAMPLED_BYTES = 64 * 1024


def fingerprint(files: Sequence[Path], base: Path) -> str:
    """Hash names (relative to `base`), sizes, and both ends of at most 64 of the files, in hex."""
    ordered = sorted(files)
    hasher = hashlib.sha256()
    for path in ordered:
        name = path.relative_to(base).as_posix()
        hasher.update(json.dumps([name, path.stat().st_size]).encode())
    for path in _evenly_spread(ordered):
        hasher.update(_ends(path))
    return hasher.hexdigest()


def source_facts(data: Data) -> SourceFacts:
    """What the source of `data` says of itself; no more than one of its images is decoded.

    Raises:
        LtrayError: the source is not there or not whole.
    """
    source = open_source(data)
    image_size, channels = source.geometry()
    files = source.files()
    path = at(data.path, "data.path") if data.path else None
    base = path if path and path.is_dir() else files[0].parent
    return SourceFacts(
        fingerprint=fingerprint(files, base), image_size=image_size, channels=channels
    )


def _evenly_spread(files: Sequence[Path]) -> list[Path]:
    if len(files) <= SAMPLED_FILES:
        return list(files)
    last = SAMPLED_FILES - 1
    return [files[number * (len(files) - 1) // last] for number in range(SAMPLED_FILES)]


def _ends(path: Path) -> bytes:
    last = max(0, path.stat().st_size - SAMPLED_BYTES)
    return read_range(path, 0, SAMPLED_BYTES) + read_range(path, last, SAMPLED_BYTES)
