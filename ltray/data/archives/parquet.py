"""Parquet files with a column of encoded images and one of labels, as data hubs share them.

A shard samples images from all over the source, and a Parquet file gives no less than a row group
at a time. So looking a source through also copies its images to plain files, of which a shard
reads what it needs.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ltray.data.archives.ranges import Range, read_ranges
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
from ltray.data.decode import Unreadable, header_of
from ltray.errors import LtrayError
from ltray.files import is_local, open_to_read, write_whole

RUN_BYTES = 64 * 1024 * 1024
NULL = -1
FETCH_AGAIN = "fetch it again"
MEND = "write the file again with image, label and, where there are splits, split"


@dataclass(frozen=True)
class ParquetFiles:
    """One file, or every *.parquet below a folder.

    Columns: image (bytes, or a struct with bytes), label (a whole number; null = unknown),
    optionally split (train, val or test) and filename. Other columns are ignored. Without a
    column split, the files of a folder have theirs in their names (train-00000-of-00005.parquet).
    Sections are runs of row groups. Example n lies at (number of the file, first row group of its
    section, first byte and bytes in the copy of that section; -1 bytes for null).

    Args:
        scratch: folder for the copies, which take as much room as the source; needed to look
            through and to read.
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
            with damage_is_told(str(path), FETCH_AGAIN):
                found = _first_geometry(_opened(path))
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
        file = _opened(path)
        groups = range(first_group, end_group)
        with damage_is_told(str(path), FETCH_AGAIN):
            table = file.read_row_groups(groups, columns=_told_columns(file))
        by_name = "train" if path == self.path else split_by_name(section.name)
        rows = _told(table, path, by_name)
        places = _copied(file, groups, path, self._copy(number, first_group))
        finds = Finds()
        for row, ((split, label, name), place) in enumerate(zip(rows, places, strict=True)):
            key = name or f"{section.name}/{first_row + row:07d}"
            finds.take(split, key, label, (number, first_group, *place))
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
        ranges = (
            Range(self._copy(number, first_group), start, max(0, size))
            for number, first_group, start, size in examples.places.tolist()
        )
        sizes = examples.places[:, 3].tolist()
        for content, size in zip(read_ranges(ranges), sizes, strict=True):
            yield Unreadable("null instead of an image") if size == NULL else content

    def _shown(self, path: Path) -> str:
        return path.name if path == self.path else path.relative_to(self.path).as_posix()

    def _copy(self, number: int, first_group: int) -> Path:
        assert self.scratch is not None, "opened with a folder for copies"
        return self.scratch / f"{number:05d}-{first_group:05d}.images"


def _opened(path: Path) -> pq.ParquetFile:
    """The file, if it is Parquet with an image and a label in each row."""
    with damage_is_told(str(path), FETCH_AGAIN):
        file = pq.ParquetFile(path if is_local(path) else open_to_read(path))
    schema = file.schema_arrow
    missing = [name for name in ("image", "label") if name not in schema.names]
    if missing:
        found = f"has the columns {', '.join(schema.names)}, and no {' or '.join(missing)}"
        raise LtrayError(str(path), found, MEND)
    if not _holds_bytes(schema.field("image").type):
        found = f"column image is {schema.field('image').type}; expected bytes of image files"
        raise LtrayError(str(path), found, MEND)
    if not pa.types.is_integer(schema.field("label").type):
        found = f"column label is {schema.field('label').type}; expected whole numbers from 0"
        raise LtrayError(str(path), found, MEND)
    return file


def _first_geometry(file: pq.ParquetFile) -> Geometry | None:
    """Of the first image that can be read."""
    for batch in file.iter_batches(batch_size=16, columns=["image"]):
        for image in _contents(batch["image"]):
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
        return at >= 0 and _holds_bytes(kind.field(at).type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


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


def _told(table: pa.Table, path: Path, by_name: str) -> Iterator[tuple[str, int, str | None]]:
    """Split, label and name of each row.

    Args:
        by_name: the split of rows that do not tell theirs.
    """
    labels = pc.fill_null(table["label"].cast(pa.int64(), safe=False), UNKNOWN).to_numpy()
    check_labels(labels, f"{path}: label")
    nothing = [None] * table.num_rows
    told = {name: table[name].to_pylist() for name in table.column_names}
    splits = told.get("split", [by_name] * table.num_rows)
    _check_splits(path, splits)
    return zip(splits, labels.tolist(), told.get("filename", nothing), strict=True)


def _check_splits(path: Path, splits: list[str | None]) -> None:
    unknown = set(splits) - set(SPLITS)
    if unknown:
        found = f"column split says {next(iter(unknown))!r}; expected train, val or test"
        raise LtrayError(str(path), found, MEND)


def _copied(
    file: pq.ParquetFile, groups: range, path: Path, copy: Path
) -> Iterator[tuple[int, int]]:
    """(first byte, bytes) of each image of some row groups in their copy, made if not there.

    A copy begins with the sizes of its images as an npy array.
    """
    if not copy.is_file():
        with damage_is_told(str(path), FETCH_AGAIN):
            images = [
                image
                for group in groups
                for image in _contents(file.read_row_group(group, columns=["image"])["image"])
            ]
        sizes = [NULL if image is None else len(image) for image in images]
        header = BytesIO()
        np.save(header, np.array(sizes, dtype=np.int64))
        write_whole(copy, b"".join([header.getvalue(), *(image or b"" for image in images)]))
    with open_to_read(copy) as opened:
        known = np.load(opened, allow_pickle=False)
        start = opened.tell()
    for size in known.tolist():
        yield start, size
        start += max(0, size)
