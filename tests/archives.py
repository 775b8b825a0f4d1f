"""Sources made on the spot."""

import gzip
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ltray.data.archives.ilsvrc2012 import TASKS_1_AND_2
from ltray.data.archives.source import Examples, Source
from ltray.data.archives.sources import open_source
from ltray.experiment import Data

SHARED = Path(__file__).parents[2] / "shared" / "data"


def source(name: str, path: Path | str | None = None, scratch: Path | None = None) -> Source:
    return open_source(Data(source=name, path=None if path is None else str(path)), scratch)


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


WNIDS = ("n00000001", "n00000002", "n00000003")


def release(path: Path, train: Iterable[tuple[str, bytes]], val: int = 0) -> Path:
    """A release of three synsets, whose ids run against their ranks."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("num_children", "O")]
    synsets = [(3 - n, wnid, f"words {n}", 0) for n, wnid in enumerate(WNIDS)]
    inner = [(4, "n00000000", "all of them", 3)]
    meta = BytesIO()
    savemat(meta, {"synsets": np.array(synsets + inner, dtype=kinds)})
    truth = "".join(f"{1 + n % 3}\n" for n in range(val)).encode()
    kit = "ILSVRC2012_devkit_t12/data/"
    plain = tar(
        path / "kit.tar",
        [
            (f"{kit}meta.mat", meta.getvalue()),
            (f"{kit}ILSVRC2012_validation_ground_truth.txt", truth),
        ],
    )
    (path / TASKS_1_AND_2.devkit).write_bytes(gzip.compress(plain))
    tar(path / TASKS_1_AND_2.train, train)
    return path


def synset(path: Path, *names: str) -> bytes:
    return tar(path / "inner.tar", [(name, png(len(name))) for name in names])
