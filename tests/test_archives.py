import json
import os
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import SHARED, png, read_all, source
from numpy.typing import NDArray

from ltray.data.archives.index import index_of
from ltray.data.archives.source import Examples, Refused, damage_is_told
from ltray.data.decode import Unreadable
from ltray.data.fingerprint import fingerprint, source_facts
from ltray.errors import LtrayError
from ltray.experiment import Data

needs_mnist = pytest.mark.skipif(
    not (SHARED / "mnist.npz").is_file(), reason="shared/data/mnist.npz is absent"
)


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
    splits = index_of(digits).splits
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
    train = index_of(opened).splits["train"]
    assert train.labels.tolist() == [2, 0, 1]
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
        index_of(opened)


def test_an_npz_without_an_array_or_cut_short_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(LtrayError, match="has no x_test"):
        source("npz", tmp_path / "a.npz").geometry()
    whole = npz(tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(whole[:-100])
    with pytest.raises(LtrayError, match="is damaged or only partly there"):
        source("npz", tmp_path / "b.npz").geometry()


@needs_mnist
def test_mnist_is_whole() -> None:
    mnist = source("npz", SHARED / "mnist.npz")
    splits = index_of(mnist).splits
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
    opened = source("parquet", parquet(tmp_path / "p.parquet", columns), tmp_path / "scratch")
    splits = index_of(opened).splits
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
    opened = source("parquet", tmp_path, tmp_path / "scratch")
    splits = index_of(opened).splits
    assert {split: len(of.keys) for split, of in splits.items()} == {"train": 5, "test": 1}
    keys = sorted(key for of in splits.values() for key in of.keys)
    assert keys == [f"{file}.parquet/000000{row}" for file in range(2) for row in range(3)]
    first = [key.startswith("0") for key in splits["train"].keys]
    images = read_all(opened, splits["train"])
    assert images == [png(0) if is_first else png(1) for is_first in first]


def test_sections_and_copies_of_any_size_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [png(0), None, png(2), b"", png(4), png(5), png(6)]
    columns = {"image": images, "label": range(7), "split": ["train"] * 6 + ["test"]}
    path = parquet(tmp_path / "p.parquet", columns)
    for number, (run_bytes, copy_bytes, files) in enumerate(
        [(1, 1, 4 + 7), (1, 10**9, 4 + 4), (10**9, 1, 1 + 5), (10**9, 10**9, 1 + 1)]
    ):
        monkeypatch.setattr("ltray.data.archives.parquet.RUN_BYTES", run_bytes)
        monkeypatch.setattr("ltray.data.archives.copies.COPY_BYTES", copy_bytes)
        scratch = tmp_path / f"scratch-{number}"
        opened = source("parquet", path, scratch)
        splits = index_of(opened).splits
        assert splits["train"].keys == [f"p.parquet/000000{row}" for row in range(6)]
        assert splits["train"].labels.tolist() == list(range(6))
        given = read_all(opened, splits["train"])
        assert isinstance(given.pop(1), Unreadable)
        assert given == [images[row] for row in (0, 2, 3, 4, 5)]
        assert read_all(opened, splits["test"]) == [images[6]]
        assert len(list(scratch.iterdir())) == files


def test_images_that_are_copied_are_not_copied_again(tmp_path: Path) -> None:
    path = parquet(tmp_path / "p.parquet", {"image": [png(1), png(2), None], "label": [0, 1, 2]})
    opened = source("parquet", path, tmp_path / "scratch")

    def files() -> dict[str, int]:
        return {file.name: file.stat().st_ino for file in (tmp_path / "scratch").iterdir()}

    first = index_of(opened).splits["train"]
    whole = files()
    again = index_of(opened).splits["train"]
    assert files() == whole
    assert again.places.tolist() == first.places.tolist()
    (tmp_path / "scratch/00000-00000.npy").unlink()  # killed before all was copied
    assert index_of(opened).splits["train"].places.tolist() == first.places.tolist()
    assert files().keys() == whole.keys()
    (tmp_path / "scratch/00000-00000-00000.images").unlink()  # killed while all was removed
    assert index_of(opened).splits["train"].places.tolist() == first.places.tolist()
    assert files().keys() == whole.keys()


def test_bytes_too_many_for_an_image_go_to_the_quarantine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltray.data.decode.MAX_FILE_BYTES", 1000)
    path = parquet(tmp_path / "p.parquet", {"image": [png(1), bytes(1001)], "label": [0, 1]})
    index = index_of(source("parquet", path, tmp_path / "scratch"))
    assert index.refused == [Refused("p.parquet/0000001", "1,001 bytes, too large for an image")]
    assert index.splits["train"].keys == ["p.parquet/0000000"]


def test_a_lack_of_memory_is_no_damage() -> None:
    with pytest.raises(MemoryError), damage_is_told("p.parquet", "fetch it again"):
        raise pa.ArrowMemoryError("malloc of size 1000000000 failed")


def test_null_images_and_labels_are_named(tmp_path: Path) -> None:
    columns = {
        "image": [png(1), None, png(2), png(3)],
        "label": [0, 1, None, None],
        "split": ["train", "train", "train", "test"],
    }
    opened = source("parquet", parquet(tmp_path / "p.parquet", columns), tmp_path / "scratch")
    index = index_of(opened)
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
        ({"filename": [3]}, "column filename is int64; expected names"),
        ({"image": [{"bytes": {"bytes": b""}}]}, "expected bytes of image files"),
    ],
)
def test_wrong_columns_are_refused(wrong: dict[str, Any], found: str, tmp_path: Path) -> None:
    columns = {"image": [png(1)], "label": [0], **wrong}
    with pytest.raises(LtrayError, match=found):
        index_of(source("parquet", parquet(tmp_path / "p.parquet", columns), tmp_path / "scratch"))


