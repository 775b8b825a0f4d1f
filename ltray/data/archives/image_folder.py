"""A folder of image files: [train|val|test/]class/file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ltray.data.archives.source import (
    SPLITS,
    Examples,
    Finds,
    Found,
    Geometry,
    Image,
    Section,
)
from ltray.data.decode import Unreadable, header_of, too_large
from ltray.errors import LtrayError


@dataclass(frozen=True)
class ImageFolder:
    """The first folder below the split names the class; deeper folders are a matter of taste.

    It has splits when it has a folder named train; then any other folder is none of its classes.
    """

    path: Path
    name: ClassVar[str] = "image_folder"

    def files(self) -> list[Path]:
        files = sorted(path for path in self._entries() if path.is_file())
        if not files:
            raise LtrayError("data.path", f"{self.path} holds no file", "put the images there")
        return files

    def geometry(self) -> Geometry:
        for path in self.files():
            if too_large(path.stat().st_size):
                continue
            try:
                header = header_of(path.read_bytes())
            except Unreadable:
                continue
            alike = header.width == header.height
            return Geometry(header.width if alike else None, header.channels)
        raise LtrayError("data.path", f"{self.path} holds no image", "put the images there")

    def sections(self) -> list[Section]:
        return [Section(self.name)]

    def look_through(self, _section: Section, /) -> Found:
        entries = sorted(self._entries())
        labels = {name: label for label, name in enumerate(self.class_names())}
        depth = 1 if self._has_splits() else 0
        finds = Finds()
        for path in entries:
            key = path.relative_to(self.path).as_posix()
            parts = key.split("/")
            split = parts[0] if depth else "train"
            reason = _why_not_taken(path, key, split, len(parts) - depth)
            if reason:
                finds.refuse(_printable(key), reason)
            else:
                finds.take(split, key, labels[parts[depth]], ())
        return finds.found()

    def class_names(self) -> list[str]:
        tops = [self.path / split for split in SPLITS] if self._has_splits() else [self.path]
        folders = [folder for top in tops if top.is_dir() for folder in top.iterdir()]
        return sorted({_printable(folder.name) for folder in folders if folder.is_dir()})

    def read(self, examples: Examples) -> Iterator[Image]:
        for key in examples.keys:
            yield (self.path / key).read_bytes()

    def _entries(self) -> Iterator[Path]:
        if not self.path.is_dir():
            raise LtrayError(
                "data.path",
                f"there is no folder {self.path}; expected [train|val|test/]class/file in it",
                "write the folder that holds the classes, or train, val and test",
            )
        return _walk(self.path, linked_folders=2 if self._has_splits() else 1)

    def _has_splits(self) -> bool:
        return (self.path / "train").is_dir()


def _walk(folder: Path, linked_folders: int) -> Iterator[Path]:
    """Everything below a folder that is no folder.

    Links to folders are followed for so many levels (splits and classes); deeper ones, which may
    run in circles, come as they are.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=linked_folders > 0):
                yield from _walk(folder / entry.name, max(0, linked_folders - 1))
            else:
                yield folder / entry.name


def _why_not_taken(path: Path, key: str, split: str, depth: int) -> str | None:
    if key != _printable(key):
        return "its name is not UTF-8"
    if split not in SPLITS:
        return "lies in none of the folders train, val and test"
    if depth < 2:
        return "lies in no class folder"
    if not path.is_file():
        return "not a file"
    return too_large(path.stat().st_size)


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")
