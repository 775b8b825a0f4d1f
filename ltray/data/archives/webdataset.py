"""WebDataset tars: an example is the neighbouring members of one name and other endings.

Source: the WebDataset format, as its documentation describes it (keys end at the first dot).
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar

from ltray.data.archives.ranges import Range, read_ranges
from ltray.data.archives.source import (
    MAX_CLASSES,
    Examples,
    Finds,
    Found,
    Geometry,
    Image,
    Section,
    split_by_name,
)
from ltray.data.archives.tar import whole_file, why_no_image
from ltray.data.decode import Unreadable, header_of
from ltray.errors import LtrayError
from ltray.files import open_to_read, read_range

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "ppm", "bmp", "gif", "tif", "tiff")
LABEL_ENDING = "cls"
CLASS_NAMES = "classnames.txt"
MAX_LABEL_BYTES = 32


@dataclass
class _Sample:
    """Members of one key; `label` is None until one says it."""

    key: str
    image: tarfile.TarInfo | None = None
    label: int | None = None
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class WebDataset:
    """One tar, or every *.tar below a folder; classnames.txt beside them may name the classes.

    A sample needs an image and a .cls with its label as a decimal number. A tar's split is the
    word train, val (validation) or test in its name or folder, train where it has none. An example
    lies at (number of the tar, first byte, bytes).
    """

    path: Path
    name: ClassVar[str] = "webdataset"

    def files(self) -> list[Path]:
        tars = [self.path] if self.path.is_file() else sorted(self.path.rglob("*.tar"))
        if not tars:
            raise LtrayError(
                "data.path", f"there is no tar at {self.path}", "write a tar, or a folder of tars"
            )
        names = self.path / CLASS_NAMES
        return [*tars, names] if self.path.is_dir() and names.is_file() else tars

    def geometry(self) -> Geometry:
        for path in self._tars():
            with open_to_read(path) as file:
                for sample in _samples(file, path):
                    if sample.image is None:
                        continue
                    start, size = sample.image.offset_data, sample.image.size
                    try:
                        header = header_of(read_range(path, start, size))
                    except Unreadable:
                        continue
                    alike = header.width == header.height
                    return Geometry(header.width if alike else None, header.channels)
        raise LtrayError("data.path", f"{self.path} holds no image", "write .jpg and .cls members")

    def sections(self) -> list[Section]:
        return [Section(self._shown(path), (n,)) for n, path in enumerate(self._tars())]

    def look_through(self, section: Section, /) -> Found:
        (number,) = section.place
        path = self._tars()[number]
        finds = Finds()
        split = split_by_name(section.name)
        with open_to_read(path) as file:
            for sample in _samples(file, path):
                key = f"{section.name}/{sample.key}"
                if sample.faults:
                    finds.refuse(key, "; ".join(sample.faults))
                elif sample.image is None:
                    finds.refuse(key, f"no image; expected one of .{', .'.join(IMAGE_ENDINGS)}")
                elif sample.label is None:
                    finds.refuse(key, f"no label; expected .{LABEL_ENDING}")
                else:
                    place = (number, sample.image.offset_data, sample.image.size)
                    finds.take(split, key, sample.label, place)
        return finds.found()

    def class_names(self) -> list[str]:
        names = self.path / CLASS_NAMES
        if self.path.is_file() or not names.is_file():
            return []
        return names.read_text().splitlines()

    def read(self, examples: Examples) -> Iterator[Image]:
        tars = self._tars()
        return read_ranges(
            Range(tars[number], start, size) for number, start, size in examples.places.tolist()
        )

    def _tars(self) -> list[Path]:
        return [path for path in self.files() if path.name != CLASS_NAMES]

    def _shown(self, path: Path) -> str:
        return path.name if path == self.path else path.relative_to(self.path).as_posix()


def _samples(file: BinaryIO, path: Path) -> Iterator[_Sample]:
    """The samples of a tar, each as far as its members lie side by side."""
    sample = _Sample("")
    for member in whole_file(file, path):
        if member.isdir():
            continue
        key, ending = _split_name(member.name)
        if key != sample.key:
            if sample.key:
                yield sample
            sample = _Sample(key)
        _add(sample, member, ending, file)
    if sample.key:
        yield sample


def _add(sample: _Sample, member: tarfile.TarInfo, ending: str, file: BinaryIO) -> None:
    reason = why_no_image(member)
    if reason:
        sample.faults.append(f".{ending}: {reason}")
    elif ending == LABEL_ENDING:
        file.seek(member.offset_data)
        text = file.read(min(member.size, MAX_LABEL_BYTES)).strip()
        if text.isdigit() and int(text) < MAX_CLASSES and sample.label is None:
            sample.label = int(text)
        else:
            sample.faults.append(f".{ending} is {text!r}; expected one class number from 0")
    elif ending in IMAGE_ENDINGS:
        if sample.image is not None:
            sample.faults.append("more than one image")
        sample.image = member


def _split_name(name: str) -> tuple[str, str]:
    """Key and ending of a member: a key goes up to the first dot of the last part of its name."""
    path = PurePosixPath(name)
    stem, _, ending = path.name.partition(".")
    return str(path.with_name(stem)) if stem else name, ending.lower()
