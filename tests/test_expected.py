from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import MakeRun

from ltray.data.expected import ExpectedImages, expected_images, filled_in
from ltray.data.manifest import read_manifest
from ltray.data.selection import image_counts
from ltray.errors import ImagesUnknown, LtrayError
from ltray.experiment import Data
from ltray.layout import DataFolder

NOT_PREPARED = DataFolder(Path("nowhere"))


def counts(images: ExpectedImages) -> tuple[int, int, int]:
    return images.train, images.validation, images.test


def test_prepared_shards_tell_what_a_run_will_read(make_run: MakeRun) -> None:
    run = make_run(data__classes=[3, 5], data__train_limit=100)
    found = expected_images(run.experiment.data, run.data, None, None)
    assert counts(found) == image_counts(read_manifest(run.data), run.experiment.data)
    assert (found.prepared, found.classes, found.stored) == (True, 2, 1797)


def test_digits_are_counted_before_they_are_prepared(make_run: MakeRun) -> None:
    run = make_run()
    before = expected_images(run.experiment.data, NOT_PREPARED, None, None)
    after = expected_images(run.experiment.data, run.data, None, None)
    assert not before.prepared
    assert counts(before) == counts(after)
    assert before.stored == after.stored


def test_a_sources_own_files_are_counted(tmp_path: Path) -> None:
    images = np.zeros((40, 6, 6), np.uint8)
    labels = np.arange(40) % 4
    some = {"x_train": images, "y_train": labels, "x_test": images[:20], "y_test": labels[:20]}
    np.savez(tmp_path / "some.npz", **some)  # type: ignore[arg-type]
    data = Data(source="npz", path=str(tmp_path / "some.npz"), validation_fraction=0.25)
    found = expected_images(data, NOT_PREPARED, None, None)
    assert counts(found) == (30, 10, 20)
    assert (found.classes, found.stored, found.encoded) == (4, 60, False)


def test_rows_of_parquet_are_counted_without_a_copy_of_their_images(tmp_path: Path) -> None:
    rows = {"image": [b"an image"] * 50, "label": [row % 5 for row in range(50)]}
    rows |= {"split": ["train"] * 40 + ["test"] * 10}
    pq.write_table(pa.table(rows), tmp_path / "some.parquet")
    data = Data(source="parquet", path=str(tmp_path / "some.parquet"), validation_fraction=0.25)
    found = expected_images(data, NOT_PREPARED, None, None)
    assert counts(found) == (30, 10, 10)
    assert (found.classes, found.stored, found.encoded) == (5, 50, True)
    assert [path.name for path in tmp_path.iterdir()] == ["some.parquet"]


def test_chosen_classes_of_a_counted_source_are_counted_themselves(make_run: MakeRun) -> None:
    run = make_run(data__classes=[3, 8])
    before = expected_images(run.experiment.data, NOT_PREPARED, None, None)
    after = expected_images(run.experiment.data, run.data, None, None)
    assert counts(before) == counts(after)


def test_a_limit_is_of_train_images_alone(make_run: MakeRun) -> None:
    run = make_run(data__train_limit=100)
    before = expected_images(run.experiment.data, NOT_PREPARED, None, None)
    after = expected_images(run.experiment.data, run.data, None, None)
    assert counts(before) == counts(after)
    assert before.train == 100


def test_published_releases_are_known_without_their_files() -> None:
    data = Data(source="ilsvrc2012", path="x", image_size=227, validation_fraction=0.04)
    found = expected_images(data, None, None, None)
    assert counts(found) == (1_229_920, 51_247, 50_000)
    assert (found.classes, found.stored, found.encoded) == (1000, 1_431_167, True)
    assert "not looked through" in found.told_by


def test_chosen_classes_are_their_share_of_a_release() -> None:
    data = Data(source="torchvision:CIFAR10", path="x", classes=(0, 1), validation_fraction=0.1)
    found = expected_images(data, None, None, None)
    assert counts(found) == (9_000, 1_000, 2_000)
    assert found.classes == 2


def test_what_nobody_knows_is_asked_for() -> None:
    data = Data(source="npz", path="x", image_size=28, validation_fraction=0.1)
    with pytest.raises(ImagesUnknown, match="nothing tells how many images npz has here"):
        expected_images(data, None, None, None)
    with pytest.raises(LtrayError, match="without the number of classes"):
        expected_images(data, None, (600, 100), None)
    found = expected_images(data, None, (600, 100), 10)
    assert counts(found) == (540, 60, 100)


def test_sizes_are_filled_in_as_published_or_asked_for() -> None:
    found = filled_in(Data(source="torchvision:CIFAR10", path="x"))
    assert (found.image_size, found.crop_size, found.channels, found.encoding) == (32, 32, 3, "raw")
    large = filled_in(Data(source="ilsvrc2012", path="x", image_size=227, crop_size=224))
    assert (large.crop_size, large.channels, large.encoding) == (224, 3, "jpeg")
    with pytest.raises(ImagesUnknown, match=r"image_size: .* not here to be asked"):
        filled_in(Data(source="ilsvrc2012", path="x"))
    with pytest.raises(ImagesUnknown, match=r"channels: .* not here to be asked"):
        filled_in(Data(source="npz", path="x", image_size=28))
    with pytest.raises(LtrayError, match="40 is larger than the images of torchvision:CIFAR10, 32"):
        filled_in(Data(source="torchvision:CIFAR10", path="x", crop_size=40))


def test_a_class_that_the_source_lacks_is_refused_as_by_a_sweep() -> None:
    data = Data(source="torchvision:CIFAR10", path="x", classes=(0, 12))
    with pytest.raises(LtrayError, match="12; the source has 10 classes"):
        expected_images(data, None, None, None)


def test_torchvisions_published_sets_are_arrays_and_others_are_files() -> None:
    cifar = Data(source="torchvision:CIFAR10", path="x", image_size=32)
    assert not expected_images(cifar, None, None, None).encoded
    flowers = Data(source="torchvision:Flowers102", path="x", image_size=32)
    assert expected_images(flowers, None, (1020, 6149), 102).encoded
