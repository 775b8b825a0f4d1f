"""From shards to batches: who is in which split, in which order, cropped and flipped how."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import MakeRun

from ltray.data import batches as batches_module
from ltray.data import images as images_module
from ltray.data.batches import WINDOW_PARTS, Batches, epoch_order, open_data_set
from ltray.data.images import BatchMemory, UploadedImages
from ltray.data.manifest import read_manifest
from ltray.data.selection import image_counts, select
from ltray.errors import LtrayError
from ltray.group import ALONE, Group
from ltray.run import Run

CPU = torch.device("cpu")


def batches_of(
    run: Run, batch_size: int = 60, data_seed: int = 0, threads: int = 1, group: Group = ALONE
) -> Batches:
    manifest = read_manifest(run.data)
    data_set = open_data_set(run.data, manifest, run.experiment.data, CPU, threads)
    return Batches(data_set, batch_size, data_seed, group)


class OneOfThree(Group):
    """Where a process stands, without the others."""

    size = 3

    def __init__(self, rank: int) -> None:
        self.rank = rank


def epoch_of(batches: Batches, epoch: int, first: int = 0) -> list[tuple[torch.Tensor, Any]]:
    return [(x.clone(), y.tolist()) for x, y in batches.epoch(epoch, first)]


def equal(one: list[tuple[torch.Tensor, Any]], other: list[tuple[torch.Tensor, Any]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[0], b[0]) and a[1] == b[1] for a, b in zip(one, other, strict=True)
    )


def test_the_three_splits_are_disjoint_and_validation_does_not_depend_on_the_limit(
    make_run: MakeRun,
) -> None:
    run, limited = make_run(), make_run(data__train_limit=100)
    selections = [select(r.data, read_manifest(r.data), r.experiment.data) for r in (run, limited)]
    whole, few = selections
    places = [
        set(zip(of.parts.tolist(), of.rows.tolist(), strict=True))
        for of in (whole.train, whole.validation)
    ]
    assert not places[0] & places[1]
    assert len(places[0]) + len(places[1]) == 1438
    assert whole.test.split == "test"
    assert np.array_equal(whole.validation.rows, few.validation.rows)
    assert np.bincount(few.train.labels).tolist() == [10] * 10
    for selection, r in zip(selections, (run, limited), strict=True):
        counts = image_counts(read_manifest(r.data), r.experiment.data)
        splits = (selection.train, selection.validation, selection.test)
        assert counts == tuple(len(split.rows) for split in splits)


def test_validation_is_stratified(make_run: MakeRun) -> None:
    run = make_run()
    selection = select(run.data, read_manifest(run.data), run.experiment.data)
    share = np.bincount(selection.validation.labels) / (
        np.bincount(selection.validation.labels) + np.bincount(selection.train.labels)
    )
    assert share.min() > 0.14
    assert share.max() < 0.16


def test_classes_are_kept_and_renumbered_in_the_order_written(make_run: MakeRun) -> None:
    run = make_run(data__classes=[7, 3])
    selection = select(run.data, read_manifest(run.data), run.experiment.data)
    assert selection.classes == 2
    labels = pq.read_table(run.data.part("test", 0))["label"].to_numpy()
    assert (selection.test.labels == 0).sum() == (labels == 7).sum()
    assert (selection.test.labels == 1).sum() == (labels == 3).sum()
    assert image_counts(read_manifest(run.data), run.experiment.data) == (
        len(selection.train.rows),
        len(selection.validation.rows),
        len(selection.test.rows),
    )


def test_a_class_that_the_source_lacks_is_an_error(make_run: MakeRun) -> None:
    run = make_run(data__classes=[3, 10])
    with pytest.raises(LtrayError, match=r"10; the source has 10 classes"):
        select(run.data, read_manifest(run.data), run.experiment.data)


def test_every_epoch_shows_whole_batches_of_other_images(make_run: MakeRun) -> None:
    batches = batches_of(make_run())
    assert batches.steps_per_epoch == 20  # 1,222 images in batches of 60
    one, two = epoch_of(batches, 0), epoch_of(batches, 1)
    assert [len(labels) for _, labels in one] == [60] * 20
    assert not equal(one, two)
    assert equal(one, epoch_of(batches_of(make_run()), 0))
    assert not equal(one, epoch_of(batches_of(make_run(), data_seed=1), 0))


def test_an_epoch_entered_in_the_middle_goes_on_as_if_from_its_start(make_run: MakeRun) -> None:
    batches = batches_of(make_run(data__augment="random_crop"))
    assert equal(epoch_of(batches, 3)[13:], epoch_of(batches, 3, first=13))


def test_evaluation_shows_every_image_once_in_a_fixed_order(make_run: MakeRun) -> None:
    batches = batches_of(make_run(data__augment="random_crop"))
    shown = [(x.clone(), y.tolist()) for x, y in batches.evaluation("test")]
    again = [(x.clone(), y.tolist()) for x, y in batches.evaluation("test")]
    assert sum(len(labels) for _, labels in shown) == 359
    small = [len(labels) for _, labels in batches_of(make_run(), batch_size=61).evaluation("test")]
    assert small == [61] * 5 + [54], "never more than training has memory for"
    assert equal(shown, again)


def joined(shown: list[list[tuple[torch.Tensor, Any]]]) -> list[tuple[torch.Tensor, Any]]:
    """The batches whose parts several processes are shown."""
    return [
        (torch.cat([images for images, _ in parts]), [one for _, labels in parts for one in labels])
        for parts in zip(*shown, strict=True)
    ]


@pytest.mark.parametrize("resident", [True, False])
def test_the_parts_of_three_processes_are_the_batches_of_one(
    resident: bool, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "resident_budget", lambda _device: resident * 10**9)
    run = make_run(data__augment="random_crop")
    alone = batches_of(run, batch_size=61)
    three = [batches_of(run, batch_size=61, group=OneOfThree(rank)) for rank in range(3)]
    assert equal(epoch_of(alone, 2, first=4), joined([epoch_of(one, 2, first=4) for one in three]))
    assert [len(labels) for _, labels in epoch_of(three[0], 0)] == [20] * 20
    whole = torch.cat([images for images, _ in alone.evaluation("test")])
    parts = [images for one in three for images, _ in one.evaluation("test")]
    assert torch.equal(whole, torch.cat(parts))


def test_colour_is_standardised_by_the_train_shards_own_statistics(
    make_run: MakeRun, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    images = generator.integers(0, (256, 128, 64), size=(400, 8, 8, 3), dtype=np.uint8)
    labels = np.arange(400) % 2
    np.savez(
        tmp_path / "colour.npz",
        x_train=images,
        y_train=labels,
        x_test=images[:9],
        y_test=labels[:9],
    )
    source = {"source": "npz", "path": str(tmp_path / "colour.npz"), "validation_fraction": 0.0025}
    every = torch.cat([x for x, _ in batches_of(make_run(data=source), batch_size=1).epoch(0)])
    # 1 of 400 images is validation, so mean and deviation are off by a few thousandths.
    assert float(every.mean((0, 2, 3)).abs().max()) < 5e-3
    assert float((every.std((0, 2, 3)) - 1).abs().max()) < 5e-3


def test_grey_becomes_zero_to_one_and_black_stays_zero(make_run: MakeRun) -> None:
    every = torch.cat([x for x, _ in batches_of(make_run()).epoch(0)])
    assert float(every.min()) == 0
    assert float(every.max()) == 1


@pytest.mark.parametrize("augment", ["none", "random_crop", "random_resized_crop"])
@pytest.mark.parametrize("threads", [1, 2, 4])
@pytest.mark.parametrize("cropped", ["in host memory", "on the device"])
def test_streamed_images_are_the_resident_ones_bit_for_bit(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, augment: str, threads: int, cropped: str
) -> None:
    run = make_run(data__augment=augment, data__encoding="jpeg")
    resident = batches_of(run)
    monkeypatch.setattr(batches_module, "resident_budget", lambda _device: 0)
    if cropped == "on the device":
        uploaded = partial(UploadedImages, device=CPU)
        monkeypatch.setattr(images_module, "StreamedImages", uploaded)
    streamed = batches_of(run, threads=threads)
    assert equal(epoch_of(resident, 0), epoch_of(streamed, 0))
    assert equal(epoch_of(resident, 1, first=7), epoch_of(streamed, 1, first=7))


def test_memory_is_used_again_only_when_its_batch_is_gone() -> None:
    memory = BatchMemory()
    one, two = memory.batch((2, 4, 4, 3)), memory.batch((2, 4, 4, 3))
    places = {one.data_ptr(), two.data_ptr()}
    assert len(places) == 2
    place, view = one.data_ptr(), one.permute(0, 3, 1, 2)[1]
    del one
    assert memory.batch((2, 4, 4, 3)).data_ptr() not in places
    del view
    assert memory.batch((2, 4, 4, 3)).data_ptr() == place
    assert two.data_ptr() in places


def test_an_epochs_order_has_every_image_once_and_needs_two_windows_of_parts_at_a_time() -> None:
    parts = np.repeat(np.arange(100), 20)
    order = epoch_order(parts, data_seed=3, epoch=5)
    assert sorted(order.tolist()) == list(range(2000))
    window = WINDOW_PARTS * 20
    for first in range(0, 2000 - window, 90):
        assert len(set(parts[order[first : first + window]].tolist())) <= 2 * WINDOW_PARTS
    assert order.tolist() != epoch_order(parts, data_seed=3, epoch=6).tolist()
    few = epoch_order(np.repeat(np.arange(4), 500), data_seed=3, epoch=5)
    # One window: the first quarter of the order samples all four parts about equally.
    assert min(np.bincount(few[:500] // 500)) > 90


def test_every_batch_of_a_source_sorted_by_class_holds_many_classes(
    make_run: MakeRun, tmp_path: Path
) -> None:
    labels = np.arange(8000) // 80
    images = np.zeros((8000, 4, 4), np.uint8)
    np.savez(tmp_path / "sorted.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    source = {"source": "npz", "path": str(tmp_path / "sorted.npz"), "validation_fraction": 0.1}
    batches = batches_of(make_run(data=source), batch_size=512)
    held = [len(set(labels)) for _, labels in epoch_of(batches, 0)]
    assert len(held) == 14
    assert min(held) > 90  # of 100; 512 drawn at random hold 99.4


def test_a_source_without_labelled_test_reports_its_val(make_run: MakeRun, tmp_path: Path) -> None:
    blob = np.arange(16, dtype=np.uint8).reshape(4, 4)
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(blob).save(buffer, "PNG")
    rows = {
        "image": [buffer.getvalue()] * 44,
        "label": [0, 1] * 20 + [0, 1] + [-1, -1],
        "split": ["train"] * 40 + ["val"] * 2 + ["test"] * 2,
    }
    pq.write_table(pa.table(rows), tmp_path / "some.parquet")
    run = make_run(data={"source": "parquet", "path": str(tmp_path / "some.parquet")})
    assert read_manifest(run.data).counts == {"train": 40, "val": 2, "test": 2}
    selection = select(run.data, read_manifest(run.data), run.experiment.data)
    assert (selection.test.split, len(selection.test.rows)) == ("val", 2)
