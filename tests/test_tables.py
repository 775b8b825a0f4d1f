"""Parquet files of our own, whole and damaged."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ltray.tables import read_table, table_bytes

READ_TILL_IT_FAILS = """
import sys
from pathlib import Path
from ltray.data.archives.parquet import ParquetFiles
from ltray.errors import LtrayError
from ltray.tables import read_table

def threads():
    return len(list(Path("/proc/self/task").iterdir()))

part = Path(sys.argv[1])
source = ParquetFiles(part, Path(sys.argv[2]))
ways = {
    "file": lambda: read_table(part),
    "bytes": lambda: read_table(part.read_bytes()),
    "source": lambda: [source.look_through(section) for section in source.sections()],
}
before = threads()
for way, read in ways.items():
    try:
        read()
        print(way, "found nothing wrong")
    except (OSError, ValueError, LtrayError):
        print(way, "told", threads() - before)
"""


@pytest.fixture
def table() -> pa.Table:
    images = np.random.default_rng(0).integers(0, 4, 3_000_000, dtype=np.uint8).tobytes()
    return pa.table(
        {
            "key": [f"{row:07d}" for row in range(1000)],
            "image": [images[3000 * row : 3000 * (row + 1)] for row in range(1000)],
            "label": pa.array(range(1000), pa.int64()),
        }
    )


def test_a_table_is_read_from_a_file_and_from_bytes(tmp_path: Path, table: pa.Table) -> None:
    content = table_bytes(table, "zstd")
    (tmp_path / "t.parquet").write_bytes(content)
    assert read_table(content).equals(table)
    assert read_table(tmp_path / "t.parquet").equals(table)
    assert read_table(content, ["label"]).equals(table.select(["label"]))


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_a_damaged_table_leaves_no_thread_to_abort_the_end_of_python(
    tmp_path: Path, table: pa.Table
) -> None:
    content = bytearray(table_bytes(table, "zstd"))
    content[100_000:400_000:1000] = bytes(300)
    (tmp_path / "t.parquet").write_bytes(content)
    places = [str(tmp_path / "t.parquet"), str(tmp_path / "copies")]
    asked = [sys.executable, "-c", READ_TILL_IT_FAILS, *places]
    ended = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=60)
    assert ended.stdout.splitlines() == ["file told 0", "bytes told 0", "source told 0"]
    assert ended.returncode == 0, ended.stderr
