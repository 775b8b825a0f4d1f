"""An ILSVRC2012 release of any size, made by repeating the images of a smaller one."""

import shutil
import tarfile
from io import BytesIO
from pathlib import Path

TRAIN = "ILSVRC2012_img_train.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"


def repeated(release: Path, images: int, folder: Path) -> Path:
    """Write a release with `images` train images in `folder`, unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{images}-images"
    if not done.exists():
        shutil.copy(release / DEVKIT, folder / DEVKIT)
        _repeat(release / TRAIN, images, folder / TRAIN)
        done.touch()
    return folder


def _repeat(source: Path, images: int, target: Path) -> None:
    synsets = _synsets(source)
    times = -(-images // sum(map(len, synsets.values())))
    left = images
    with tarfile.open(target, "w") as outer:
        for name, members in synsets.items():
            inner = BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as archive:
                for turn in range(times):
                    for member, content in members.items():
                        if left:
                            left -= 1
                            stem, dot, ending = member.rpartition(".")
                            _add(archive, f"{stem}_{turn}{dot}{ending}", content)
            _add(outer, name, inner.getvalue())


def _synsets(source: Path) -> dict[str, dict[str, bytes]]:
    found: dict[str, dict[str, bytes]] = {}
    with tarfile.open(source) as outer:
        for synset in outer:
            with tarfile.open(fileobj=outer.extractfile(synset)) as inner:
                found[synset.name] = {
                    member.name: file.read()
                    for member in inner
                    if (file := inner.extractfile(member)) is not None
                }
    return found


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, BytesIO(content))
