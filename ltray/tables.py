"""Parquet files, on a disk or in an object store."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ltray.files import open_to_read


def read_table(source: Path | bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns: then no more is fetched than they need.

    Args:
        source: where it is, or what it holds.

    Raises:
        OSError, ValueError, pa.ArrowException: it is not there, or no whole Parquet file.
    """
    # In this thread alone: after an error Arrow's own would go on reading, and one that asks for
    # something of Python's when Python ends takes the process down (SIGABRT).
    with BytesIO(source) if isinstance(source, bytes) else open_to_read(source) as file:
        whole = pq.ParquetFile(file, pre_buffer=False)
        return whole.read(columns and list(columns), use_threads=False)


def read_table_metadata(path: Path) -> pq.FileMetaData:
    """What the end of a Parquet file says of it; errors as `read_table`."""
    with open_to_read(path) as file:
        return pq.read_metadata(file)


def table_bytes(table: pa.Table, compression: str) -> bytes:
    """The Parquet file of a table, in one row group; equal tables give equal bytes."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, table.num_rows),
        compression=compression,
        use_dictionary=False,
        write_statistics=["label"] if "label" in table.column_names else False,
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content
