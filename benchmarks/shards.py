"""Shards without Ray: of any run, in this process, and of made-up images."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from ltray.data.archives.sources import open_source
from ltray.data.batches import Batch, Batches, DataSet, open_data_set
from ltray.data.manifest import read_manifest, write_manifest
from ltray.data.shards import plan, write_part
from ltray.locate import locate
from ltray.run import Run
from ltray.training.place import Place

CLASSES = 10
DIFFERENT = 256  # images that are made; more repeat them
COARSE = 8  # pixels that one pixel of an image's coarse structure covers
JPEG_QUALITY = 90
EXPERIMENT = {
    "name": "made-up",
    "model": {"arch": "resnet20"},
    "train": {"epochs": 1, "batch_size": 1, "lr": 0.1},
    "prune": {"sparsities": [0.5]},
    "reset": {"epochs": [0]},
}


def prepared(run: Run, threads: int = 1) -> None:
    """Make the run's shards in this process, if they are not made."""
    if run.data.manifest.is_file():
        return
    source = open_source(run.experiment.data)
    planned = plan(source, run.pixels)
    write = partial(write_part, source=source, pixels=run.pixels, folder=run.data)
    with ThreadPoolExecutor(threads) as pool:
        records = list(pool.map(write, planned.parts))
    write_manifest(run.data, planned, records, run.fingerprint, seconds=0.0)


def large_images(folder: Path, count: int, side: int, crop: int, threads: int) -> Run:
    """JPEG shards for random resized crops, of a folder of JPEG files; a fifth of them is test."""
    blobs = [_jpeg(image) for image in pictures(min(count, DIFFERENT), side)]
    for number in range(count):
        path = folder / "large" / f"class-{number % CLASSES}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(blobs[number % len(blobs)])
    data: dict[str, Any] = {
        "source": "image_folder",
        "path": str(folder / "large"),
        "encoding": "jpeg",
    }
    data |= {"image_size": side, "crop_size": crop, "augment": "random_resized_crop"}
    return _prepared_run(folder, data, threads)


def small_images(folder: Path, count: int, side: int, threads: int) -> Run:
    """Raw shards for crops after padding, of an npz file; nearly all of them are train."""
    images = pictures(min(count, DIFFERENT), side)
    labels = np.arange(count) % CLASSES
    path = folder / "small.npz"
    every = images[np.arange(count) % len(images)]
    np.savez(path, x_train=every, y_train=labels, x_test=images, y_test=labels[: len(images)])
    data = {"source": "npz", "path": str(path), "augment": "random_crop"}
    return _prepared_run(folder, data | {"validation_fraction": 0.01}, threads)


def opened_set(run: Run, place: Place) -> DataSet:
    """As a trial opens it."""
    manifest = read_manifest(run.data)
    return open_data_set(run.data, manifest, run.experiment.data, place.device, place.threads)


def endless(batches: Batches) -> Iterator[Batch]:
    """One epoch after the other."""
    epoch = 0
    while True:
        yield from batches.epoch(epoch)
        epoch += 1


def pictures(count: int, side: int) -> NDArray[np.uint8]:
    """[N, S, S, 3] with structure and noise: as JPEGs about as large as photographs."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 200, (count, -(-side // COARSE), -(-side // COARSE), 3))
    whole = coarse.repeat(COARSE, axis=1).repeat(COARSE, axis=2)[:, :side, :side]
    return (whole + random.integers(0, 24, whole.shape)).astype(np.uint8)


def _jpeg(image: NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _prepared_run(folder: Path, data: dict[str, Any], threads: int) -> Run:
    path = folder / f"{data['source']}.yaml"
    path.write_text(yaml.safe_dump({**EXPERIMENT, "data": data}))
    run = locate(path, folder / "runs")
    prepared(run, threads)
    return run
