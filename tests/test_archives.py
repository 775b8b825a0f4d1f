import gzip
import json
import os
import pickle
import struct
import tarfile
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from ltray.data.archives import ilsvrc2012
from ltray.data.archives.source import Examples, Index, Refused, Source
from ltray.data.archives.sources import open_source
from ltray.data.archives.tar import whole_file
from ltray.data.fingerprint import fingerprint, source_facts
from ltray.data.held_out import held_out
from ltray.data.pixels import Unreadable
from ltray.errors import LtrayError
from ltray.experiment import Data, exact_count

SHARED = Path(__file__).parents[2] / "shared" / "data"
MINI = SHARED / "ilsvrc2012-mini"
needs_mini = pytest.mark.skipif(not MINI.is_dir(), reason="shared/data/ilsvrc2012-mini is absent")
needs_mnist = pytest.mark.skipif(
    not (SHARED / "mnist.npz").is_file(), reason="shared/data/mnist.npz is absent"
)


def source(name: str, path: Path | None = None) -> Source:
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


# Holding out


classes_and_share = st.tuples(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.9]),
)


@given(classes_and_share)
def test_held_out_is_the_exact_count(given_: tuple[list[int], float]) -> None:
    labels, share = given_
    chosen = held_out([f"{n}.png" for n in range(len(labels))], np.array(labels), share, "test")
    assert chosen.sum() == exact_count(Decimal(str(share)), len(labels))


@given(classes_and_share)
def test_held_out_is_stratified_and_leaves_each_class_a_row(
    given_: tuple[list[int], float],
) -> None:
    labels, share = given_
    chosen = held_out([f"{n}.png" for n in range(len(labels))], np.array(labels), share, "test")
    sizes = Counter(labels)
    taken = Counter(np.array(labels)[chosen].tolist())
    could_leave_one = chosen.sum() <= len(labels) - len(sizes)
    for label, size in sizes.items():
        if could_leave_one:
            assert taken[label] < size
            if size > 2 * len(sizes):  # small classes pass what they cannot give on to large ones
                assert taken[label] >= int(size * share)


