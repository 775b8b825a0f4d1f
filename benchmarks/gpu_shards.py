"""Rows of benchmarks/gpu.py that read their images from shards."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from itertools import islice
from pathlib import Path

from gpu_training import COMPILED_LOOP, GOALS, NOTES, Row, Sizes, opened, row
from networks import Case
from shards import endless, large_images, opened_set, small_images
from steps import seconds_of_steps

from ltray.data.batches import Batches, DataSet, Split
from ltray.data.images import open_images
from ltray.data.manifest import read_manifest
from ltray.data.selection import select
from ltray.run import Run
from ltray.training.backends.choice import COMPILED
from ltray.training.gpu_use import GpuUse
from ltray.training.place import Place

WARM_UP = 10


def from_shards(sizes: Sizes, place: Place, folder: Path) -> Iterator[partial[list[Row]]]:
    """What is measured with shards; they are made when the first row that needs them comes."""

    @cache
    def large() -> DataSet:
        crop, threads = sizes.large[0].side, place.threads
        return streamed(
            large_images(folder, sizes.large_images, sizes.stored, crop, threads), place
        )

    @cache
    def small() -> DataSet:
        return opened_set(
            small_images(folder, sizes.small_images, sizes.small.side, place.threads), place
        )

    for case in sizes.large:
        for count in (1, sizes.large_pack):
            yield partial(large_pack, case, count, large, sizes, place)
    many = sizes.small_packs[-1]
    for backend, count in (("loop", 1), ("loop", many), ("fused", many), (COMPILED["fused"], many)):
        yield partial(small_epoch, backend, count, small, sizes, place)


def large_pack(
    case: Case, count: int, images: Callable[[], DataSet], sizes: Sizes, place: Place
) -> list[Row]:
    """Images per second, each ticket's counted, and how busy the GPU was meanwhile."""
    pack = opened(COMPILED_LOOP, case, count, place.device)
    batches = endless(Batches(images(), case.batch_size, data_seed=0))
    for batch in islice(batches, WARM_UP):  # the first ones wait for the readers to get ahead
        pack.train_step(*batch)
    with GpuUse(place.gpu_uuids) as use:
        seconds = seconds_of_steps(pack.train_step, batches, sizes.seconds, place.device)
        columns = use.columns()
    of = f"{case.arch}, {case.side} px, {case.precision}, {COMPILED_LOOP} of {count}"
    name = f"{of}, from shards"
    speed = count * case.batch_size / seconds
    busy = columns["gpu_utilisation"]
    return [
        row(name, speed, "images/s", GOALS[case.arch], note=NOTES[case.arch], **columns),
        row(f"{name}: GPU busy", busy, "of the time", 1.0, **columns),
    ]


def small_epoch(
    backend: str, count: int, images: Callable[[], DataSet], sizes: Sizes, place: Place
) -> list[Row]:
    """Seconds per ticket of an epoch, from the steps that fit the time."""
    case = sizes.small
    pack = opened(backend, case, count, place.device)
    batches = Batches(images(), case.batch_size, data_seed=0)
    seconds = seconds_of_steps(pack.train_step, endless(batches), sizes.seconds, place.device)
    name = f"{case.arch}, {sizes.small_images:,} images, {case.precision}, {backend} of {count}"
    per_ticket = seconds * sizes.small_images / case.batch_size / count
    return [row(name, per_ticket, "s/epoch/ticket", "loop of 1, above")]


def streamed(run: Run, place: Place) -> DataSet:
    """The same with train images read and decoded as they are needed: ImageNet fits no GPU."""
    manifest, data_set = read_manifest(run.data), opened_set(run, place)
    train = select(run.data, manifest, run.experiment.data).train
    images = open_images(run.data, manifest, train, place.device, place.threads, resident=False)
    return replace(data_set, train=Split(images, data_set.train.labels, data_set.train.parts))