def test_files_of_a_data_hub_have_splits_in_their_names_and_classes_in_their_schema(
    tmp_path: Path,
) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    (tmp_path / "data").mkdir()
    for number, split in enumerate(["train", "validation", "test"]):
        columns = {"image": [{"bytes": png(number), "path": "a.png"}], "label": [number % 2]}
        table = pa.table(columns).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    opened = source("parquet", tmp_path, tmp_path / "scratch")
    splits = index_of(opened).splits
    assert {split: of.labels.tolist() for split, of in splits.items()} == {
        "train": [0],
        "val": [1],
        "test": [0],
    }
    assert read_all(opened, splits["val"]) == [png(1)]
    assert opened.class_names() == ["cat", "dog"]


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = parquet(tmp_path / "p.parquet", {"image": [png(1)], "label": [0]}).read_bytes()
    (tmp_path / "p.parquet").write_bytes(whole[:-10])
    with pytest.raises(LtrayError, match="is damaged or only partly there"):
        index_of(source("parquet", tmp_path, tmp_path / "scratch"))


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
    index = index_of(opened)
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
    splits = index_of(source("image_folder", folder(tmp_path, *names))).splits
    assert Counter(splits["test"].labels.tolist()) == {0: 2, 1: 2}
    assert sorted(splits["train"].keys + splits["test"].keys) == names


def test_links_to_class_folders_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    elsewhere = folder(tmp_path / "elsewhere", "1.png", "2.png")
    inside = folder(tmp_path / "inside", "cat/1.png")
    (inside / "dog").symlink_to(elsewhere)
    (elsewhere / "circle").symlink_to(inside)
    (inside / "cat" / "broken.png").symlink_to(tmp_path / "nowhere")
    index = index_of(source("image_folder", inside))
    taken = sorted(key for of in index.splits.values() for key in of.keys)
    assert taken == ["cat/1.png", "dog/1.png", "dog/2.png"]
    refused = {refused.key: refused.reason for refused in index.refused}
    assert refused == {"cat/broken.png": "not a file", "dog/circle": "not a file"}


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    opened = source("image_folder", folder(tmp_path, "cat/1.png", "cat/2.png"))
    with open(os.fsencode(tmp_path) + b"/cat/\xff.png", "wb") as file:  # noqa: PTH123 - bytes
        file.write(png(1))
    assert index_of(opened).refused == [Refused("cat/�.png", "its name is not UTF-8")]


# torchvision


def idx(path: Path, array: NDArray[np.uint8]) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    path.write_bytes(header + array.tobytes())


@pytest.mark.long
def test_torchvision_data_sets_are_read_by_their_splits(tmp_path: Path) -> None:
    pytest.importorskip("ltray.torchvision_import")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
    for name, count in [("train", 5), ("t10k", 2)]:
        idx(raw / f"{name}-images-idx3-ubyte", images[:count])
        idx(raw / f"{name}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    opened = source("torchvision:MNIST", tmp_path)
    splits = index_of(opened).splits
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
