"""What ILSVRC2012's organisers published: how large each archive is, and its MD5.

Source: the download page of the ImageNet site, and the sizes of whole copies.
"""

import hashlib
from pathlib import Path
from typing import NamedTuple

from ltray.errors import LtrayError


class Published(NamedTuple):
    """One archive as it was published; `bytes` is None where no whole copy told us."""

    md5: str
    bytes: int | None


PUBLISHED = {
    "ILSVRC2012_img_train.tar": Published("1d675b47d978889d74fa0da5fadfb00e", 147_897_477_120),
    "ILSVRC2012_img_train_t3.tar": Published("ccaf1013018ac1037801578038d370da", None),
    "ILSVRC2012_img_val.tar": Published("29b22e2961454d5413ddabcf34fc5622", 6_744_924_160),
    "ILSVRC2012_img_test_v10102019.tar": Published("e1b8681fff3d63731c599df9b4b6fc02", None),
    "ILSVRC2012_devkit_t12.tar.gz": Published("fa75699e90414af021442c21a62c3abf", None),
}


def size_remark(path: Path) -> str:
    """How much of a published archive `path` holds, in words; empty where that is not known."""
    published = PUBLISHED.get(path.name)
    if published is None or published.bytes is None:
        return ""
    size = path.stat().st_size
    if size == published.bytes:
        return ""
    return f"; it has {size:,} bytes, and {path.name} as published {published.bytes:,}"


def check_published(path: Path) -> str | None:
    """Compare a file with what was published under its name: its MD5, or None where none was.

    Raises:
        LtrayError: it is another file, or not all of it.
    """
    published = PUBLISHED.get(path.name)
    if published is None:
        return None
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != published.md5:
        raise LtrayError(
            str(path),
            f"has MD5 {found}; the published file has {published.md5}{size_remark(path)}",
            "fetch it again, or leave --checksums out where another file is meant to lie here",
        )
    return found
