import json
import pickle
import shutil
import tarfile
import time
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ltray.data.archives.source import Source
from ltray.data.archives.sources import open_source
from ltray.data.fingerprint import source_facts
from ltray.data.manifest import Manifest, read_manifest, write_manifest
from ltray.data.pixels import Pixels, from_stored, pixels_of, to_stored
from ltray.data.shards import Part, PartRecord, Plan, plan, rows_per_part, write_part
from ltray.data.verify import verify
from ltray.errors import LtrayError
from ltray.experiment import Data
from ltray.files import TEMPORARY_PREFIX
from ltray.layout import DataFolder

SHARED = Path(__file__).parents[2] / "shared" / "data"
MINI = SHARED / "ilsvrc2012-mini"
NASTY = SHARED / "ILSVRC-nasty.tar"
needs_mini = pytest.mark.skipif(
    not (MINI.is_dir() and NASTY.is_file()), reason="shared/data/ilsvrc2012-mini is absent"
)


def npz(path: Path, train: int = 5000, test: int = 300) -> Data:
    """Random grey images of 6 x 6 pixels in ten classes."""
    random = np.random.default_rng(7)
    np.savez(
        path / "some.npz",
        x_train=random.integers(0, 256, (train, 6, 6), dtype=np.uint8),
        y_train=random.integers(0, 10, train),
        x_test=random.integers(0, 256, (test, 6, 6), dtype=np.uint8),
        y_test=random.integers(0, 10, test),
    )
    return Data(source="npz", path=str(path / "some.npz"))


def parquet(path: Path, images: list[bytes]) -> Data:
    """A source with the images as train and a grey image as test."""
    columns = {
        "image": [*images, png(0)],
        "label": [row % 3 for row in range(len(images))] + [0],
        "split": ["train"] * len(images) + ["test"],
    }
    pq.write_table(pa.table(columns), path / "some.parquet")
    return Data(source="parquet", path=str(path / "some.parquet"), image_size=8)


def png(value: int, side: int = 8) -> bytes:
    file = BytesIO()
    Image.new("RGB", (side, side), (value, value, value)).save(file, "PNG")
    return file.getvalue()


def planned(data: Data) -> tuple[Source, Plan]:
    source = open_source(data, Path(str(data.path)).parent / "scratch")
    return source, plan(source, pixels_of(data, source_facts(data)))


def prepare(data: Data, folder: DataFolder) -> Manifest:
    source, whole = planned(data)
    records = [write_part(part, source, whole.pixels, folder) for part in whole.parts]
    return write_manifest(folder, whole, records, "the fingerprint", seconds=1.5)


def rows_of(folder: DataFolder, split: str) -> Iterator[dict[str, Any]]:
    manifest = read_manifest(folder)
    for part in manifest.parts[split]:
        yield from pq.read_table(folder.path / part.path).to_pylist()


def quarantine_of(folder: DataFolder) -> dict[str, str]:
    table = pq.read_table(folder.quarantine)
    return dict(zip(table["key"].to_pylist(), table["reason"].to_pylist(), strict=True))


def files_of(folder: DataFolder) -> dict[str, bytes]:
    paths = sorted(path for path in folder.path.rglob("*") if path.is_file())
    return {path.relative_to(folder.path).as_posix(): path.read_bytes() for path in paths}


def test_every_image_comes_back_bit_for_bit(tmp_path: Path) -> None:
    data = npz(tmp_path)
    folder = DataFolder(tmp_path / "data")
    manifest = prepare(data, folder)
    assert manifest == read_manifest(folder)
    with np.load(str(data.path)) as arrays:
        for split in ("train", "test"):
            rows = list(rows_of(folder, split))
            assert manifest.counts[split] == len(rows) == len(arrays[f"y_{split}"])
            for row in rows:
                number = int(row["key"].rpartition("/")[2])
                image = from_stored(row["image"], manifest.pixels)[:, :, 0]
                assert np.array_equal(image, arrays[f"x_{split}"][number])
                assert row["label"] == arrays[f"y_{split}"][number]