@given(classes_and_share, st.randoms(use_true_random=False))
def test_held_out_does_not_depend_on_the_order(
    given_: tuple[list[int], float], random: Any
) -> None:
    labels, share = given_
    rows = [(f"{n}.png", label) for n, label in enumerate(labels)]
    shuffled = random.sample(rows, len(rows))

    def chosen(of: list[tuple[str, int]]) -> set[str]:
        keys = [key for key, _ in of]
        is_chosen = held_out(keys, np.array([label for _, label in of]), share, "validation")
        return {keys[row] for row in np.flatnonzero(is_chosen)}

    assert chosen(rows) == chosen(shuffled)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # A tenth of 40 rows is 4: one of each class, and one more of the largest remainder.
        ([19, 11, 10], [2, 1, 1]),
        ([11, 19, 10], [1, 2, 1]),
        ([10, 11, 19], [1, 1, 2]),
        # A fifth of 6 is 1.2, and only the last class can give a row and keep one.
        ([1, 1, 1, 1, 2], [0, 0, 0, 0, 1]),
        # 0.25 of 10 is 2.5, which goes to the even 2.
        ([10], [2]),
    ],
)
def test_held_out_by_hand(sizes: list[int], expected: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    share = {40: 0.1, 6: 0.2, 10: 0.25}[len(labels)]
    chosen = held_out([str(row) for row in range(len(labels))], labels, share, "test")
    assert np.bincount(labels[chosen], minlength=len(sizes)).tolist() == expected


def test_purposes_choose_independently() -> None:
    keys, labels = [str(n) for n in range(1000)], np.zeros(1000, np.int32)
    test, validation = (held_out(keys, labels, 0.5, what) for what in ("test", "validation"))
    assert 200 < (test & validation).sum() < 300  # 250 +- 6 standard deviations


# Fingerprints


def test_fingerprint_knows_names_sizes_and_ends(tmp_path: Path) -> None:
    def of(**files: bytes) -> str:
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return fingerprint([tmp_path / name for name in files], tmp_path)

    middle = bytes(200_000)
    same = of(a=b"x" + middle, b=b"y")
    assert of(b=b"y", a=b"x" + middle) == same
    assert of(a=b"z" + middle, b=b"y") != same
    assert of(a=b"x" + middle[:-1] + b"!", b=b"y") != same
    assert of(a=b"x" + middle + b"\0", b=b"y") != same
    assert of(c=b"x" + middle, b=b"y") != same


def test_fingerprint_does_not_depend_on_where_the_source_lies(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "cat").mkdir(parents=True)
        (tmp_path / folder / "cat" / "1.png").write_bytes(png(1))
    facts = [
        source_facts(Data(source="image_folder", path=str(tmp_path / folder)))
        for folder in ("one", "two")
    ]
    assert facts[0] == facts[1]
    assert (facts[0].image_size, facts[0].channels) == (4, 3)


# Digits and arrays


def test_digits_are_those_of_the_uci() -> None:
    digits = source("digits")
    splits = digits.index().splits
    assert {split: len(of.keys) for split, of in splits.items()} == {"train": 1438, "test": 359}
    labels = np.concatenate([of.labels for of in splits.values()])
    # Per digit, as in the description that scikit-learn ships with the file.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    first = Examples(["any"], np.zeros(1, np.int32), np.zeros((1, 1), np.int64))
    (image,) = read_all(digits, first)
    # scikit-learn's documentation prints the first row of the first image: 0 0 5 13 9 1 0 0.
    assert image[0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]


def npz(path: Path, **arrays: NDArray[Any]) -> Path:
    usual = {
        "x_train": np.arange(3 * 4 * 4, dtype=np.uint8).reshape(3, 4, 4),
        "y_train": np.array([2, 0, 1]),
        "x_test": np.zeros((2, 4, 4), np.uint8),
        "y_test": np.array([1, 1], np.uint8),
    }
    np.savez_compressed(path, **{**usual, **arrays})  # type: ignore[arg-type]
    return path


def test_npz_gives_its_arrays(tmp_path: Path) -> None:
    opened = source("npz", npz(tmp_path / "a.npz"))
    train = opened.index().splits["train"]
    assert train.labels.tolist() == [2, 0, 1]
    assert opened.class_names() == ["0", "1", "2"]
    assert opened.geometry() == (4, 1)
    again = train.take([2, 0])
    assert [image[0, 0] for image in read_all(opened, again)] == [32, 0]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"x_train": np.zeros((3, 4, 4), np.float32)}, "float32"),
        ({"x_train": np.zeros((3, 4, 4, 4), np.uint8)}, r"3, 4, 4, 4"),
        ({"x_test": np.zeros((2, 5, 5), np.uint8)}, r"x_test \(2, 5, 5\)"),
        ({"y_train": np.zeros(2, np.int64)}, "for 3 images"),
        ({"y_train": np.array([0, 1, -2])}, "label -2"),
        ({"y_test": np.array([0.5, 1.0])}, "float64"),
        ({"y_test": np.array([{}, {}], dtype=object)}, "allow_pickle"),
    ],
)
def test_wrong_arrays_are_refused(
    wrong: dict[str, NDArray[Any]], found: str, tmp_path: Path
) -> None:
    opened = source("npz", npz(tmp_path / "a.npz", **wrong))
    with pytest.raises(LtrayError, match=found):
        opened.index()


def test_an_npz_without_an_array_or_cut_short_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(LtrayError, match="x_test cannot be read"):
        source("npz", tmp_path / "a.npz").geometry()
    whole = npz(tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[:-100])
    with pytest.raises(LtrayError, match="cannot be read"):
        source("npz", tmp_path / "b.npz").geometry()


@needs_mnist
def test_mnist_is_whole() -> None:
    mnist = source("npz", SHARED / "mnist.npz")
    splits = mnist.index().splits
    assert {split: len(of.keys) for split, of in splits.items()} == {"train": 60000, "test": 10000}
    assert mnist.geometry() == (28, 1)
    with np.load(SHARED / "mnist.npz") as arrays:
        some = splits["test"].take([9999, 5])
        assert np.array_equal(np.stack(read_all(mnist, some)), arrays["x_test"][[9999, 5]])
        assert np.array_equal(some.labels, arrays["y_test"][[9999, 5]])


# Parquet


def parquet(path: Path, columns: dict[str, Any], row_group_size: int = 2) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("wrapped", [False, True])
def test_parquet_gives_images_labels_and_splits(wrapped: bool, tmp_path: Path) -> None:
    images: list[Any] = [png(value) for value in range(5)]
    columns = {
        "image": [{"bytes": image, "path": None} for image in images] if wrapped else images,
        "label": [0, 1, 2, 0, 1],
        "split": ["train", "test", "train", "val", "train"],
        "filename": ["a.png", "b.png", "a.png", None, "c.png"],
        "comment": ["x"] * 5,
    }
    opened = source("parquet", parquet(tmp_path / "p.parquet", columns))
    splits = opened.index().splits
    assert splits["train"].keys == ["a.png", "a.png#2", "c.png"]
    assert splits["val"].keys == ["p.parquet/0000003"]
    assert splits["train"].labels.tolist() == [0, 2, 1]
    backwards = splits["train"].take([2, 1, 0])
    assert read_all(opened, backwards) == [images[4], images[2], images[0]]
    assert opened.geometry() == (4, 3)


