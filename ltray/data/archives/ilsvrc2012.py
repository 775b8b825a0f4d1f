"""ILSVRC2012 (ImageNet) as its organisers hand it out: tar archives and a devkit.

The archive of train is a tar of one tar per synset (WNID); those of val and test are flat. Tasks
1 and 2 (1000 synsets) share all files; task 3 (dogs) has train images and a devkit of its own.
"""

import gzip
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from ltray.data.archives.published import size_remark
from ltray.data.archives.ranges import Range, read_ranges
from ltray.data.archives.source import (
    BROKEN_BYTES,
    UNKNOWN,
    Examples,
    Finds,
    Found,
    Geometry,
    Image,
    Section,
)
from ltray.data.archives.tar import is_tar, members, whole_file, why_no_image, why_not_taken
from ltray.errors import LtrayError
from ltray.files import open_to_read

MAX_DEVKIT_BYTES = 64 * 1024 * 1024  # unpacked
META = "data/meta.mat"
GROUND_TRUTH = "data/ILSVRC2012_validation_ground_truth.txt"
VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG")


class Release(NamedTuple):
    """The files of a task; an archive's number is its position in `archives`."""

    name: str
    archives: tuple[str, ...]
    devkit: str

    @property
    def train(self) -> str:
        return self.archives[0]


TASKS_1_AND_2 = Release(
    name="ilsvrc2012",
    archives=(
        "ILSVRC2012_img_train.tar",
        "ILSVRC2012_img_val.tar",
        "ILSVRC2012_img_test_v10102019.tar",
    ),
    devkit="ILSVRC2012_devkit_t12.tar.gz",
)
TASK_3 = Release(
    name="ilsvrc2012_t3",
    archives=("ILSVRC2012_img_train_t3.tar",),
    devkit="ILSVRC2012_devkit_t3.tar.gz",
)
TRAIN, VAL, TEST = range(3)


@dataclass(frozen=True)
class Devkit:
    """What the devkit says of labels.

    Args:
        wnids: of the leaf synsets, sorted: a label is a rank here.
        words: what each of them shows.
        val_labels: of val images 1, 2, 3, ...; empty where the devkit has no ground truth.
    """

    wnids: tuple[str, ...]
    words: tuple[str, ...]
    val_labels: tuple[int, ...]


@dataclass(frozen=True)
class Ilsvrc2012:
    """The folder with the organisers' archives, which are never unpacked.

    A section is one synset's tar inside the train archive, or all of val or test. An example lies
    at (number of its archive, first byte, bytes), and so does a section.
    """

    path: Path
    release: Release

    @property
    def name(self) -> str:
        return self.release.name

    def files(self) -> list[Path]:
        needed = (self.release.train, self.release.devkit)
        missing = [name for name in needed if not (self.path / name).is_file()]
        if missing:
            optional = " and ".join(self.release.archives[1:])
            where = f", and {optional} where val and test are wanted" if optional else ""
            raise LtrayError(
                "data.path",
                f"{self.path} lacks {' and '.join(missing)}; expected {' and '.join(needed)}"
                f"{where}",
                "download them from the ImageNet site, which needs an account there, and leave"
                " them packed",
            )
        names = (*self.release.archives, self.release.devkit)
        return sorted(path for name in names if (path := self.path / name).is_file())

    def geometry(self) -> Geometry:
        return Geometry(None, 3)

    def sections(self) -> list[Section]:
        self.files()
        sections = list(self._synsets())
        for number, name in enumerate(self.release.archives[1:], start=1):
            path = self.path / name
            if path.is_file():
                sections.append(Section(name, (number, 0, path.stat().st_size)))
        return sections

    def look_through(self, section: Section, /) -> Found:
        finds = Finds()
        if section.refused:
            finds.refuse(section.name, section.refused)
            return finds.found()
        archive = self._archive(section.place[0])
        with _partial_is_named(archive), open_to_read(archive) as file:
            match section.place[0]:
                case 0:  # TRAIN
                    self._look_through_synset(file, section, finds)
                case 1:
                    self._look_through_val(file, finds)
                case _:
                    self._look_through_test(file, finds)
        return finds.found()

    def class_names(self) -> list[str]:
        devkit = self._devkit()
        return [f"{w} {words}" for w, words in zip(devkit.wnids, devkit.words, strict=True)]

    def read(self, examples: Examples) -> Iterator[Image]:
        return read_ranges(
            Range(self._archive(number), start, size)
            for number, start, size in examples.places.tolist()
        )

    def _archive(self, number: int) -> Path:
        return self.path / self.release.archives[number]

    def _devkit(self) -> Devkit:
        return read_devkit(self.path / self.release.devkit, len(self.release.archives) > VAL)

    def _synsets(self) -> Iterator[Section]:
        """The tars inside the train archive."""
        archive = self._archive(TRAIN)
        with _partial_is_named(archive), open_to_read(archive) as file:
            for member in whole_file(file, archive):
                if member.isdir():
                    continue
                place = (TRAIN, member.offset_data, member.size)
                yield Section(member.name, place, why_not_taken(member) or "")

    def _look_through_synset(self, file: BinaryIO, section: Section, finds: Finds) -> None:
        _, start, size = section.place
        if not is_tar(file, start, start + size):
            finds.refuse(section.name, "no tar archive with images of one class in it")
            return
        wnid = PurePosixPath(section.name).stem
        label = _rank(self._devkit(), wnid)
        inner = members(file, f"{self._archive(TRAIN)}: {section.name}", start, start + size)
        for member in _inputs(inner, f"{section.name}/", finds):
            key = f"{section.name}/{member.name}"
            if label is None:
                finds.refuse(key, f"{wnid} is no leaf synset of the devkit")
            else:
                finds.take("train", key, label, (TRAIN, member.offset_data, member.size))

    def _look_through_val(self, file: BinaryIO, finds: Finds) -> None:
        labels = self._devkit().val_labels
        for member in _inputs(whole_file(file, self._archive(VAL)), "", finds):
            match = VAL_NAME.fullmatch(PurePosixPath(member.name).name)
            number = int(match[1]) if match else 0
            if 1 <= number <= len(labels):
                place = (VAL, member.offset_data, member.size)
                finds.take("val", member.name, labels[number - 1], place)
            else:
                finds.refuse(member.name, "the devkit has no ground truth for a file of this name")

    def _look_through_test(self, file: BinaryIO, finds: Finds) -> None:
        for member in _inputs(whole_file(file, self._archive(TEST)), "", finds):
            finds.take("test", member.name, UNKNOWN, (TEST, member.offset_data, member.size))