def test_part_sizes_follow_from_the_data_alone(tmp_path: Path) -> None:
    _, whole = planned(npz(tmp_path))
    sizes = [(part.split, part.number, len(part.examples.keys)) for part in whole.parts]
    assert sizes == [("train", 0, 2048), ("train", 1, 2048), ("train", 2, 904), ("test", 0, 300)]
    assert rows_per_part(Pixels(64, "crop", "jpeg", 3)) == 512


def test_a_part_is_one_row_group(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    prepare(npz(tmp_path), folder)
    assert pq.read_metadata(folder.part("train", 0)).num_row_groups == 1
    assert pq.read_schema(folder.part("train", 0)).names == ["key", "image", "label"]


def test_every_part_samples_all_classes(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "sorted.npz",
        x_train=np.zeros((6000, 4, 4), np.uint8),
        y_train=np.arange(6000) // 600,
        x_test=np.zeros((10, 4, 4), np.uint8),
        y_test=np.arange(10),
    )
    _, whole = planned(Data(source="npz", path=str(tmp_path / "sorted.npz")))
    for part in whole.parts[:2]:
        counts = np.bincount(part.examples.labels, minlength=10)
        assert counts.min() > 140  # 205 +- 5 standard deviations


def test_the_order_of_the_source_does_not_matter(tmp_path: Path) -> None:
    names = [f"{name}/{number}.png" for name in "ab" for number in range(20)]
    for folder, order in [("one", names), ("two", names[::-1])]:
        for name in order:
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / name).write_bytes(png(len(name)))
    written = []
    for folder in ("one", "two"):
        made = DataFolder(tmp_path / f"made of {folder}")
        prepare(Data(source="image_folder", path=str(tmp_path / folder)), made)
        written.append(files_of(made))
    assert written[0] == written[1]


def test_parts_are_the_same_bytes_wherever_they_are_made(tmp_path: Path) -> None:
    data = npz(tmp_path)
    source, whole = planned(data)
    here, there = DataFolder(tmp_path / "here"), DataFolder(tmp_path / "there")
    for part in whole.parts:
        write_part(part, source, whole.pixels, here)
    for part in reversed(whole.parts):  # as it travels to a task
        sent: tuple[Part, Source] = pickle.loads(pickle.dumps((part, source)))
        write_part(*sent, whole.pixels, there)
    assert files_of(here) == files_of(there)


def test_a_part_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    data = npz(tmp_path, train=50)
    source, whole = planned(data)
    folder = DataFolder(tmp_path / "data")
    record = write_part(whole.parts[0], source, whole.pixels, folder)
    Path(str(data.path)).unlink()  # whoever reads the source now fails
    assert write_part(whole.parts[0], source, whole.pixels, folder) == record


@pytest.mark.parametrize("damage", ["cut", "empty", "other plan"])
def test_a_part_that_does_not_fit_is_made_again(damage: str, tmp_path: Path) -> None:
    source, whole = planned(npz(tmp_path, train=50))
    folder = DataFolder(tmp_path / "data")
    record = write_part(whole.parts[0], source, whole.pixels, folder)
    path = folder.part("train", 0)
    if damage == "other plan":
        other = write_part(whole.parts[0], source, Pixels(5, "crop", "raw", 1), folder)
        assert other.sha256 != record.sha256
    else:
        path.write_bytes(path.read_bytes()[:-50] if damage == "cut" else b"")
    assert write_part(whole.parts[0], source, whole.pixels, folder) == record


def test_a_record_survives_json(tmp_path: Path) -> None:
    source, whole = planned(parquet(tmp_path, [png(1), b"<html>"]))
    record = write_part(whole.parts[0], source, whole.pixels, DataFolder(tmp_path / "data"))
    assert PartRecord.model_validate_json(record.model_dump_json()) == record
    assert record.quarantined[0].key == "some.parquet/0000001"


