"""The JSON that safetensors files carry beside their tensors, read without torch.

A file begins with 8 bytes, little-endian: how many bytes of JSON follow, which describe the
tensors. What ltray wrote beside them is the string `__metadata__.ltray` in there, JSON again.
"""

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ltray.files import READ_AT_ONCE, read_range

LENGTH_BYTES = 8
LONGEST = 100_000_000  # bytes that safetensors itself allows a header to have
FIRST_BYTES = 16 * 1024  # holds the header of most files, so that a store is asked once


def header_of(content: bytes) -> dict[str, Any]:
    """What ltray wrote beside the tensors; empty where it wrote nothing.

    Args:
        content: of a safetensors file, from its beginning to at least the end of its header.

    Raises:
        ValueError: it is no such file, or not that much of it.
    """
    end = _end(content)
    if end > len(content):
        raise ValueError(f"ends at byte {len(content)}, before its header does at {end}")
    described = _object(content[LENGTH_BYTES:end])
    metadata = described.get("__metadata__", {})
    return _object(metadata["ltray"]) if "ltray" in metadata else {}


def read_headers(
    paths: Sequence[Path], first_bytes: int = FIRST_BYTES
) -> Iterator[dict[str, Any] | None]:
    """The headers of files, in their order and read side by side.

    Yields:
        None for a file that is gone, or is no safetensors file.
    """
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        yield from pool.map(partial(_read_header, first_bytes=first_bytes), paths)


def _read_header(path: Path, first_bytes: int) -> dict[str, Any] | None:
    try:
        content = read_range(path, 0, first_bytes)
        missing = _end(content) - len(content)
        if missing > 0:
            content += read_range(path, len(content), missing)
        return header_of(content)
    except (FileNotFoundError, ValueError):
        return None


def _end(content: bytes) -> int:
    """Where the header ends, in bytes from the beginning of the file."""
    length = int.from_bytes(content[:LENGTH_BYTES], "little")
    if len(content) < LENGTH_BYTES or length > LONGEST:
        raise ValueError("is no safetensors file")
    return LENGTH_BYTES + length


def _object(text: bytes | str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError(f"has {found!r} where an object should be")
    return found