def test_a_folder_of_parquet_files_is_one_source(tmp_path: Path) -> None:
    for number in range(2):
        columns = {"image": [png(number)] * 3, "label": [0, 1, 2]}
        parquet(tmp_path / f"{number}.parquet", columns)
    opened = source("parquet", tmp_path)
    splits = opened.index().splits
    assert {split: len(of.keys) for split, of in splits.items()} == {"train": 5, "test": 1}
    keys = sorted(key for of in splits.values() for key in of.keys)
    assert keys == [f"{file}.parquet/000000{row}" for file in range(2) for row in range(3)]
    first = [key.startswith("0") for key in splits["train"].keys]
    images = read_all(opened, splits["train"])
    assert images == [png(0) if is_first else png(1) for is_first in first]


def test_null_images_and_labels_are_named(tmp_path: Path) -> None:
    columns = {
        "image": [png(1), None, png(2), png(3)],
        "label": [0, 1, None, None],
        "split": ["train", "train", "train", "test"],
    }
    opened = source("parquet", parquet(tmp_path / "p.parquet", columns))
    index = opened.index()
    assert index.refused == [Refused("p.parquet/0000002", "no label")]
    assert index.splits["test"].labels.tolist() == [-1]
    missing = read_all(opened, index.splits["train"])[1]
    assert isinstance(missing, Unreadable)


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ({"image": ["text"]}, "column image is string"),
        ({"label": ["cat"]}, "column label is string"),
        ({"split": ["validation"]}, "'validation'; expected train, val or test"),
        ({"label": [-7]}, "label -7"),
    ],
)
def test_wrong_columns_are_refused(wrong: dict[str, Any], found: str, tmp_path: Path) -> None:
    columns = {"image": [png(1)], "label": [0], **wrong}
    with pytest.raises(LtrayError, match=found):
        source("parquet", parquet(tmp_path / "p.parquet", columns)).index()


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "p.parquet", {"image": [png(1)], "label": [0]}).read_bytes()
    (tmp_path / "p.parquet").write_bytes(whole[:-10])
    with pytest.raises(LtrayError, match="no whole Parquet file"):
        source("parquet", tmp_path).index()


# Folders of images


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(len(name)))
    return path


def test_a_folder_with_splits_keeps_them(tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/dog/deeper/2.png", "val/dog/1.png", "test/emu/1.png"]
    others = ["README", "extra/cat/9.png", "train/loose.png"]
    opened = source("image_folder", folder(tmp_path, *names, *others))
    index = opened.index()
    assert opened.class_names() == ["cat", "dog", "emu"]
    found = {
        split: list(zip(of.keys, of.labels.tolist(), strict=True))
        for split, of in index.splits.items()
    }
    assert found == {
        "train": [("train/cat/1.png", 0), ("train/dog/deeper/2.png", 1)],
        "val": [("val/dog/1.png", 1)],
        "test": [("test/emu/1.png", 2)],
    }
    assert sorted(refused.key for refused in index.refused) == sorted(others)
    (image,) = read_all(opened, index.splits["val"])
    assert image == (tmp_path / "val/dog/1.png").read_bytes()


def test_a_plain_folder_gives_a_fifth_as_test(tmp_path: Path) -> None:
    names = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)]
    splits = source("image_folder", folder(tmp_path, *names)).index().splits
    assert Counter(splits["test"].labels.tolist()) == {0: 2, 1: 2}
    assert sorted(splits["train"].keys + splits["test"].keys) == names


def test_links_to_class_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    elsewhere = folder(tmp_path / "elsewhere", "1.png", "2.png")
    inside = folder(tmp_path / "inside", "cat/1.png")
    (inside / "dog").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(inside)
    (inside / "cat" / "broken.png").symlink_to(tmp_path / "nowhere")
    index = source("image_folder", inside).index()
    taken = sorted(key for of in index.splits.values() for key in of.keys)
    assert taken == ["cat/1.png", "dog/1.png", "dog/2.png"]
    refused = {refused.key: refused.reason for refused in index.refused}
    assert refused == {"cat/broken.png": "not a file", "dog/circle": "not a file"}


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    opened = source("image_folder", folder(tmp_path, "cat/1.png", "cat/2.png"))
    with open(os.fsencode(tmp_path) + b"/cat/\xff.png", "wb") as file:  # noqa: PTH123 - bytes
        file.write(png(1))
    assert opened.index().refused == [Refused("cat/�.png", "its name is not UTF-8")]


