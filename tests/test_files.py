"""What lies on the disk after a writer was killed."""

import os
import time
from pathlib import Path

from ltray.files import TEMPORARY_PREFIX, remove_abandoned


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
