"""Images of no meaning that cost what real ones cost to store, to read and to train on.

H W pixels, C channels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ltray.data.archives.source import Examples, Finds, Found, Geometry, Image, Section
from ltray.data.manifest import Manifest, write_manifest
from ltray.data.pixels import Pixels
from ltray.data.shards import plan, write_part
from ltray.layout import DataFolder

DIFFERENT = 16
PHOTOGRAPH = (375, 500)  # rows and columns of a usual one of ILSVRC
DETAIL = 12.0  # standard deviation of the noise: JPEG files come out as large as photographs'


@dataclass(frozen=True)
class MadeUp:
    """A source of so many images a split, with labels in turn.

    Attributes:
        counts: (split, images).
        shape: rows and columns of the source's images.
        encoded: JPEG files, in place of arrays.
    """

    counts: tuple[tuple[str, int], ...]
    classes: int
    shape: tuple[int, int]
    channels: int
    encoded: bool
    name: ClassVar[str] = "made_up"

    def files(self) -> list[Path]:
        return []

    def geometry(self) -> Geometry:
        side = self.shape[0] if self.shape[0] == self.shape[1] else None
        return Geometry(side, 1 if self.channels == 1 else 3)

    def sections(self) -> list[Section]:
        return [Section(self.name)]

    def look_through(self, _section: Section, /) -> Found:
        finds = Finds()
        for split, images in self.counts:
            for row in range(images):
                finds.take(split, f"{split}/{row:07d}.JPEG", row % self.classes, (row,))
        return finds.found()

    def class_names(self) -> list[str]:
        return [str(label) for label in range(self.classes)]

    def read(self, examples: Examples) -> Iterator[Image]:
        made = _images(self.shape, self.channels, self.encoded)
        for row in examples.places[:, 0].tolist():
            yield made[row % DIFFERENT]


def made_up_shards(folder: DataFolder, source: MadeUp, pixels: Pixels) -> Manifest:
    """Write the shards of a made-up source."""
    planned = plan(source, pixels)
    records = [write_part(part, source, pixels, folder) for part in planned.parts]
    return write_manifest(folder, planned, records, fingerprint="", seconds=0.0)


@lru_cache(maxsize=1)
def _images(shape: tuple[int, int], channels: int, encoded: bool) -> list[Image]:
    generator = np.random.default_rng(0)
    arrays = [_smooth(generator, *shape, channels) for _ in range(DIFFERENT)]
    return [_jpeg(array) for array in arrays] if encoded else list(arrays)


def _smooth(
    generator: np.random.Generator, rows: int, columns: int, channels: int
) -> NDArray[np.uint8]:
    """[H, W, C]: patches of colour with a little noise, as a photograph has them."""
    patches = generator.uniform(0, 255, (8, 8, channels))
    down = np.arange(rows) * 8 // rows
    across = np.arange(columns) * 8 // columns
    noisy = patches[down][:, across] + generator.normal(0, DETAIL, (rows, columns, channels))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def _jpeg(array: NDArray[np.uint8]) -> bytes:
    from PIL import Image as Pillow

    file = BytesIO()
    Pillow.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(
        file, "JPEG", quality=90
    )
    return file.getvalue()
