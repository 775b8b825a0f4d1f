"""Sources made on the spot."""

import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from ltray.data.archives.source import Examples, Source
from ltray.data.archives.sources import open_source
from ltray.experiment import Data

SHARED = Path(__file__).parents[2] / "shared" / "data"


def source(name: str, path: Path | str | None = None) -> Source:
    return open_source(Data(source=name, path=None if path is None else str(path)))


def png(value: int, side: int = 4) -> bytes:
    file = BytesIO()
    Image.new("RGB", (side, side), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def tar(path: Path, members: Iterable[tuple[str, bytes]]) -> bytes:
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    return path.read_bytes()


def read_all(opened: Source, examples: Examples) -> list[Any]:
    return list(opened.read(examples))