@lru_cache(maxsize=2)
def read_devkit(path: Path, ground_truth: bool) -> Devkit:
    """Synsets, and labels of val where the devkit is one with a ground truth.

    Raises:
        LtrayError: the devkit is damaged, or not this one.
    """
    try:
        with path.open("rb") as file, gzip.open(file) as unpacked:
            content = unpacked.read(MAX_DEVKIT_BYTES)
            if unpacked.read(1):  # the end is where gzip compares its checksum
                raise ValueError(f"it swells to more than {MAX_DEVKIT_BYTES:,} bytes")
        needed = (META, GROUND_TRUTH) if ground_truth else (META,)
        with tarfile.open(fileobj=BytesIO(content)) as archive:
            files = _files_of(archive, needed)
        return _devkit(files[META], files.get(GROUND_TRUTH, b""))
    except (gzip.BadGzipFile, tarfile.TarError, *BROKEN_BYTES) as error:
        raise LtrayError(
            str(path),
            f"is not the whole development kit: {error}",
            "compare its checksum with the published one, and fetch it again",
        ) from error


@contextmanager
def _partial_is_named(path: Path) -> Iterator[None]:
    """An archive that is cut short is told together with how large it was published."""
    try:
        yield
    except LtrayError as error:
        where, found, mend = error.args
        raise LtrayError(where, found + size_remark(path), mend) from error


def _rank(devkit: Devkit, wnid: str) -> int | None:
    return devkit.wnids.index(wnid) if wnid in devkit.wnids else None


def _inputs(
    found: Iterator[tarfile.TarInfo], prefix: str, finds: Finds
) -> Iterator[tarfile.TarInfo]:
    """The plain files among an archive's members; what is neither file nor folder is refused."""
    for member in found:
        if member.isdir():
            continue
        reason = why_no_image(member)
        if reason:
            finds.refuse(prefix + member.name, reason)
        else:
            yield member


def _files_of(archive: tarfile.TarFile, endings: tuple[str, ...]) -> dict[str, bytes]:
    """Ending of a name -> content of the member that is called so."""
    found = {}
    for member in archive:
        for ending in endings:
            if member.isreg() and member.name.endswith(ending):
                file = archive.extractfile(member)
                assert file is not None, "a plain file has content"
                found[ending] = bytes(file.read())
    missing = [ending for ending in endings if ending not in found]
    if missing:
        raise ValueError(f"it has no {missing[0]}")
    return found


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
