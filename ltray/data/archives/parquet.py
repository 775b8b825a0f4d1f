"""Parquet files with a column of encoded images and one of labels, as data hubs share them.

A shard samples images from all over the source, and a Parquet file gives no less than a row group
at a time. So looking a source through also copies its images to plain files, of which a shard
reads what it needs.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ltray.data.archives.copies import copied, copy, read_copies
from ltray.data.archives.source import (
    SPLITS,
    UNKNOWN,
    Examples,
    Finds,
    Found,
    Geometry,
    Image,
    Section,
    check_labels,
    damage_is_told,
    split_by_name,
)
from ltray.data.decode import Unreadable, header_of, too_large
from ltray.errors import LtrayError
from ltray.files import is_local, open_to_read

RUN_BYTES = 64 * 1024 * 1024
BUFFER_BYTES = 1024 * 1024
ROWS_AT_ONCE = 16
FETCH_AGAIN = "fetch it again"
MEND = "write the file again with image, label and, where there are splits, split"


class _Told(NamedTuple):
    """What a row says of its image."""

    split: str
    label: int
    name: str | None


@dataclass(frozen=True)
class ParquetFiles:
    """One file, or every *.parquet below a folder.

    Columns: image (bytes, or a struct with bytes), label (a whole number; null = unknown),
    optionally split (train, val or test) and filename. Other columns are ignored. Without a
    column split, the files of a folder have theirs in their names (train-00000-of-00005.parquet).
    Sections are runs of row groups. Example n lies at (number of the file, first row group of its
    section, number of the copy of that, first byte, bytes).

    Args:
        scratch: folder for the copies, which take as much room as the source; needed to read.
            Who looks through without it learns splits and labels, and places where nothing lies.
    """

    path: Path
    scratch: Path | None = None
    name: ClassVar[str] = "parquet"

    def files(self) -> list[Path]:
        files = [self.path] if self.path.is_file() else sorted(self.path.rglob("*.parquet"))
        if not files:
            raise LtrayError(
                "data.path",
                f"there is no Parquet file at {self.path}",
                "write a Parquet file, or a folder that holds some",
            )
        return files

    def geometry(self) -> Geometry:
        for path in self.files():
            found = _first_geometry(path)
            if found is not None:
                return found
        raise LtrayError(str(self.path), "holds no image that can be read", MEND)

    def sections(self) -> list[Section]:
        return [
            Section(self._shown(path), (number, *run))
            for number, path in enumerate(self.files())
            for run in _runs(_opened(path).metadata)
        ]

    def look_through(self, section: Section, /) -> Found:
        number, first_group, end_group, first_row = section.place
        path = self.path if self.path.is_file() else self.path / section.name
        by_name = "train" if path == self.path else split_by_name(section.name)
        groups = range(first_group, end_group)
        file = _opened(path)
        with damage_is_told(str(path), FETCH_AGAIN):
            columns = _told_columns(file)
            table = file.read_row_groups(groups, columns=columns, use_threads=False)
            told = _told(table, path, by_name)
        name = _copy_name(number, first_group)
        copies = self._copies(name, lambda: _images(file, groups, path), len(told))
        finds = Finds()
        with damage_is_told(str(path), FETCH_AGAIN):
            for row, (one, place) in enumerate(zip(told, copies.tolist(), strict=True)):
                key = one.name or f"{section.name}/{first_row + row:07d}"
                refused = too_large(place[-1])
                if refused:
                    finds.refuse(key, refused)
                else:
                    finds.take(one.split, key, one.label, (number, first_group, *place))
        return finds.found()

    def class_names(self) -> list[str]:
        """As the data hub that the files come from wrote them into their schema."""
        metadata = _opened(self.files()[0]).schema_arrow.metadata or {}
        try:
            features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
            return [str(name) for name in features["label"]["names"]]
        except (ValueError, KeyError, TypeError):  # written by something else, or numbers alone
            return []

    def read(self, examples: Examples) -> Iterator[Image]:
        places = (
            (_copy_name(number, first_group), *place)
            for number, first_group, *place in examples.places.tolist()
        )
        return read_copies(self._scratch, places)

    def _copies(
        self, name: str, images: Callable[[], Iterator[bytes | None]], count: int
    ) -> NDArray[np.int64]:
        """Where the images lie that are, or now get, copied under a name; [count, 3]."""
        if self.scratch is None:
            return np.zeros((count, 3), np.int64)
        found = copied(self.scratch, name, count)
        return copy(self.scratch, name, images()) if found is None else found

    @property
    def _scratch(self) -> Path:
        assert self.scratch is not None, "opened with a folder for copies"
        return self.scratch

    def _shown(self, path: Path) -> str:
        return path.name if path == self.path else path.relative_to(self.path).as_posix()


def _opened(path: Path) -> pq.ParquetFile:
    """The file, if it is Parquet with an image and a label in each row."""
    with damage_is_told(str(path), FETCH_AGAIN):
        source = path if is_local(path) else open_to_read(path)
        # With a buffer a column is read as it goes, and not a whole row group's at once.
        file = pq.ParquetFile(source, buffer_size=BUFFER_BYTES, pre_buffer=False)
        schema = file.schema_arrow
        metadata = file.metadata
        rows = sum(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        if rows != metadata.num_rows:
            raise ValueError(f"it claims {metadata.num_rows:,} rows and has {rows:,}")
    twice = [name for name in COLUMNS if schema.names.count(name) > 1]
    if twice:
        raise LtrayError(str(path), f"has two columns called {' and '.join(twice)}", MEND)
    missing = [name for name in ("image", "label") if name not in schema.names]
    if missing:
        found = f"has the columns {', '.join(schema.names)}, and no {' or '.join(missing)}"
        raise LtrayError(str(path), found, MEND)
    for name, (is_right, expected) in COLUMNS.items():
        if name in schema.names and not is_right(schema.field(name).type):
            found = f"column {name} is {schema.field(name).type}; expected {expected}"
            raise LtrayError(str(path), found, MEND)
    return file


def _first_geometry(path: Path) -> Geometry | None:
    """Of the first image in a file that can be read."""
    file = _opened(path)
    for image in _images(file, range(file.num_row_groups), path):
        try:
            header = header_of(image or b"")
        except Unreadable:
            continue
        alike = header.width == header.height
        return Geometry(header.width if alike else None, header.channels)
    return None


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_bytes(kind.field(at).type)
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or pa.types.is_null(kind))


COLUMNS = {
    "image": (_holds_bytes, "bytes of image files"),
    "label": (pa.types.is_integer, "whole numbers from 0"),
    "split": (_is_text, "train, val or test"),
    "filename": (_is_text, "names"),
}


def _contents(column: pa.Array | pa.ChunkedArray) -> list[bytes | None]:
    """The image files in a column."""
    if pa.types.is_struct(column.type):
        column = pc.struct_field(column, "bytes")
    images: list[bytes | None] = column.to_pylist()
    return images


def _runs(metadata: pq.FileMetaData) -> Iterator[tuple[int, int, int]]:
    """(first row group, end, first row) of each run of some RUN_BYTES; a row group is whole."""
    first = first_row = row = size = 0
    for group in range(metadata.num_row_groups):
        one = metadata.row_group(group)
        if size and size + one.total_byte_size > RUN_BYTES:
            yield first, group, first_row
            first, first_row, size = group, row, 0
        row += one.num_rows
        size += one.total_byte_size
    if metadata.num_row_groups:
        yield first, metadata.num_row_groups, first_row


def _told_columns(file: pq.ParquetFile) -> list[str]:
    """The columns that say something of the images."""
    return [name for name in ("label", "split", "filename") if name in file.schema_arrow.names]


def _told(table: pa.Table, path: Path, by_name: str) -> list[_Told]:
    """What the other columns say of each image.

    Args:
        by_name: the split of rows that do not tell theirs.
    """
    labels = pc.fill_null(table["label"].cast(pa.int64(), safe=False), UNKNOWN).to_numpy()
    check_labels(labels, f"{path}: label")
    splits = _texts(table, "split") or [by_name] * table.num_rows
    unknown = set(splits) - set(SPLITS)
    if unknown:
        found = f"column split says {min(map(repr, unknown))}; expected train, val or test"
        raise LtrayError(str(path), found, MEND)
    names = _texts(table, "filename") or [None] * table.num_rows
    return list(map(_Told, splits, labels.tolist(), names))


def _texts(table: pa.Table, column: str) -> list[Any] | None:
    return table[column].to_pylist() if column in table.column_names else None


def _images(file: pq.ParquetFile, groups: range, path: Path) -> Iterator[bytes | None]:
    """The image files in some row groups, a few rows in memory at a time."""
    with damage_is_told(str(path), FETCH_AGAIN):
        for batch in file.iter_batches(
            ROWS_AT_ONCE, row_groups=groups, columns=["image"], use_threads=False
        ):
            yield from _contents(batch["image"])


def _copy_name(number: int, first_group: int) -> str:
    return f"{number:05d}-{first_group:05d}"
