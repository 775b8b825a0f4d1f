"""The shards: which images lie in which part, each part written whole by one call.

Everything about a part is planned before any is written, so that the same input gives the same
bytes on any cluster and after any number of restarts.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ltray.data.archives.index import Index, Spread, index_of
from ltray.data.archives.source import SPLITS, Examples, Refused, Source
from ltray.data.decode import Unreadable
from ltray.data.held_out import key_hashes
from ltray.data.pixels import Pixels, to_stored
from ltray.files import write_whole
from ltray.layout import DataFolder
from ltray.memory import keep_freed_memory
from ltray.tables import read_table_metadata, table_bytes

SCHEMA = pa.schema([("key", pa.string()), ("image", pa.binary()), ("label", pa.int32())])
PLAN_KEY = b"ltray.plan"
CONTENT_KEY = b"ltray.content"


@dataclass(frozen=True, eq=False)
class Part:
    """The images that one shard is to hold, in their order."""

    split: str
    number: int
    examples: Examples

    def plan_hash(self, pixels: Pixels) -> str:
        """Depends on everything that decides the part's bytes but the source's own content."""
        decides = {
            "part": [self.split, self.number],
            "pixels": pixels.decides(),
            "keys": self.examples.keys,
            "labels": self.examples.labels.tolist(),
            "places": self.examples.places.tolist(),
        }
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Plan:
    """A whole data set before anything of it is written."""

    source: str
    class_names: tuple[str, ...]
    pixels: Pixels
    parts: tuple[Part, ...]
    refused: tuple[Refused, ...]


class Odd(NamedTuple):
    """An image that was taken, and what is unusual about its file."""

    key: str
    what: str


class PartContent(BaseModel):
    """What a part holds.

    Args:
        odd: images that were taken though something is unusual about them.
        source_bytes: of the images that were taken, summed; widths and heights likewise.
        pixel_sums: per channel, of the stored pixels from 0 to 255; squares likewise.
    """

    model_config = ConfigDict(frozen=True)

    split: str
    number: int
    rows: int
    class_counts: dict[int, int]
    quarantined: tuple[Refused, ...]
    odd: tuple[Odd, ...]
    source_bytes: int
    source_widths: int
    source_heights: int
    pixel_sums: tuple[int, ...]
    pixel_square_sums: tuple[int, ...]


class PartRecord(PartContent):
    """A part that is written."""

    bytes: int
    sha256: str


@dataclass
class _Rows:
    """The columns of a part while it is made, and its sums."""

    pixel_sums: NDArray[np.int64]
    pixel_square_sums: NDArray[np.int64]
    keys: list[str] = field(default_factory=list)
    images: list[bytes] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    quarantined: list[Refused] = field(default_factory=list)
    odd: list[Odd] = field(default_factory=list)
    source_bytes: int = 0
    source_widths: int = 0
    source_heights: int = 0


def plan(source: Source, pixels: Pixels, spread: Spread = map) -> Plan:
    """Lay every example of the source into a part, in an order that hashes of the keys give.

    Args:
        spread: where the source's sections are looked through, in this process by default.
    """
    index = index_of(source, spread)
    parts = [
        part
        for split in SPLITS
        if split in index.splits
        for part in _parts(split, index.splits[split], pixels)
    ]
    return Plan(
        source.name, _class_names(source, index), pixels, tuple(parts), tuple(index.refused)
    )


def write_part(part: Part, source: Source, pixels: Pixels, folder: DataFolder) -> PartRecord:
    """Write one shard, unless the one that is there was made by the same plan.

    Raises:
        LtrayError: the source changed or is cut short, or its images are not alike and the
            experiment relied on that.
        OSError: the disk is full or read-only.
    """
    path = folder.part(part.split, part.number)
    plan_hash = part.plan_hash(pixels)
    content = _content_there(path, plan_hash)
    if content is not None:
        blob = path.read_bytes()
    else:
        rows = _made(part, source, pixels)
        content = _content(part, rows)
        blob = _as_parquet(rows, content, plan_hash, pixels)
        write_whole(path, blob)
    sha256 = hashlib.sha256(blob).hexdigest()
    return PartRecord(**content.model_dump(), bytes=len(blob), sha256=sha256)


def rows_per_part(pixels: Pixels) -> int:
    """How many images a part holds; also the row group, since a part has one."""
    return 2048 if pixels.image_size < 64 else 512


def _class_names(source: Source, index: Index) -> tuple[str, ...]:
    """One name per label; a label that the source has no name for is called by its number."""
    names = source.class_names()
    classes = 1 + max(int(of.labels.max(initial=-1)) for of in index.splits.values())
    return (*names, *(str(label) for label in range(len(names), classes)))


def _parts(split: str, examples: Examples, pixels: Pixels) -> Iterator[Part]:
    hashes = key_hashes("order", examples.keys)
    order = sorted(range(len(examples.keys)), key=hashes.__getitem__)
    size = rows_per_part(pixels)
    for number, start in enumerate(range(0, len(order), size)):
        yield Part(split, number, examples.take(order[start : start + size]))


def _content_there(path: Path, plan_hash: str) -> PartContent | None:
    """What the part at `path` holds, if it is one and was made by this plan."""
    try:
        metadata = read_table_metadata(path).metadata or {}
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    if metadata.get(PLAN_KEY) != plan_hash.encode():
        return None
    return PartContent.model_validate_json(metadata[CONTENT_KEY])


def _made(part: Part, source: Source, pixels: Pixels) -> _Rows:
    keep_freed_memory()
    rows = _Rows(*np.zeros((2, pixels.channels), dtype=np.int64))
    examples = part.examples
    images = source.read(examples)
    for key, label, image in zip(examples.keys, examples.labels.tolist(), images, strict=True):
        try:
            if isinstance(image, Unreadable):
                raise image
            stored = to_stored(image, pixels, _is_jpeg_name(key))
        except Unreadable as unreadable:
            rows.quarantined.append(Refused(key, unreadable.reason))
            continue
        rows.keys.append(key)
        rows.images.append(stored.image)
        rows.labels.append(label)
        rows.source_bytes += len(image) if isinstance(image, bytes) else image.nbytes
        rows.source_widths += stored.width
        rows.source_heights += stored.height
        rows.pixel_sums += stored.sums
        rows.pixel_square_sums += stored.square_sums
        if stored.odd:
            rows.odd.append(Odd(key, stored.odd))
    return rows


def _is_jpeg_name(key: str) -> bool:
    return PurePosixPath(key.partition("#")[0]).suffix.lower() in (".jpeg", ".jpg")


def _content(part: Part, rows: _Rows) -> PartContent:
    return PartContent(
        split=part.split,
        number=part.number,
        rows=len(rows.keys),
        class_counts=dict(sorted(Counter(rows.labels).items())),
        quarantined=tuple(rows.quarantined),
        odd=tuple(rows.odd),
        source_bytes=rows.source_bytes,
        source_widths=rows.source_widths,
        source_heights=rows.source_heights,
        pixel_sums=tuple(rows.pixel_sums.tolist()),
        pixel_square_sums=tuple(rows.pixel_square_sums.tolist()),
    )


def _as_parquet(rows: _Rows, content: PartContent, plan_hash: str, pixels: Pixels) -> bytes:
    metadata = {PLAN_KEY: plan_hash.encode(), CONTENT_KEY: content.model_dump_json().encode()}
    table = pa.table([rows.keys, rows.images, rows.labels], schema=SCHEMA.with_metadata(metadata))
    # zstd takes 2 % off JPEGs of 19 kB, which is not worth its time; raw pixels shrink a lot.
    return table_bytes(table, "none" if pixels.encoding == "jpeg" else "zstd")
