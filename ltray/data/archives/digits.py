"""The handwritten digits that come with scikit-learn: 1,797 grey images of 8 x 8 pixels.

Source: E. Alpaydin and C. Kaynak 1998, Optical Recognition of Handwritten Digits, UCI.
"""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ltray.data.archives.source import Examples, Finds, Found, Geometry, Image, Section
from ltray.errors import LtrayError

SIDE = 8
MAX_VALUE = 16


@dataclass(frozen=True)
class Digits:
    """scikit-learn's own file, read without importing scikit-learn."""

    name: ClassVar[str] = "digits"

    def files(self) -> list[Path]:
        spec = find_spec("sklearn")
        folders = spec.submodule_search_locations if spec else None
        paths = [Path(folder) / "datasets/data/digits.csv.gz" for folder in folders or []]
        there = [path for path in paths if path.is_file()]
        if not there:
            raise LtrayError(
                "data.source",
                "digits needs the file digits.csv.gz of scikit-learn, which is not installed here",
                "pip install scikit-learn",
            )
        return there[:1]

    def geometry(self) -> Geometry:
        return Geometry(SIDE, 1)

    def sections(self) -> list[Section]:
        return [Section(self.name)]

    def look_through(self, _section: Section, /) -> Found:
        finds = Finds()
        for row, label in enumerate(self._table()[:, -1].tolist()):
            finds.take("train", f"digits.csv.gz/{row:05d}", int(label), (row,))
        return finds.found()

    def class_names(self) -> list[str]:
        return [str(digit) for digit in range(10)]

    def read(self, examples: Examples) -> Iterator[Image]:
        values = self._table()[:, :-1].reshape(-1, SIDE, SIDE)
        images = np.rint(values * 255 / MAX_VALUE).astype(np.uint8)
        for row in examples.places[:, 0].tolist():
            yield images[row]

    def _table(self) -> NDArray[np.float64]:
        """Float [1797, 65]: 64 values from 0 to 16 row by row, then the label."""
        with gzip.open(self.files()[0], "rt") as lines:
            return np.loadtxt(lines, delimiter=",")
