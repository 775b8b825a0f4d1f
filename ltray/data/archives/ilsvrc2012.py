"""ILSVRC2012 (ImageNet, tasks 1 and 2) as its organisers hand it out: tar archives and a devkit.

The archive of train is a tar of one tar per synset (WNID); those of val and test are flat.
"""

import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, ClassVar

from ltray.data.archives.source import UNKNOWN, Examples, Geometry, Image, Index, IndexBuilder
from ltray.data.archives.tar import is_tar, members, whole_file, why_not_taken
from ltray.errors import LtrayError

TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
TEST = "ILSVRC2012_img_test_v10102019.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
ARCHIVES = (TRAIN, VAL, TEST)  # an example's first place is its archive's number here
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


@dataclass(frozen=True)
class Devkit:
    """What the devkit says of labels.

    Args:
        wnids: of the leaf synsets, sorted: a label is a rank here.
        words: what each of them shows.
        val_labels: of val images 1, 2, 3, ...
    """

    wnids: tuple[str, ...]
    words: tuple[str, ...]
    val_labels: tuple[int, ...]


@dataclass(frozen=True)
class Ilsvrc2012:
    """The folder with the organisers' archives, which are never unpacked."""

    path: Path
    name: ClassVar[str] = "ilsvrc2012"

    def files(self) -> list[Path]:
        missing = [name for name in (TRAIN, DEVKIT) if not (self.path / name).is_file()]
        if missing:
            raise LtrayError(
                "data.path",
                f"{self.path} lacks {' and '.join(missing)}; expected {TRAIN} and {DEVKIT}, and"
                f" {VAL} and {TEST} where val and test are wanted",
                "download them from the ImageNet site, which needs an account there, and leave"
                " them packed",
            )
        return sorted(path for name in (*ARCHIVES, DEVKIT) if (path := self.path / name).is_file())

    def geometry(self) -> Geometry:
        return Geometry(None, 3)

    def index(self) -> Index:
        self.files()
        devkit = read_devkit(self.path / DEVKIT)
        builder = IndexBuilder()
        train, val, test = (self.path / name for name in ARCHIVES)
        with train.open("rb") as file:
            _index_train(file, train, devkit, builder)
        if val.is_file():
            with val.open("rb") as file:
                _index_val(file, val, devkit, builder)
        if test.is_file():
            with test.open("rb") as file:
                _index_test(file, test, builder)
        return builder.index()

    def class_names(self) -> list[str]:
        devkit = read_devkit(self.path / DEVKIT)
        return [f"{w} {words}" for w, words in zip(devkit.wnids, devkit.words, strict=True)]

    def read(self, examples: Examples) -> Iterator[Image]:
        with ExitStack() as stack:
            files: dict[int, BinaryIO] = {}
            for number, offset, size in examples.places.tolist():
                if number not in files:
                    path = self.path / ARCHIVES[number]
                    files[number] = stack.enter_context(path.open("rb"))
                files[number].seek(offset)
                content = files[number].read(size)
                if len(content) != size:
                    raise LtrayError(
                        str(self.path / ARCHIVES[number]),
                        f"ends before byte {offset + size}: it changed since it was indexed",
                        "prepare again when the archive is whole",
                    )
                yield content


def read_devkit(path: Path) -> Devkit:
    """Synsets and labels of val.

    Raises:
        LtrayError: the devkit is damaged, or not this one.
    """
    try:
        with tarfile.open(path, "r:gz") as archive:
            meta = _file_of(archive, "data/meta.mat")
            ground_truth = _file_of(archive, "data/ILSVRC2012_validation_ground_truth.txt")
            return _devkit(meta, ground_truth)
    except (tarfile.TarError, OSError, EOFError, zlib.error, KeyError, ValueError) as error:
        raise LtrayError(
            str(path),
            f"is not the whole development kit of tasks 1 and 2: {error}",
            "compare its checksum with the published one, and fetch it again",
        ) from error


def _index_train(file: BinaryIO, path: Path, devkit: Devkit, builder: IndexBuilder) -> None:
    labels = {wnid: label for label, wnid in enumerate(devkit.wnids)}
    for outer in _inputs(whole_file(file, path), "", builder):
        start, end = outer.offset_data, outer.offset_data + outer.size
        if not is_tar(file, start, end):
            builder.refuse(outer.name, "no tar archive with images of one class in it")
            continue
        wnid = PurePosixPath(outer.name).stem
        inner = members(file, f"{path}: {outer.name}", start, end)
        for member in _inputs(inner, f"{outer.name}/", builder):
            key = f"{outer.name}/{member.name}"
            if wnid in labels:
                place = (ARCHIVES.index(TRAIN), member.offset_data, member.size)
                builder.take("train", key, labels[wnid], place)
            else:
                builder.refuse(key, f"{wnid} is no leaf synset of the devkit")


def _index_val(file: BinaryIO, path: Path, devkit: Devkit, builder: IndexBuilder) -> None:
    for member in _inputs(whole_file(file, path), "", builder):
        match = VAL_NAME.fullmatch(PurePosixPath(member.name).name)
        number = int(match[1]) if match else 0
        if 1 <= number <= len(devkit.val_labels):
            place = (ARCHIVES.index(VAL), member.offset_data, member.size)
            builder.take("val", member.name, devkit.val_labels[number - 1], place)
        else:
            builder.refuse(member.name, "the devkit has no ground truth for a file of this name")


def _index_test(file: BinaryIO, path: Path, builder: IndexBuilder) -> None:
    for member in _inputs(whole_file(file, path), "", builder):
        place = (ARCHIVES.index(TEST), member.offset_data, member.size)
        builder.take("test", member.name, UNKNOWN, place)


def _inputs(
    found: Iterator[tarfile.TarInfo], prefix: str, builder: IndexBuilder
) -> Iterator[tarfile.TarInfo]:
    """The plain files among an archive's members; what is neither file nor folder is refused."""
    for member in found:
        if member.isdir():
            continue
        reason = why_not_taken(member)
        if reason:
            builder.refuse(prefix + member.name, reason)
        else:
            yield member


def _file_of(archive: tarfile.TarFile, ending: str) -> bytes:
    for member in archive:
        if member.isreg() and member.name.endswith(ending):
            file = archive.extractfile(member)
            assert file is not None, "a plain file has content"
            return bytes(file.read())
    raise ValueError(f"it has no {ending}")


def _devkit(meta: bytes, ground_truth: bytes) -> Devkit:
    from scipy.io import loadmat

    synsets = loadmat(BytesIO(meta), squeeze_me=True)["synsets"]
    leaves = sorted(
        (str(synset["WNID"]), str(synset["words"]), int(synset["ILSVRC2012_ID"]))
        for synset in synsets
        if synset["num_children"] == 0
    )
    label_of_id = {number: label for label, (_, _, number) in enumerate(leaves)}
    return Devkit(
        wnids=tuple(wnid for wnid, _, _ in leaves),
        words=tuple(words for _, words, _ in leaves),
        val_labels=tuple(label_of_id[int(number)] for number in ground_truth.split()),
    )
