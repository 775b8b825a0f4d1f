"""card.html: a prepared data set at a glance, computed from its manifest and its shards."""

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Any

from ltray.analysis import wording
from ltray.analysis.templates import rendered
from ltray.data.manifest import Manifest, read_manifest
from ltray.data.pixels import Pixels, from_stored
from ltray.files import write_whole
from ltray.layout import DataFolder
from ltray.tables import read_table

SAMPLES = 24  # images a split on the contact sheet
LISTED = 200  # files by name; all of them are in quarantine.parquet and odd.parquet
PUBLISHED_COUNTS = {
    "ilsvrc2012": {"train": 1_281_167, "val": 50_000, "test": 100_000},
}


@dataclass(frozen=True)
class SplitLine:
    """One split of the card's first table.

    Attributes:
        per_class: fewest, median and most images of a class that has some; None without labels.
    """

    split: str
    images: int
    classes: int
    per_class: tuple[int, float, int] | None
    bytes: int
    parts: int
    published: int | None


@dataclass(frozen=True)
class Sample:
    """One image of the contact sheet."""

    address: str
    label: str
    key: str


def write_card(folder: DataFolder) -> None:
    """Write card.html beside the manifest.

    Raises:
        LtrayError: the data set is not prepared.
    """
    manifest = read_manifest(folder)
    content = {
        "name": folder.path.name,
        "manifest": manifest,
        "lines": split_lines(manifest),
        "stored_bytes": sum(part.bytes for of in manifest.parts.values() for part in of),
        "classes": _classes(manifest),
        "largest_class": max(
            (max(of.values()) for of in manifest.class_counts.values()), default=0
        ),
        "odd": _reasons(folder.odd, "what"),
        "quarantine": _reasons(folder.quarantine, "reason"),
        "samples": {split: _samples(folder, manifest, split) for split in manifest.counts},
    }
    write_whole(folder.card, rendered("card.html.jinja", content).encode())


def split_lines(manifest: Manifest) -> list[SplitLine]:
    """The table of splits."""
    published = PUBLISHED_COUNTS.get(manifest.source, {})
    lines = []
    for split, images in manifest.counts.items():
        sizes = [n for label, n in manifest.class_counts[split].items() if label >= 0]
        parts = manifest.parts[split]
        lines.append(
            SplitLine(
                split=split,
                images=images,
                classes=len(sizes),
                per_class=(min(sizes), median(sizes), max(sizes)) if sizes else None,
                bytes=sum(part.bytes for part in parts),
                parts=len(parts),
                published=published.get(split),
            )
        )
    return lines


def as_text(manifest: Manifest) -> list[str]:
    """The table of splits and the sizes before and after, as lines for a terminal."""
    shown = [("split", "images", "classes", "images a class", "stored")]
    for line in split_lines(manifest):
        low, middle, high = line.per_class or (0, 0, 0)
        per_class = f"{low:,} to {high:,}, median {middle:,.0f}" if line.per_class else "no labels"
        published = f" of {line.published:,}" if line.published else ""
        images = f"{line.images:,}{published}"
        size = wording.data_size(line.bytes)
        shown.append((line.split, images, f"{line.classes:,}", per_class, size))
    widths = [max(len(row[column]) for row in shown) for column in range(5)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in shown
    ]
    return [*table, _sizes(manifest)]


def _sizes(manifest: Manifest) -> str:
    before, side = manifest.source_statistics, manifest.pixels.image_size
    if before.mean_width is None or before.mean_height is None:
        return "no image was taken"
    width, height = round(before.mean_width), round(before.mean_height)
    return (
        f"mean size {width} x {height} -> {side} x {side}, "
        f"{wording.data_size(before.bytes)} of image files in all"
    )


def _classes(manifest: Manifest) -> list[tuple[str, dict[str, int]]]:
    """Name of each class that has images, and how many in each split."""
    counts = manifest.class_counts
    return [
        (name, {split: of[label] for split, of in counts.items() if label in of})
        for label, name in enumerate(manifest.class_names)
        if any(label in of for of in counts.values())
    ]


def _reasons(path: Path, column: str) -> dict[str, Any]:
    """What a table of keys says: how often each thing, and the first keys."""
    table = read_table(path)
    keys, said = table["key"].to_pylist(), table[column].to_pylist()
    counted = Counter(reason.partition(":")[0] for reason in said).most_common()
    return {"counted": counted, "listed": list(zip(keys, said, strict=True))[:LISTED]}


def _samples(folder: DataFolder, manifest: Manifest, split: str) -> Sequence[Sample]:
    """The first images of a split, which are a random choice since parts are shuffled."""
    first = manifest.parts[split][0]
    table = read_table(folder.path / first.path).slice(0, SAMPLES)
    return [
        Sample(
            address=_address(row["image"], manifest.pixels),
            label=manifest.class_names[row["label"]] if row["label"] >= 0 else "no label",
            key=row["key"],
        )
        for row in table.to_pylist()
    ]


def _address(blob: bytes, pixels: Pixels) -> str:
    """A stored image as a data address."""
    if pixels.encoding == "jpeg":
        return f"data:image/jpeg;base64,{base64.b64encode(blob).decode()}"
    from PIL import Image

    array = from_stored(blob, pixels)
    file = BytesIO()
    Image.fromarray(array[:, :, 0] if pixels.channels == 1 else array).save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