# Tar archives


def index_of(path: Path) -> list[str]:
    with path.open("rb") as file:
        return [member.name for member in whole_file(file, path)]


def test_every_cut_of_a_tar_archive_is_noticed(tmp_path: Path) -> None:
    members = [("a", b"1" * 700), ("b" * 150, b"2" * 512), ("c", b"")]
    whole = tar(tmp_path / "whole.tar", members)
    assert index_of(tmp_path / "whole.tar") == [name for name, _ in members]
    cut = tmp_path / "cut.tar"
    end_of_members = len(whole.rstrip(b"\0"))
    for length in range(0, end_of_members, 128):
        cut.write_bytes(whole[:length])
        with pytest.raises(LtrayError, match=r"cut\.tar: (the archive is|is not a tar)"):
            index_of(cut)


def test_a_hole_in_a_tar_archive_is_noticed(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", [("a", b"1" * 700), ("b", b"2" * 700)])
    holed = tmp_path / "holed.tar"
    holed.write_bytes(whole[:1536] + bytes(len(whole) - 1536))
    assert index_of(holed) == ["a"]  # short archives may end so; long runs of zeros are holes
    holed.write_bytes(whole[:1536] + bytes(2 << 20))
    with pytest.raises(LtrayError, match="partly there"):
        index_of(holed)
    holed.write_bytes(whole[:1536] + bytes(1024) + whole[1536:])
    with pytest.raises(LtrayError, match="bytes follow"):
        index_of(holed)


def test_a_damaged_header_is_noticed(tmp_path: Path) -> None:
    whole = bytearray(tar(tmp_path / "a.tar", [("a", b"1"), ("b", b"2")]))
    whole[1024 + 10] ^= 0xFF
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(LtrayError, match="damaged"):
        index_of(tmp_path / "a.tar")


def test_a_gzipped_archive_is_no_tar(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(gzip.compress(tar(tmp_path / "b.tar", [("a", b"1")])))
    with pytest.raises(LtrayError, match="is not a tar archive"):
        index_of(tmp_path / "a.tar")


# ILSVRC2012

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
    (path / ilsvrc2012.DEVKIT).write_bytes(gzip.compress(plain))
    tar(path / ilsvrc2012.TRAIN, train)
    return path


def synset(path: Path, *names: str) -> bytes:
    return tar(path / "inner.tar", [(name, png(len(name))) for name in names])


def test_labels_are_ranks_and_a_name_may_come_twice(tmp_path: Path) -> None:
    train = [
        ("n00000002.tar", synset(tmp_path, "n00000002_7.JPEG", "n00000002_7.JPEG")),
        ("n00000001.tar", synset(tmp_path, "n00000001_1.JPEG")),
        ("n00000002.tar", synset(tmp_path, "n00000002_7.JPEG")),
    ]
    opened = source("ilsvrc2012", release(tmp_path, train, val=3))
    val = [(f"ILSVRC2012_val_0000000{n}.JPEG", png(n)) for n in (3, 1, 2, 4)]
    tar(tmp_path / ilsvrc2012.VAL, val)
    splits = opened.index().splits
    name = "n00000002.tar/n00000002_7.JPEG"
    assert splits["train"].keys == [
        name,
        f"{name}#2",
        "n00000001.tar/n00000001_1.JPEG",
        f"{name}#3",
    ]
    assert splits["train"].labels.tolist() == [1, 1, 0, 1]
    # Ground truth is the id 1, 2, 3 of images 1, 2, 3; ids run against ranks.
    assert splits["val"].labels.tolist() == [0, 2, 1]
    assert opened.index().refused[0].key == "ILSVRC2012_val_00000004.JPEG"
    assert read_all(opened, splits["val"]) == [png(3), png(1), png(2)]
    assert opened.class_names()[1] == "n00000002 words 1"


def test_what_is_no_image_in_the_archive_is_refused_by_name(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "inner.tar", "w") as archive:
        for name, kind in [("folder", tarfile.DIRTYPE), ("link", tarfile.SYMTYPE)]:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("../../n00000001_1.JPEG")
        member.size = 3
        archive.addfile(member, BytesIO(b"abc"))
    train = [
        ("n00000001.tar", (tmp_path / "inner.tar").read_bytes()),
        ("._n00000001.tar", b"\x00\x05\x16\x07"),
        ("n00000002.tar", b""),
        ("n00000003.tar", tar(tmp_path / "empty.tar", [])),
        ("n00000009.tar", synset(tmp_path, "n00000009_1.JPEG")),
    ]
    index = source("ilsvrc2012", release(tmp_path, train)).index()
    assert [refused.key for refused in index.refused] == [
        "n00000001.tar/link",
        "._n00000001.tar",
        "n00000002.tar",
        "n00000003.tar",
        "n00000009.tar/n00000009_1.JPEG",
    ]
    assert index.splits["train"].keys == ["n00000001.tar/../../n00000001_1.JPEG"]


def test_an_inner_archive_that_is_cut_names_both(tmp_path: Path) -> None:
    inner = synset(tmp_path, "n00000001_1.JPEG", "n00000001_2.JPEG")
    train = [("n00000001.tar", inner[:1500]), ("n00000002.tar", synset(tmp_path, "n00000002_1"))]
    with pytest.raises(LtrayError, match=r"img_train\.tar: n00000001\.tar: .*partly there"):
        source("ilsvrc2012", release(tmp_path, train)).index()


def test_missing_archives_and_broken_devkits_are_named(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match=r"lacks ILSVRC2012_img_train\.tar and"):
        source("ilsvrc2012", tmp_path).files()
    release(tmp_path, [("n00000001.tar", synset(tmp_path, "n00000001_1.JPEG"))])
    devkit = tmp_path / ilsvrc2012.DEVKIT
    devkit.write_bytes(devkit.read_bytes()[:-50])
    with pytest.raises(LtrayError, match="not the whole development kit"):
        source("ilsvrc2012", tmp_path).index()


@pytest.fixture(scope="module")
def mini() -> Index:
    return source("ilsvrc2012", MINI).index()


@needs_mini
def test_every_image_of_the_miniature_is_found_with_its_label(mini: Index) -> None:
    said = json.loads((MINI / "ILSVRC2012_mini_manifest.json").read_text())
    rank = {wnid: label for label, wnid in enumerate(sorted(said["wnid_to_ILSVRC2012_ID"]))}
    found = {
        split: dict(zip(of.keys, of.labels.tolist(), strict=True))
        for split, of in mini.splits.items()
    }
    train = {f"{wnid}.tar/{name}": rank[wnid] for name, wnid in said["train"].items()}
    assert found["train"] == train
    assert found["val"] == {name: rank[wnid] for name, wnid in said["val"].items()}
    assert found["test"] == dict.fromkeys(said["test"], -1)
    assert [len(of) for of in found.values()] == [550, 70, 20]
    assert mini.refused == []


@needs_mini
def test_every_image_of_the_miniature_is_read_bit_for_bit(mini: Index) -> None:
    said = json.loads((MINI / "ILSVRC2012_mini_manifest.json").read_text())["sha256_of_member"]
    opened = pickle.loads(pickle.dumps(source("ilsvrc2012", MINI)))  # as it travels to a task
    for split, of in mini.splits.items():
        backwards = of.take(range(len(of.keys))[::-1])
        for key, image in zip(backwards.keys, opened.read(backwards), strict=True):
            name = key.rpartition("/")[2] if split == "train" else key
            assert said[f"{split}/{name}"] == sha256(image).hexdigest()


# torchvision


def idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


def test_torchvision_data_sets_are_read_by_their_splits(tmp_path: Path) -> None:
    pytest.importorskip("ltray.torchvision_import")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for name, count in [("train", 5), ("t10k", 2)]:
        idx(raw / f"{name}-images-idx3-ubyte", images[:count])
        idx(raw / f"{name}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    opened = source("torchvision:MNIST", tmp_path)
    splits = opened.index().splits
    assert {split: of.labels.tolist() for split, of in splits.items()} == {
        "train": [0, 1, 2, 3, 4],
        "test": [0, 1],
    }
    assert opened.geometry() == (28, 1)
    assert opened.class_names()[7] == "7 - seven"
    backwards = splits["train"].take([4, 0])
    assert np.array_equal(np.stack(read_all(opened, backwards)), images[[4, 0]])


def test_torchvision_names_are_checked_without_importing_it(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match="did you mean 'CIFAR10'"):
        source("torchvision:Cifar10", tmp_path).files()


@pytest.mark.parametrize("name", ["npz", "parquet", "image_folder", "torchvision:MNIST"])
def test_a_source_that_is_absent_is_a_persons_mistake(name: str, tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match=r"^data\.path"):
        source(name, tmp_path / "nowhere").files()
    with pytest.raises(LtrayError, match=r"data\.path: is not written"):
        source(name)
