"""Byte ranges of many files."""

import resource
from pathlib import Path

import pytest

from ltray.data.archives.ranges import Range, read_ranges
from ltray.errors import LtrayError


def test_more_files_than_a_process_may_open(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ranges = []
    for number in range(600):
        path = tmp_path / str(number)
        path.write_bytes(b"ab%d" % number)
        ranges.append(Range(path, 2, len(str(number))))
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        contents = list(read_ranges([*ranges, *ranges]))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert contents == [b"%d" % number for number in [*range(600), *range(600)]]


def test_a_file_that_has_become_shorter(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    with pytest.raises(LtrayError, match="ends before byte 4"):
        list(read_ranges([Range(tmp_path / "a", 0, 3), Range(tmp_path / "a", 1, 3)]))
