"""A classification data set of torchvision, by the name of its class, downloaded beforehand."""

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ltray.data.archives.source import (
    SPLITS,
    Examples,
    Finds,
    Found,
    Geometry,
    Image,
    Section,
    check_labels,
)
from ltray.data.decode import Unreadable, broken_is_unreadable, header_of
from ltray.errors import LtrayError, did_you_mean
from ltray.experiment import TORCHVISION_PREFIX

DataSet = Any  # torchvision's data sets share no type but "has a length and items"


@dataclass(frozen=True)
class TorchvisionDataset:
    """`torchvision.datasets.<dataset>` over files that are there; nothing is downloaded.

    Example n lies at (number of its split, number in that data set).
    """

    dataset: str
    path: Path

    @property
    def name(self) -> str:
        return TORCHVISION_PREFIX + self.dataset

    def files(self) -> list[Path]:
        check_name(self.dataset)
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        if not files:
            raise LtrayError(
                "data.path",
                f"there are no files at {self.path}; expected those of {self.name}",
                f"run torchvision.datasets.{self.dataset}(root, download=True) once, where it"
                " can download",
            )
        return files

    def geometry(self) -> Geometry:
        image = _pixels(self._open("train"), 0)
        if isinstance(image, Unreadable):
            raise self._wrong(f"has a first image that cannot be read: {image.reason}")
        header = header_of(image)
        alike = header.width == header.height
        return Geometry(header.width if alike else None, header.channels)

    def sections(self) -> list[Section]:
        return [Section(self.name)]

    def look_through(self, _section: Section, /) -> Found:
        finds = Finds()
        for split, data_set in self._splits().items():
            number = SPLITS.index(split)
            for row, label in enumerate(self._labels(split, data_set).tolist()):
                finds.take(split, f"{split}/{row:07d}", label, (number, row))
        return finds.found()

    def class_names(self) -> list[str]:
        return [str(name) for name in getattr(self._open("train"), "classes", ())]

    def read(self, examples: Examples) -> Iterator[Image]:
        numbers = np.unique(examples.places[:, 0]).tolist()
        sets = {number: self._open(SPLITS[number]) for number in numbers}
        for number, row in examples.places.tolist():
            yield _pixels(sets[number], row)

    def _splits(self) -> dict[str, DataSet]:
        """The splits that this data set has, opened."""
        opened = {split: self._open(split) for split in SPLITS}
        return {split: data_set for split, data_set in opened.items() if data_set is not None}

    def _open(self, split: str) -> DataSet | None:
        """One split, or None where the data set has no such split."""
        self.files()  # what is wrong is said before the seconds that importing torch takes
        from ltray.torchvision_import import import_torchvision

        make = getattr(import_torchvision().datasets, self.dataset)
        parameters = inspect.signature(make).parameters
        if "root" not in parameters:
            raise self._wrong("is not read from a folder of files")
        chosen = _chosen(split, list(parameters))
        if chosen is None:
            return None
        if "download" in parameters:
            chosen["download"] = False
        try:
            return make(root=self.path, **chosen)
        except ValueError as error:  # torchvision's word for a split that it does not know
            if split != "train":
                return None
            raise self._wrong(f"has no split train: {error}") from error
        except (RuntimeError, OSError) as error:
            raise self._wrong(f"cannot be opened at {self.path}: {error}") from error

    def _labels(self, split: str, data_set: DataSet) -> NDArray[np.int64]:
        named = (getattr(data_set, name, None) for name in ("targets", "labels", "_labels"))
        found = next((labels for labels in named if labels is not None), None)
        if found is None:
            found = [data_set[row][1] for row in range(len(data_set))]
        labels = np.asarray(found)
        if labels.dtype.kind not in "iu" or labels.shape != (len(data_set),):
            raise self._wrong(f"has no class numbers in split {split}, so it is no classification")
        check_labels(labels, self.name)
        return labels.astype(np.int64)

    def _wrong(self, problem: str) -> LtrayError:
        return LtrayError(
            self.name,
            f"torchvision.datasets.{self.dataset} {problem}",
            f"choose another data set, or run torchvision.datasets.{self.dataset}(root,"
            " download=True) once, where it can download",
        )


def check_name(dataset: str) -> None:
    """Refuse a name that torchvision does not have, without the seconds that importing it takes.

    Raises:
        LtrayError: there is no such data set.
    """
    spec = find_spec("torchvision")
    assert spec is not None, "torchvision is a dependency"
    assert spec.origin is not None, "torchvision is a package of files"
    listing = ast.parse((Path(spec.origin).parent / "datasets/__init__.py").read_text())
    names = [
        name
        for statement in listing.body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"
        for name in ast.literal_eval(statement.value)
    ]
    if dataset not in names:
        by_lower = {name.lower(): name for name in names}
        near = by_lower.get(dataset.lower())
        hint = f"; did you mean '{near}'?" if near else did_you_mean(dataset, names)
        raise LtrayError(
            "data.source",
            f"torchvision has no data set '{dataset}'{hint}",
            "see torchvision.datasets for the names",
        )


def _chosen(split: str, parameters: list[str]) -> dict[str, Any] | None:
    """How a data set is asked for a split, by its signature; None where it cannot have it."""
    if "train" in parameters:
        return None if split == "val" else {"train": split == "train"}
    if "split" in parameters:
        return {"split": split}
    return {} if split == "train" else None


def _pixels(data_set: DataSet, row: int) -> NDArray[np.uint8] | Unreadable:
    """One image as uint8 [H, W] or [H, W, 3]."""
    try:
        with broken_is_unreadable():
            picture = data_set[row][0]
            return np.asarray(picture if picture.mode in ("L", "RGB") else picture.convert("RGB"))
    except Unreadable as unreadable:
        return unreadable
