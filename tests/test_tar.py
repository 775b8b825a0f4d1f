import gzip
from pathlib import Path

import pytest
from archives import tar

from ltray.data.archives.tar import whole_file
from ltray.errors import LtrayError


def names_in(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [member.name for member in whole_file(file, path)]


def test_every_cut_of_a_tar_archive_is_noticed(tmp_path: Path) -> None:
    members = [("a", b"1" * 700), ("b" * 150, b"2" * 512), ("c", b"")]
    whole = tar(tmp_path / "whole.tar", members)
    assert names_in(tmp_path / "whole.tar") == [name for name, _ in members]
    cut = tmp_path / "cut.tar"
    end_of_members = len(whole.rstrip(b"\0"))
    for length in range(0, end_of_members, 128):
        cut.write_bytes(whole[:length])
        with pytest.raises(LtrayError, match=r"cut\.tar: (the archive is|is not a tar)"):
            names_in(cut)


def test_a_hole_in_a_tar_archive_is_noticed(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", [("a", b"1" * 700), ("b", b"2" * 700)])
    holed = tmp_path / "holed.tar"
    holed.write_bytes(whole[:1536] + bytes(len(whole) - 1536))
    assert names_in(holed) == ["a"]  # short archives may end so; long runs of zeros are holes
    holed.write_bytes(whole[:1536] + bytes(2 << 20))
    with pytest.raises(LtrayError, match="partly there"):
        names_in(holed)
    holed.write_bytes(whole[:1536] + bytes(1024) + whole[1536:])
    with pytest.raises(LtrayError, match="bytes follow"):
        names_in(holed)


def test_a_damaged_header_is_noticed(tmp_path: Path) -> None:
    whole = bytearray(tar(tmp_path / "a.tar", [("a", b"1"), ("b", b"2")]))
    whole[1024 + 10] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(LtrayError, match="damaged"):
        names_in(tmp_path / "a.tar")


def test_a_gzipped_archive_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(gzip.compress(tar(tmp_path / "b.tar", [("a", b"1")])))
    with pytest.raises(LtrayError, match="is not a tar archive"):
        names_in(tmp_path / "a.tar")
