"""Parquet files with a column of encoded images and one of labels, as data hubs share them.

A part of the shards samples rows from the whole source, so making one reads every row group that
its rows lie in, one after the other: made for sources of some gigabytes, not for ImageNet.
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

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

MEND = "write the file again with image, label and, where there are splits, split"


@dataclass(frozen=True)
class ParquetFiles:
    """One file, or every *.parquet below a folder.

    Columns: image (bytes, or a struct with bytes), label (a whole number; null = unknown),
    optionally split (train, val or test) and filename. Other columns are ignored. Without a
    column split, the files of a folder have theirs in their names (train-00000-of-00005.parquet).
    Example n lies at (number of the file, row group, row in it).
    """

    path: Path
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
            with damage_is_told(str(path), "fetch it again"):
                found = _first_geometry(_opened(path))
            if found is not None:
                return found
        raise LtrayError(str(self.path), "holds no image that can be read", MEND)

    def sections(self) -> list[Section]:
        return [Section(path.name, (number,)) for number, path in enumerate(self.files())]

    def look_through(self, section: Section, /) -> Found:
        (number,) = section.place
        path = self.files()[number]
        finds = Finds()
        with damage_is_told(str(path), "fetch it again"):
            self._index_file(number, path, finds)
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
        wanted: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for position, (number, group, _) in enumerate(examples.places.tolist()):
            wanted[number, group].append(position)
        images: dict[int, bytes | None] = {}
        paths = self.files()
        for (number, group), positions in sorted(wanted.items()):
            with damage_is_told(str(paths[number]), "fetch it again"):
                column = _opened(paths[number]).read_row_group(group, columns=["image"])["image"]
                taken = _contents(column.take(examples.places[positions, 2]))
                images.update(zip(positions, taken, strict=True))
        for position in range(len(examples.keys)):
            image = images.pop(position)
            yield Unreadable("null instead of an image") if image is None else image

    def _index_file(self, number: int, path: Path, finds: Finds) -> None:
        file = _opened(path)
        wanted = [
            name for name in ("label", "split", "filename") if name in file.schema_arrow.names
        ]
        table = file.read(columns=wanted)
        labels = _filled(table["label"])
        check_labels(labels, f"{path}: label")
        rows = [None] * table.num_rows
        shown = path.name if path == self.path else path.relative_to(self.path).as_posix()
        by_name = "train" if path == self.path else split_by_name(shown)
        splits = table["split"].to_pylist() if "split" in wanted else [by_name] * table.num_rows
        names = table["filename"].to_pylist() if "filename" in wanted else rows
        _check_splits(path, splits)
        places = _places(file.metadata)
        for row, (group, row_in_group) in enumerate(places):
            key = names[row] or f"{shown}/{row:07d}"
            finds.take(splits[row], key, int(labels[row]), (number, group, row_in_group))


def _opened(path: Path) -> pq.ParquetFile:
    """The file, if it is Parquet with an image and a label in each row."""
    with damage_is_told(str(path), "fetch it again"):
        file = pq.ParquetFile(path)
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


def _filled(labels: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    values = pc.fill_null(labels.cast(pa.int64(), safe=False), UNKNOWN)
    return np.asarray(values.to_numpy(), dtype=np.int64)


def _check_splits(path: Path, splits: list[str | None]) -> None:
    unknown = set(splits) - set(SPLITS)
    if unknown:
        found = f"column split says {next(iter(unknown))!r}; expected train, val or test"
        raise LtrayError(str(path), found, MEND)


def _places(metadata: pq.FileMetaData) -> Iterator[tuple[int, int]]:
    """(row group, row in it) of every row of a file."""
    for group in range(metadata.num_row_groups):
        for row in range(metadata.row_group(group).num_rows):
            yield group, row
