"""Sources as nobody should hand them out: every input ends in a part, the quarantine, or one error.

What is never to happen: another exception, an input that is in neither, a file outside the folder
of the shards, memory that grows with what a file claims.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import WNIDS, png, release, source
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ltray.data.archives.ilsvrc2012 import TASKS_1_AND_2, read_devkit
from ltray.data.archives.index import index_of
from ltray.data.archives.tar import BLOCK
from ltray.data.decode import Unreadable
from ltray.data.manifest import write_manifest
from ltray.data.pixels import Pixels, from_stored, to_stored
from ltray.data.shards import plan, write_part
from ltray.data.verify import verify
from ltray.errors import LtrayError
from ltray.layout import DataFolder

pytestmark = pytest.mark.long

PIXELS = Pixels(image_size=8, resize="crop", encoding="raw", channels=3)
MORE_MEMORY_MIB = 300
many = settings(max_examples=150, suppress_health_check=list(HealthCheck))

KINDS = [tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE]
FORMATS = [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
NAMES = st.one_of(
    st.sampled_from(
        [
            "a.JPEG",
            "../../outside.JPEG",
            "/tmp/absolute.JPEG",
            "ILSVRC2012_val_00000001.JPEG",
            "folder/0.png",
            "0.cls",
            "0.png",
            "0.json",
            "l" * 180 + ".JPEG",
            "é.JPEG",
            ".",
            "..",
        ]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
)
CONTENTS = st.one_of(
    st.sampled_from([png(3), png(9, side=11), png(5)[:-30], b"", b"2", b"7"]),
    st.binary(max_size=700),
)


@st.composite
def members(draw: st.DrawFn) -> list[tuple[tarfile.TarInfo, bytes]]:
    made = []
    for name, content, kind in draw(
        st.lists(
            st.tuples(NAMES, CONTENTS, st.sampled_from([tarfile.REGTYPE] * 4 + KINDS)), max_size=6
        )
    ):
        member = tarfile.TarInfo(name)
        member.type = kind
        member.linkname = "../a.JPEG" if kind in (tarfile.LNKTYPE, tarfile.SYMTYPE) else ""
        member.size = len(content) if kind == tarfile.REGTYPE else 0
        made.append((member, content))
    return made


def tar_of(found: list[tuple[tarfile.TarInfo, bytes]], form: int) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as archive:
        for member, content in found:
            archive.addfile(member, BytesIO(content) if member.isreg() else None)
    return file.getvalue()


@st.composite
def flat_tars(draw: st.DrawFn) -> bytes:
    return tar_of(draw(members()), draw(st.sampled_from(FORMATS)))


@st.composite
def nested_tars(draw: st.DrawFn) -> bytes:
    """A train archive: tars of synsets in any order, and whatever else lies beside them."""
    inside = draw(members())
    for wnid in draw(st.lists(st.sampled_from([*WNIDS, "n99999999"]), min_size=1, max_size=4)):
        content = draw(st.one_of(flat_tars(), flat_tars(), nested_once(), CONTENTS))
        member = tarfile.TarInfo(f"{wnid}.tar")
        member.size = len(content)
        inside.append((member, content))
    return tar_of(draw(st.permutations(inside)), draw(st.sampled_from(FORMATS)))


@st.composite
def nested_once(draw: st.DrawFn) -> bytes:
    """A tar whose one member is a tar."""
    content = draw(flat_tars())
    member = tarfile.TarInfo("deeper.tar")
    member.size = len(content)
    return tar_of([(member, content)], tarfile.GNU_FORMAT)


def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Bytes that were cut, flipped, or put into another order."""
    found = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        if len(found) < BLOCK:
            break
        at = draw(st.integers(0, len(found) - 1))
        match draw(st.integers(0, 4)):
            case 0:
                del found[at:]
            case 1:
                found[at] ^= draw(st.integers(1, 255))
            case 2:
                first = at // BLOCK * BLOCK
                block = found[first : first + BLOCK]
                del found[first : first + BLOCK]
                there = draw(st.integers(0, len(found) // BLOCK)) * BLOCK
                found[there:there] = block
            case 3:
                first = at // BLOCK * BLOCK
                found[first:first] = found[first : first + BLOCK]
            case _:
                _lie(draw, found)
    return bytes(found)


def _lie(draw: st.DrawFn, found: bytearray) -> None:
    """Have a header say another size or kind, with a checksum that fits."""
    headers = [
        first
        for first in range(0, len(found) - BLOCK + 1, BLOCK)
        if found[first + 257 : first + 262] == b"ustar"
    ]
    if not headers:
        return
    first = draw(st.sampled_from(headers))
    header = found[first : first + BLOCK]
    if draw(st.booleans()):
        size = draw(st.sampled_from([0, 1, 511, 513, 10**6, 8**11 - 1, 2**62, 2**80, -1, -(2**62)]))
        if 0 <= size < 8**11:
            header[124:136] = b"%011o\0" % size
        else:
            header[124:136] = bytes([255 if size < 0 else 128]) + (size % 2**88).to_bytes(11)
    else:
        header[156:157] = draw(st.sampled_from([b"%c" % kind for kind in b"01234567xgLKSDVNAX\0Z"]))
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    found[first : first + BLOCK] = header


@st.composite
def damaged_tars(draw: st.DrawFn, tars: st.SearchStrategy[bytes]) -> bytes:
    return damaged(draw, draw(tars))


@st.composite
def damaged_files(draw: st.DrawFn, whole: bytes) -> bytes:
    return damaged(draw, whole)


@pytest.fixture(scope="module")
def devkit(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = release(tmp_path_factory.mktemp("release"), [], val=3)
    return (folder / TASKS_1_AND_2.devkit).read_bytes()


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    to_stored(png(1, side=9), PIXELS)  # imports what decoding and scaling need
    before = reset_peak()
    yield
    assert peak_mib() < before + MORE_MEMORY_MIB


def reset_peak() -> float:
    """Begin to measure anew; MiB that are in memory now."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_mib()


def peak_mib() -> float:
    """The most that was in memory."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def check(name: str, write: Callable[[Path], Path]) -> int | None:
    """Prepare from what `write` puts in a folder; how many inputs it had, None if refused whole."""
    with TemporaryDirectory() as text:
        given_folder, folder = Path(text) / "given", DataFolder(Path(text) / "root" / "data")
        given_folder.mkdir()
        opened = source(name, write(given_folder), folder.path.parent / "scratch")
        before = sorted(Path(text).rglob("*"))
        try:
            opened.geometry()
            planned = plan(opened, PIXELS)
            records = [write_part(part, opened, PIXELS, folder) for part in planned.parts]
            write_manifest(folder, planned, records, "of a test", seconds=1.0)
        except LtrayError:
            return None
        inputs = sum(len(part.examples.keys) for part in planned.parts)
        assert inputs == sum(record.rows + len(record.quarantined) for record in records)
        assert verify(folder) == []
        outside = [p for p in Path(text).rglob("*") if not p.is_relative_to(folder.path.parent)]
        assert sorted(outside) == before
        return inputs + len(planned.refused)


def write_release(folder: Path, devkit: bytes, train: bytes, val: bytes | None = None) -> Path:
    (folder / TASKS_1_AND_2.devkit).write_bytes(devkit)
    (folder / TASKS_1_AND_2.train).write_bytes(train)
    if val is not None:
        (folder / TASKS_1_AND_2.archives[1]).write_bytes(val)
    return folder


def write_file(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder / name


@many
@given(train=damaged_tars(nested_tars()), val=st.none() | damaged_tars(flat_tars()))
def test_damaged_releases(devkit: bytes, train: bytes, val: bytes | None) -> None:
    check("ilsvrc2012", lambda folder: write_release(folder, devkit, train, val))


@many
@given(train=nested_tars(), val=st.none() | flat_tars())
def test_every_member_of_a_strange_release_is_accounted_for(
    devkit: bytes, train: bytes, val: bytes | None
) -> None:
    counted = check("ilsvrc2012", lambda folder: write_release(folder, devkit, train, val))
    if counted is not None:
        assert counted == inputs_of(train, nested=True) + (inputs_of(val) if val else 0)


def inputs_of(content: bytes, nested: bool = False) -> int:
    """Members that are no folder; those inside for a member that is a tar with some."""
    count = 0
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        for member in archive:
            if member.isdir():
                continue
            file = archive.extractfile(member) if member.isreg() else None
            inner = file.read() if file else b""
            starts_as_tar = inner[257:262] == b"ustar"
            count += inputs_of(inner) if nested and starts_as_tar else 1
    return count


@many
@given(data=st.data())
def test_a_damaged_devkit_is_the_same_or_refused(devkit: bytes, data: st.DataObject) -> None:
    content = bytearray(devkit)
    at = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[at] ^= data.draw(st.integers(1, 255))
    else:
        del content[at:]
    with TemporaryDirectory() as text:
        folder = write_release(Path(text), devkit, b"")
        whole = source("ilsvrc2012", folder).class_names()
        write_release(folder, bytes(content), b"")
        read_devkit.cache_clear()
        with suppress(LtrayError):
            assert source("ilsvrc2012", folder).class_names() == whole


@many
@given(content=damaged_tars(flat_tars()))
def test_damaged_webdataset_tars(content: bytes) -> None:
    check("webdataset", lambda folder: write_file(folder, "some.tar", content))


def parquet_file() -> bytes:
    file = BytesIO()
    images = [png(n, side=8) for n in range(20)]
    table = pa.table({"image": images, "label": [n % 3 for n in range(20)]})
    pq.write_table(table, file, row_group_size=7, compression="snappy")
    return file.getvalue()


@many
@given(content=damaged_files(parquet_file()))
def test_damaged_parquet_files(content: bytes) -> None:
    counted = check("parquet", lambda folder: write_file(folder, "some.parquet", content))
    if counted is not None:
        assert counted == pq.read_metadata(BytesIO(content)).num_rows


def npz_file() -> bytes:
    file = BytesIO()
    images = np.arange(20 * 192, dtype=np.uint8).reshape(20, 8, 8, 3)
    labels = np.arange(20) % 3
    np.savez_compressed(file, x_train=images, y_train=labels, x_test=images, y_test=labels)
    return file.getvalue()


@many
@given(content=damaged_files(npz_file()))
def test_damaged_npz_files(content: bytes) -> None:
    counted = check("npz", lambda folder: write_file(folder, "some.npz", content))
    assert counted in (None, 40), "a zip archive has checksums"


@many
@given(names=st.lists(NAMES.filter(lambda name: "/" not in name), max_size=5), content=CONTENTS)
def test_strange_image_folders(names: list[str], content: bytes) -> None:
    possible = {name for name in names if name not in ("", ".", "..") and len(name.encode()) < 200}

    def write(folder: Path) -> Path:
        for label in ("one", "two"):
            (folder / label).mkdir()
            for name in possible:
                (folder / label / name).write_bytes(content)
            (folder / label / "link.png").symlink_to("/dev/null")
            (folder / label / "broken.png").symlink_to("nowhere")
        return folder

    counted = check("image_folder", write)
    if counted is not None:
        assert counted == 2 * len(possible | {"link.png", "broken.png"})


def test_a_header_that_claims_gigabytes_is_not_read_into_memory(
    devkit: bytes, tmp_path: Path
) -> None:
    member = tarfile.TarInfo("a")
    member.type, member.size = tarfile.XHDTYPE, 6 << 30
    before = reset_peak()
    for kind in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME):
        member.type = kind
        write_release(tmp_path, devkit, member.tobuf(tarfile.GNU_FORMAT))
        with (tmp_path / TASKS_1_AND_2.train).open("r+b") as file:
            file.truncate(8 << 30)  # holds no bytes on the disk
        with pytest.raises(LtrayError, match="damaged"):
            index_of(source("ilsvrc2012", tmp_path))
    assert peak_mib() < before + 100


def test_a_member_too_large_for_an_image_is_refused_unread(devkit: bytes, tmp_path: Path) -> None:
    inner = tarfile.TarInfo("large.JPEG")
    inner.size = 6 << 30
    outer = tarfile.TarInfo(f"{WNIDS[0]}.tar")
    small = tar_of([(tarfile.TarInfo("small.JPEG"), b"")], tarfile.GNU_FORMAT)[:BLOCK]
    outer.size = 3 * BLOCK + inner.size + 2 * BLOCK
    begin = outer.tobuf() + small + inner.tobuf()
    write_release(tmp_path, devkit, begin)
    with (tmp_path / TASKS_1_AND_2.train).open("r+b") as file:
        file.truncate(BLOCK + outer.size + 2 * BLOCK)
    before = reset_peak()
    index = index_of(source("ilsvrc2012", tmp_path))
    assert [one.reason for one in index.refused] == ["6,442,450,944 bytes, too large for an image"]
    assert peak_mib() < before + 100


def test_a_devkit_that_swells_is_refused(devkit: bytes, tmp_path: Path) -> None:
    import gzip

    plain = tarfile.TarInfo("ILSVRC2012_devkit_t12/data/meta.mat")
    plain.size = 1 << 30
    with gzip.open(tmp_path / TASKS_1_AND_2.devkit, "wb", compresslevel=1) as file:
        file.write(plain.tobuf())
        for _ in range(1024):
            file.write(bytes(1 << 20))
    (tmp_path / TASKS_1_AND_2.train).write_bytes(tar_of([], tarfile.GNU_FORMAT))
    before = reset_peak()
    with pytest.raises(LtrayError, match="not the whole development kit"):
        source("ilsvrc2012", tmp_path).class_names()
    assert peak_mib() < before + 100


def test_a_row_group_is_not_read_into_memory(tmp_path: Path) -> None:
    rows = pa.table({"image": [bytes(1 << 18)] * 1600, "label": [0] * 1600})
    path = tmp_path / "one.parquet"
    pq.write_table(rows, path, write_batch_size=8, use_dictionary=False, compression="none")
    assert pq.read_metadata(path).num_row_groups == 1
    del rows
    pa.default_memory_pool().release_unused()
    before = reset_peak()
    index_of(source("parquet", path, tmp_path / "scratch"))
    assert peak_mib() < before + 300


def test_an_npz_array_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**6, 100, 100, 3)}
    )
    labels = BytesIO()
    np.save(labels, np.zeros(10**6, dtype=np.int64))
    with zipfile.ZipFile(tmp_path / "some.npz", "w") as archive:
        for split in ("train", "test"):
            archive.writestr(f"x_{split}.npy", header.getvalue())
            archive.writestr(f"y_{split}.npy", labels.getvalue())
    before = reset_peak()
    with pytest.raises(LtrayError, match="not there"):
        index_of(source("npz", tmp_path / "some.npz"))
    assert peak_mib() < before + 100


def encoded(form: str, mode: str) -> bytes:
    file = BytesIO()
    picture = Image.effect_noise((40, 30), 60).convert(mode)
    picture.save(file, form)
    return file.getvalue()


FILES = [
    encoded(form, mode)
    for form, mode in [
        ("JPEG", "RGB"),
        ("JPEG", "L"),
        ("JPEG", "CMYK"),
        ("PNG", "RGB"),
        ("PNG", "I;16"),
        ("GIF", "P"),
        ("TIFF", "RGB"),
        ("BMP", "RGB"),
        ("WEBP", "RGB"),
        ("PPM", "RGB"),
    ]
]


@many
@given(data=st.data(), whole=st.sampled_from(FILES))
def test_damaged_images_are_decoded_or_unreadable(data: st.DataObject, whole: bytes) -> None:
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] ^= data.draw(st.integers(1, 255))
        else:
            del content[at + 1 :]
    with suppress(Unreadable):
        stored = to_stored(bytes(content), PIXELS)
        assert from_stored(stored.image, PIXELS).shape == (8, 8, 3)