def test_broken_images_are_in_the_quarantine_and_nowhere_else(tmp_path: Path) -> None:
    data = parquet(tmp_path, [png(10), b"", png(30), png(20)[:40]])
    folder = DataFolder(tmp_path / "data")
    manifest = prepare(data, folder)
    assert quarantine_of(folder).keys() == {"some.parquet/0000001", "some.parquet/0000003"}
    kept = sorted(row["key"] for row in rows_of(folder, "train"))
    assert kept == ["some.parquet/0000000", "some.parquet/0000002"]
    assert manifest.quarantined == 2
    assert manifest.class_counts == {"train": {0: 1, 2: 1}, "test": {0: 1}}


def test_statistics_by_hand(tmp_path: Path) -> None:
    data = parquet(tmp_path, [png(10), png(30, side=16)])
    manifest = prepare(data, DataFolder(tmp_path / "data"))
    # Half of train's pixels are 10 and half are 30; the test image, all 0, does not count.
    assert manifest.pixel_mean == (20, 20, 20)
    assert manifest.pixel_std == (10, 10, 10)
    statistics = manifest.source_statistics
    assert statistics.images == 3
    assert statistics.bytes == len(png(10)) + len(png(30, side=16)) + len(png(0))
    assert statistics.mean_width == statistics.mean_height == pytest.approx(32 / 3)


def test_a_channel_that_never_changes_has_a_deviation_of_one(tmp_path: Path) -> None:
    manifest = prepare(parquet(tmp_path, [png(10), png(10)]), DataFolder(tmp_path / "data"))
    assert manifest.pixel_std == (1, 1, 1)


def test_images_that_are_not_alike_stop_the_preparation(tmp_path: Path) -> None:
    data = parquet(tmp_path, [png(10), png(30, side=16)]).model_copy(update={"image_size": None})
    with pytest.raises(LtrayError, match="the first is 8 x 8 pixels, another 16 x 16"):
        prepare(data, DataFolder(tmp_path / "data"))


def test_a_source_without_a_usable_train_image_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match="no train image"):
        prepare(parquet(tmp_path, [b"", b"<html>"]), DataFolder(tmp_path / "data"))


def test_without_a_manifest_nothing_is_prepared(tmp_path: Path) -> None:
    with pytest.raises(LtrayError, match="not prepared"):
        read_manifest(DataFolder(tmp_path))
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(LtrayError, match="no manifest that this version reads"):
        read_manifest(DataFolder(tmp_path))


