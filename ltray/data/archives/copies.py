"""Plain copies of images that lie in files which do not give one image alone."""

from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ltray.data.archives.ranges import Range, read_ranges
from ltray.data.archives.source import Image
from ltray.data.decode import Unreadable
from ltray.files import open_to_read, write_whole

COPY_BYTES = 64 * 1024 * 1024
NULL = -1


def copied(folder: Path, name: str, count: int) -> NDArray[np.int64] | None:
    """Where the images lie that were copied under a name: int64 [count, 3] of (number of the
    copy, first byte, bytes), -1 bytes for null; None if not all of them are there.

    A copy that was begun has no index yet; one that was half removed may have it still.
    """
    try:
        with open_to_read(_index(folder, name)) as file:
            index: NDArray[np.int64] = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        return None
    numbers = np.unique(index[:, 0]).tolist()
    is_whole = len(index) == count and all(
        _copy(folder, name, number).is_file() for number in numbers
    )
    return index if is_whole else None


def copy(folder: Path, name: str, images: Iterable[bytes | None]) -> NDArray[np.int64]:
    """Copy images below `folder`, some 64 MiB in memory at a time; gives what `copied` will.

    The index is written last.

    Raises:
        OSError: the disk is full or read-only.
    """
    index: list[tuple[int, int, int]] = []
    number = start = 0
    waiting: list[bytes] = []
    for image in images:
        if start >= COPY_BYTES:
            write_whole(_copy(folder, name, number), b"".join(waiting))
            number, start, waiting = number + 1, 0, []
        index.append((number, start, NULL if image is None else len(image)))
        waiting.append(image or b"")
        start += len(waiting[-1])
    write_whole(_copy(folder, name, number), b"".join(waiting))
    rows = np.array(index, dtype=np.int64).reshape(-1, 3)
    file = BytesIO()
    np.save(file, rows)
    write_whole(_index(folder, name), file.getvalue())
    return rows


def read_copies(folder: Path, places: Iterable[tuple[str, int, int, int]]) -> Iterator[Image]:
    """The images at (name, number of the copy, first byte, bytes)."""
    wanted = list(places)
    contents = read_ranges(
        Range(_copy(folder, name, number), start, max(0, size))
        for name, number, start, size in wanted
    )
    for (*_, size), content in zip(wanted, contents, strict=True):
        yield Unreadable("null instead of an image") if size == NULL else content


def _copy(folder: Path, name: str, number: int) -> Path:
    return folder / f"{name}-{number:05d}.images"


def _index(folder: Path, name: str) -> Path:
    return folder / f"{name}.npy"
