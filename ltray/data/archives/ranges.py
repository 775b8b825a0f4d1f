"""Byte ranges of a source's files, from a disk or an object store."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ltray.errors import LtrayError
from ltray.files import is_local, read_range

# A request to an object store takes some 30 ms whatever its size: so many are under way at once.
REQUESTS_AT_ONCE = 16
OPEN_AT_ONCE = 256  # a process may often have no more than 1,024


class Range(NamedTuple):
    """Bytes [start, start + size) of a file."""

    path: Path
    start: int
    size: int


def read_ranges(ranges: Iterable[Range]) -> Iterator[bytes]:
    """The content of each range, in order; only a few are in memory at a time.

    Raises:
        LtrayError: a file ends before its range does.
    """
    ahead: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads, ExitStack() as stack:
        opened: dict[Path, BinaryIO] = {}
        for one in ranges:
            if is_local(one.path):
                if one.path not in opened:
                    if len(opened) == OPEN_AT_ONCE:
                        stack.close()
                        opened.clear()
                    opened[one.path] = stack.enter_context(one.path.open("rb"))
                opened[one.path].seek(one.start)
                yield _whole(one, opened[one.path].read(one.size))
                continue
            ahead.append(threads.submit(_requested, one))
            if len(ahead) == REQUESTS_AT_ONCE:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _requested(one: Range) -> bytes:
    return _whole(one, read_range(one.path, one.start, one.size))


def _whole(one: Range, content: bytes) -> bytes:
    if len(content) != one.size:
        raise LtrayError(
            str(one.path),
            f"ends before byte {one.start + one.size}: it changed since it was indexed",
            "prepare again when the archive is whole",
        )
    return content