def test_the_manifest_says_how_pixels_were_made(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    prepare(npz(tmp_path, train=50), folder)
    said = json.loads(folder.manifest.read_text())
    assert said["pixels"] == {
        "image_size": 6,
        "resize": "crop",
        "encoding": "raw",
        "channels": 1,
    }
    assert said["parts"]["train"][0]["path"] == "train/part-00000.parquet"
    assert said["class_names"] == [str(label) for label in range(10)]


def test_a_whole_data_set_has_no_faults(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    prepare(npz(tmp_path, train=50), folder)
    (folder.path / "train" / f"{TEMPORARY_PREFIX}left-by-a-crash").write_bytes(b"")
    assert verify(folder) == []


def test_verify_finds_what_is_wrong(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    prepare(npz(tmp_path, train=3000), folder)
    (folder.path / "train" / "part-00007.parquet").write_bytes(b"stray")
    folder.part("test", 0).unlink()
    part = folder.part("train", 1)
    table = pq.read_table(part)
    images = [b"too short", *table["image"].to_pylist()[1:]]
    pq.write_table(table.set_column(1, "image", pa.array(images)).slice(0, 900), part)
    folder.quarantine.unlink()
    faults = "\n".join(verify(folder))
    for words in [
        "train/part-00007.parquet: is not in the manifest",
        "test/part-00000.parquet: is missing",
        "train/part-00001.parquet: its sha256 is not the manifest's",
        "train/part-00001.parquet: has 900 rows, the manifest says 952",
        f"{table['key'][0]}: damaged",
        "train: has 2948 images, the manifest says 3000",
        "quarantine.parquet: cannot be read",
        "test: label 3 has 0 images",
    ]:
        assert words in faults


def test_verify_finds_a_part_without_some_of_its_values(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    prepare(npz(tmp_path, train=50), folder)
    part = folder.part("train", 0)
    table = pq.read_table(part)
    labels = [None, *table["label"].to_pylist()[1:]]
    pq.write_table(table.set_column(2, "label", pa.array(labels, pa.int32())), part)
    assert "train/part-00000.parquet: has other columns, or values that are missing" in verify(
        folder
    )


def test_verify_finds_a_flipped_bit(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "data")
    prepare(npz(tmp_path, train=50), folder)
    part = folder.part("train", 0)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    assert "train/part-00000.parquet: its sha256 is not the manifest's" in verify(folder)


# The release's miniature


def copy_with_nasty(path: Path) -> Data:
    """The miniature, with the nasty synsets at the end of train."""
    for name in ("devkit_t12.tar.gz", "img_train.tar", "img_val.tar", "img_test_v10102019.tar"):
        shutil.copyfile(MINI / f"ILSVRC2012_{name}", path / f"ILSVRC2012_{name}")
    with (
        tarfile.open(path / "ILSVRC2012_img_train.tar", "a") as train,
        tarfile.open(NASTY) as nasty,
    ):
        for member in nasty:
            train.addfile(member, nasty.extractfile(member))
    return Data(source="ilsvrc2012", path=str(path), image_size=64, encoding="jpeg")


@needs_mini
def test_the_whole_miniature_with_nasty_inputs_is_accounted_for(tmp_path: Path) -> None:
    data = copy_with_nasty(tmp_path)
    folder = DataFolder(tmp_path / "data")
    manifest = prepare(data, folder)
    nasty = json.loads(NASTY.with_suffix(".json").read_text())
    good = {entry["member"] for entry in nasty if entry["expect"].startswith("decodable")}
    bad = {entry["member"] for entry in nasty} - good
    quarantine = quarantine_of(folder)
    assert {key.partition("#")[0] for key in quarantine} == bad
    assert all(quarantine.values())
    odd = pq.read_table(folder.odd).to_pydict()
    assert dict(zip(odd["key"], odd["what"], strict=True)) == {
        "n01739381.tar/n01739381_1309.JPEG": "CMYK colours",
        "n02105855.tar/n02105855_2933.JPEG": "a PNG file under the name of a JPEG",
    }
    said = json.loads((MINI / "ILSVRC2012_mini_manifest.json").read_text())
    official = [f"{wnid}.tar/{name}" for name, wnid in said["train"].items()]
    keys = sorted(row["key"] for row in rows_of(folder, "train"))
    with_numbers = {f"{member}#2" if member in official else member for member in good}
    assert keys == sorted([*official, *with_numbers])
    assert manifest.counts == {"train": 555, "val": 70, "test": 20}
    assert manifest.class_counts["test"] == {-1: 20}
    assert len(manifest.class_names) == 1000
    assert verify(folder) == []


@needs_mini
def test_a_decompression_bomb_is_rejected_before_it_is_decoded() -> None:
    with tarfile.open(NASTY) as outer:
        inner = outer.extractfile("n04033901.tar")
        with tarfile.open(fileobj=inner) as archive:
            file = archive.extractfile(archive.getmembers()[0])
            assert file is not None
            content = file.read()
    begin = time.thread_time()
    with pytest.raises(Exception, match="decompression bomb"):
        to_stored(content, Pixels(64, "crop", "jpeg", 3))
    assert time.thread_time() - begin < 0.5  # allocating 12.9 GB takes seconds
