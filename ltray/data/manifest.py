"""The manifest of a prepared data set: written last, so where it lies the set is whole."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from ltray.data.archives.source import SPLITS
from ltray.data.pixels import MADE_BY, Pixels, sample_step, versions
from ltray.data.shards import PartRecord, Plan
from ltray.errors import LtrayError
from ltray.files import write_json, write_whole
from ltray.layout import DataFolder
from ltray.tables import table_bytes

QUARANTINE_SCHEMA = pa.schema([("key", pa.string()), ("reason", pa.string())])
ODD_SCHEMA = pa.schema([("key", pa.string()), ("what", pa.string())])


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PartFile(_Frozen):
    """One shard; its path is relative to the data folder."""

    path: str
    rows: int
    bytes: int
    sha256: str


class SourceStatistics(_Frozen):
    """The images that were taken, as the source had them; means are None where there are none."""

    images: int
    bytes: int
    mean_bytes: float | None
    mean_width: float | None
    mean_height: float | None


class Manifest(_Frozen):
    """What a prepared data set holds and how it was made.

    Args:
        counts: split -> images.
        class_counts: split -> label -> images; -1 counts those without a label.
        class_names: in the order of labels.
        parts: split -> its shards in their order.
        pixel_mean: per channel, of train's stored pixels from 0 to 255 (before JPEG); of a sample
            of them where images are large.
        pixel_std: likewise; 1 for a channel that never changes.
        quarantined: how many inputs quarantine.parquet names.
        odd: how many images odd.parquet names: taken, though unusual.
        seconds: from the first look at the source to this file.
    """

    format: Literal[2]
    source: str
    fingerprint: str
    counts: dict[str, int]
    class_counts: dict[str, dict[int, int]]
    class_names: tuple[str, ...]
    pixels: Pixels
    made_by: str
    made_with: dict[str, str]
    pixel_mean: tuple[float, ...]
    pixel_std: tuple[float, ...]
    parts: dict[str, tuple[PartFile, ...]]
    quarantined: int
    odd: int
    source_statistics: SourceStatistics
    seconds: float


def write_manifest(
    folder: DataFolder,
    plan: Plan,
    records: Sequence[PartRecord],
    fingerprint: str,
    seconds: float,
) -> Manifest:
    """Write quarantine.parquet and odd.parquet, then manifest.json: the data set is whole.

    Raises:
        LtrayError: no train image could be read.
    """
    planned = [(part.split, part.number) for part in plan.parts]
    by_part = {(record.split, record.number): record for record in records}
    assert set(by_part) == set(planned), "every planned part is written, and no other"
    ordered = [by_part[part] for part in planned]
    by_split = _by_split(ordered)
    refused = [*plan.refused, *(bad for record in ordered for bad in record.quarantined)]
    odd = [one for record in ordered for one in record.odd]
    _write_pairs(folder.quarantine, QUARANTINE_SCHEMA, refused)
    _write_pairs(folder.odd, ODD_SCHEMA, odd)
    if not any(record.rows for record in by_split["train"]):
        raise LtrayError(
            str(folder.quarantine),
            f"all {len(refused)} refused inputs are here, and no train image is left",
            "mend the source's images; each row says what is wrong with one",
        )
    mean, std = _mean_and_std(by_split["train"], plan.pixels)
    manifest = Manifest(
        format=2,
        source=plan.source,
        fingerprint=fingerprint,
        counts={split: sum(r.rows for r in of) for split, of in by_split.items()},
        class_counts={split: _class_counts(of) for split, of in by_split.items()},
        class_names=plan.class_names,
        pixels=replace(plan.pixels, any_size=True, any_channels=True),
        made_by=MADE_BY,
        made_with=versions(),
        pixel_mean=mean,
        pixel_std=std,
        parts={split: _files(folder, of) for split, of in by_split.items()},
        quarantined=len(refused),
        odd=len(odd),
        source_statistics=_statistics(ordered),
        seconds=seconds,
    )
    write_json(folder.manifest, _as_json(manifest))
    return manifest


def read_manifest(folder: DataFolder) -> Manifest:
    """The manifest of a prepared data set.

    Raises:
        LtrayError: the data set is not whole, or the file is damaged.
    """
    try:
        return Manifest.model_validate_json(folder.manifest.read_bytes())
    except FileNotFoundError:
        raise LtrayError(
            str(folder.path),
            "the data set is not prepared: there is no manifest.json, which is written last",
            "prepare it with `python -m ltray.prepare EXPERIMENT.yaml`",
        ) from None
    except ValidationError as error:
        raise LtrayError(
            str(folder.manifest),
            f"is no manifest that this version reads: {error.errors()[0]['msg']}",
            "delete it and prepare again; parts that are whole are kept",
        ) from None


def _write_pairs(path: Path, schema: pa.Schema, pairs: Sequence[tuple[str, str]]) -> None:
    ordered = sorted(pairs)
    columns = [[pair[0] for pair in ordered], [pair[1] for pair in ordered]]
    write_whole(path, table_bytes(pa.table(columns, schema=schema), "zstd"))


def _by_split(records: Sequence[PartRecord]) -> dict[str, list[PartRecord]]:
    grouped = {split: [r for r in records if r.split == split] for split in SPLITS}
    return {split: of for split, of in grouped.items() if of}


def _class_counts(records: Sequence[PartRecord]) -> dict[int, int]:
    total: Counter[int] = Counter()
    for record in records:
        total.update(record.class_counts)
    return dict(sorted(total.items()))


def _files(folder: DataFolder, records: Sequence[PartRecord]) -> tuple[PartFile, ...]:
    return tuple(
        PartFile(
            path=folder.part(record.split, record.number).relative_to(folder.path).as_posix(),
            rows=record.rows,
            bytes=record.bytes,
            sha256=record.sha256,
        )
        for record in records
    )


def _statistics(records: Sequence[PartRecord]) -> SourceStatistics:
    images = sum(record.rows for record in records)
    total_bytes = sum(record.source_bytes for record in records)
    widths = sum(record.source_widths for record in records)
    heights = sum(record.source_heights for record in records)
    return SourceStatistics(
        images=images,
        bytes=total_bytes,
        mean_bytes=total_bytes / images if images else None,
        mean_width=widths / images if images else None,
        mean_height=heights / images if images else None,
    )


def _mean_and_std(
    records: Sequence[PartRecord], pixels: Pixels
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Of the pixels of each channel; sums are whole numbers, so the order of parts is no matter."""
    side = len(range(0, pixels.image_size, sample_step(pixels.image_size)))
    count = sum(record.rows for record in records) * side**2
    sums = [sum(channel) for channel in zip(*(r.pixel_sums for r in records), strict=True)]
    squares = [sum(chan) for chan in zip(*(r.pixel_square_sums for r in records), strict=True)]
    variances = [(count * s2 - s1 * s1) / count**2 for s1, s2 in zip(sums, squares, strict=True)]
    return tuple(s1 / count for s1 in sums), tuple(math.sqrt(v) or 1.0 for v in variances)


def _as_json(manifest: Manifest) -> dict[str, object]:
    # What the experiment left to the source was checked when the parts were made; it is no
    # property of the stored pixels.
    flags = {"any_size", "any_channels"}
    return manifest.model_dump(mode="json", exclude={"pixels": flags})
