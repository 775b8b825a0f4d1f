"""One .npz file with x_train, y_train, x_test and y_test, as MNIST and its kin are shared.

N images, H W pixels, C channels.
"""

import math
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ltray.data.archives.source import (
    Examples,
    Finds,
    Found,
    Geometry,
    Image,
    Section,
    check_labels,
    damage_is_told,
)
from ltray.errors import LtrayError
from ltray.files import open_to_read

SPLITS = ("train", "test")
EXPECTED = "expected x_train, y_train, x_test, y_test: uint8 images N x H x W [x 1 or 3], labels N"
AGAIN = "fetch or write it again"


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class Npz:
    """Images and labels as plain arrays; pickled objects are never read."""

    path: Path
    name: ClassVar[str] = "npz"

    def files(self) -> list[Path]:
        if not self.path.is_file():
            raise LtrayError(
                "data.path",
                f"there is no file {self.path}; expected an .npz archive",
                "make one with numpy.savez(x_train=..., y_train=..., x_test=..., y_test=...)",
            )
        return [self.path]

    def geometry(self) -> Geometry:
        train, test = (self._image_header(split) for split in SPLITS)
        if train.shape[1:] != test.shape[1:]:
            raise self._wrong(f"x_train has shape {train.shape} and x_test {test.shape}")
        height, width = train.shape[1:3]
        colours = train.shape[3:] == (3,)
        return Geometry(height if height == width else None, 3 if colours else 1)

    def sections(self) -> list[Section]:
        return [Section(self.name)]

    def look_through(self, _section: Section, /) -> Found:
        self.geometry()
        finds = Finds()
        for number, split in enumerate(SPLITS):
            for row, label in enumerate(self._labels(split).tolist()):
                finds.take(split, f"x_{split}.npy/{row:07d}", label, (number, row))
        return finds.found()

    def class_names(self) -> list[str]:
        return []

    def read(self, examples: Examples) -> Iterator[Image]:
        arrays = {
            number: self._array(f"x_{SPLITS[number]}")
            for number in np.unique(examples.places[:, 0]).tolist()
        }
        for number, row in examples.places.tolist():
            yield arrays[number][row]

    def _labels(self, split: str) -> NDArray[np.int64]:
        labels = self._array(f"y_{split}")
        images = self._image_header(split).shape[0]
        if labels.dtype.kind not in "iu" or labels.size != images:
            found = f"y_{split} has shape {labels.shape} and type {labels.dtype}"
            raise self._wrong(f"{found} for {images} images")
        check_labels(labels, f"{self.path}: y_{split}")
        return labels.reshape(-1).astype(np.int64)

    def _image_header(self, split: str) -> _Header:
        header = self._header(f"x_{split}")
        images = header.dtype == np.uint8 and len(header.shape) in (3, 4)
        if not images or header.shape[3:] not in ((), (1,), (3,)) or 0 in header.shape[1:]:
            raise self._wrong(f"x_{split} has shape {header.shape} and type {header.dtype}")
        return header

    def _header(self, array: str) -> _Header:
        """Shape and type of an array, without reading it."""
        with (
            damage_is_told(str(self.path), AGAIN),
            open_to_read(self.files()[0]) as whole,
            zipfile.ZipFile(whole) as archive,
        ):
            name = f"{array}.npy"
            if name not in archive.namelist():
                raise self._wrong(f"has no {array}")
            with archive.open(name) as file:
                version = npy.read_magic(file)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(file)
            claimed = math.prod(shape) * dtype.itemsize
            if claimed > archive.getinfo(name).file_size:
                raise ValueError(f"{array} claims {claimed:,} bytes that are not there")
        return _Header(shape, dtype)

    def _array(self, array: str) -> NDArray[Any]:
        self._header(array)
        with (
            damage_is_told(str(self.path), AGAIN),
            open_to_read(self.files()[0]) as whole,
            np.load(whole, allow_pickle=False) as archive,
        ):
            return np.asarray(archive[array])

    def _wrong(self, found: str) -> LtrayError:
        return LtrayError(str(self.path), f"{found}; {EXPECTED}", "write the file again like that")
