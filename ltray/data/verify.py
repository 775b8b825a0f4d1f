"""Reading a prepared data set back, to the last pixel."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa

from ltray.data.decode import Unreadable
from ltray.data.manifest import Manifest, PartFile, read_manifest
from ltray.data.pixels import Pixels, from_stored
from ltray.data.shards import SCHEMA
from ltray.files import TEMPORARY_PREFIX
from ltray.layout import DataFolder
from ltray.tables import read_table, read_table_metadata


@dataclass(frozen=True)
class PartReading:
    """What was found in one part: label -> images, and what is wrong, in words."""

    path: str
    class_counts: Counter[int]
    faults: tuple[str, ...]

    @property
    def rows(self) -> int:
        return self.class_counts.total()


Spread = Callable[[Callable[[PartFile], PartReading], Sequence[PartFile]], Iterable[PartReading]]
"""Like `map`, but in any order: what a function gives for each part."""


def verify(folder: DataFolder, spread: Spread = map) -> list[str]:
    """Everything in a data set that is not as its manifest says, in words; empty = whole.

    Args:
        spread: where the parts are read, in this process by default.

    Raises:
        LtrayError: there is no manifest.
    """
    manifest = read_manifest(folder)
    faults = _strays(folder, manifest)
    faults += _table_faults(folder.quarantine, manifest.quarantined)
    faults += _table_faults(folder.odd, manifest.odd)
    parts = [part for of in manifest.parts.values() for part in of]
    read = partial(read_part, folder, manifest.pixels)
    readings = {reading.path: reading for reading in spread(read, parts)}
    for split, of in manifest.parts.items():
        found: Counter[int] = Counter()
        for part in of:
            faults.extend(f"{part.path}: {fault}" for fault in readings[part.path].faults)
            found += readings[part.path].class_counts
        faults.extend(_count_faults(split, manifest, found))
    return faults


def read_part(folder: DataFolder, pixels: Pixels, part: PartFile) -> PartReading:
    """Read one part back: its bytes, its columns, every image."""
    faults = []
    try:
        content = (folder.path / part.path).read_bytes()
        if hashlib.sha256(content).hexdigest() != part.sha256:
            faults.append("its sha256 is not the manifest's")
        table = read_table(content)
        columns = table.to_pydict()
    except FileNotFoundError:
        return PartReading(part.path, Counter(), ("is missing",))
    except MemoryError:
        raise  # Arrow's is an ArrowException too
    except (OSError, ValueError, pa.ArrowException) as error:
        return PartReading(part.path, Counter(), (*faults, f"cannot be read: {error}"))
    if not table.schema.equals(SCHEMA) or any(column.null_count for column in table.columns):
        return PartReading(
            part.path, Counter(), (*faults, "has other columns, or values that are missing")
        )
    if table.num_rows != part.rows:
        faults.append(f"has {table.num_rows} rows, the manifest says {part.rows}")
    faults += _image_faults(columns["key"], columns["image"], pixels)
    return PartReading(part.path, Counter(columns["label"]), tuple(faults))


def _image_faults(keys: Sequence[str], images: Sequence[bytes], pixels: Pixels) -> list[str]:
    faults = []
    for key, image in zip(keys, images, strict=True):
        try:
            from_stored(image, pixels)
        except Unreadable as unreadable:
            faults.append(f"{key}: {unreadable.reason}")
    return faults


def _count_faults(split: str, manifest: Manifest, found: Counter[int]) -> list[str]:
    faults = []
    if found.total() != manifest.counts[split]:
        faults.append(
            f"{split}: has {found.total()} images, the manifest says {manifest.counts[split]}"
        )
    said = Counter(manifest.class_counts[split])
    faults.extend(
        f"{split}: label {label} has {found[label]} images, the manifest says {said[label]}"
        for label in sorted(said.keys() | found.keys())
        if found[label] != said[label]
    )
    return faults


def _table_faults(path: Path, expected: int) -> list[str]:
    try:
        rows = read_table_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        return [f"{path.name}: cannot be read: {error}"]
    if rows != expected:
        return [f"{path.name}: has {rows} rows, the manifest says {expected}"]
    return []


def _strays(folder: DataFolder, manifest: Manifest) -> list[str]:
    known = {part.path for parts in manifest.parts.values() for part in parts}
    there = {path.relative_to(folder.path).as_posix() for path in folder.path.glob("*/*")}
    return [
        f"{name}: is not in the manifest"
        for name in sorted(there - known)
        if not name.rpartition("/")[2].startswith(TEMPORARY_PREFIX)
    ]
