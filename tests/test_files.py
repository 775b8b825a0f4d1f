"""What lies on the disk after a writer was killed, and where a path leads."""

import os
import time
from pathlib import Path

import pytest

from ltray.files import TEMPORARY_PREFIX, at, lies_below, remove_abandoned, remove_folder


def test_only_files_that_a_killed_writer_left_long_ago_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / "replicate-0" / "tickets"
    folder.mkdir(parents=True)
    abandoned = folder / f"{TEMPORARY_PREFIX}host-1-abcd-weights.safetensors"
    being_written = folder / f"{TEMPORARY_PREFIX}host-2-abcd-weights.safetensors"
    finished = folder / "weights.safetensors"
    for path in (abandoned, being_written, finished):
        path.write_bytes(b"content")
    yesterday = time.time() - 24 * 3600
    for path in (abandoned, finished):
        os.utime(path, (yesterday, yesterday))
    remove_abandoned(tmp_path)
    assert sorted(folder.iterdir()) == sorted([being_written, finished])
    remove_abandoned(tmp_path / "not there yet")


def test_another_users_abandoned_file_stops_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / f"{TEMPORARY_PREFIX}host-1-abcd-part"
    theirs.write_bytes(b"content")
    os.utime(theirs, (0, 0))

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    remove_abandoned(tmp_path)
    assert theirs.is_file()


def test_a_folder_is_removed_or_the_reason_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "file").write_bytes(b"content")
    linked = tmp_path / "link"
    linked.symlink_to(folder)
    with pytest.raises(OSError, match="symbolic link"):
        remove_folder(linked)
    remove_folder(folder)
    remove_folder(folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("path", "below"),
    [
        ("s3://bucket/root/run/mine.py", True),
        ("s3a://bucket/root/mine.py", True),
        ("s3://bucket/other/../root/mine.py", True),
        ("s3://bucket/rooted/mine.py", False),
        ("s3://bucket/root", False),
        ("/bucket/root/mine.py", False),
    ],
)
def test_a_path_in_a_store_lies_below_a_folder_however_it_is_written(
    path: str, below: bool
) -> None:
    assert lies_below(at(path, "path"), at("s3://bucket/root", "folder")) == below
