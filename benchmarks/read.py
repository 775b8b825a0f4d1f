"""Images per CPU second from 227-pixel shards to uint8 training batches, beside torchvision.

    python benchmarks/read.py --release FOLDER [--images 50000] [--rounds 5] [--threads 1]

FOLDER holds ILSVRC2012_img_train.tar and ILSVRC2012_devkit_t12.tar.gz; a small release is repeated
under other names until it has so many images. Two variants take turns over the same encoded images
(read, random resized crop to 224, flip, uint8, batches of 512):

- ltray: what `Batches` does for images that do not fit the device;
- torchvision: torchvision.io.decode_jpeg, then v2.RandomResizedCrop and v2.RandomHorizontalFlip.

Making the shards, imports and a first epoch are not counted, nor is the disk: each round's shards
are read into the page cache before it. ltray's images stay open from epoch to epoch as they do in
training, so that a few parts are still held from the epoch before (64 at most; reading a part again
costs 10 microseconds an image). At the end: what starting takes, the memory of this process after
each of three more epochs, and how many classes a batch holds.
"""

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import torch
from archives import repeated
from measuring import conditions, interleaved, print_table, rates, summary, write_json
from prepare import run_of
from shards import prepared

from ltray.data.augment import training_crops
from ltray.data.batches import EXPECTED_AHEAD, epoch_order
from ltray.data.images import Images, open_images
from ltray.data.manifest import read_manifest
from ltray.data.selection import Labelled, select
from ltray.run import Run
from ltray.tables import read_table

BATCH = 512
CROP = 224
EPOCHS = 3


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--release", type=Path, required=True)
    arguments.add_argument("--images", type=int, default=50_000)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ltray-benchmark-"))
    release = folder / f"release-{options.images}"
    run = run_of(repeated(options.release, options.images, release), folder)
    prepared(run)
    manifest = read_manifest(run.data)
    train = select(run.data, manifest, run.experiment.data).train
    imported = time.time() - psutil.Process().create_time()
    started = time.perf_counter()
    cpu = torch.device("cpu")
    images = open_images(run.data, manifest, train, cpu, options.threads, resident=False)
    side = manifest.pixels.image_size
    next(batches(images, train, side, 0))
    first_batch = time.perf_counter() - started
    epochs = itertools.count(1)
    variants = {
        "ltray": lambda: an_epoch(images, train, side, next(epochs)),
        "torchvision": lambda: by_torchvision(run, train),
    }

    def shards_to_page_cache() -> None:
        for part in manifest.parts["train"]:
            (run.data.path / part.path).read_bytes()

    count = variants["ltray"]()
    assert variants["torchvision"]() == count, "both read the same images"
    found = {
        name: summary(rates(of, count))
        for name, of in interleaved(variants, options.rounds, shards_to_page_cache).items()
    }
    print_table([{"variant": name, **of} for name, of in found.items()])
    print(f"imports and shards {imported:.1f} s, then the first batch after {first_batch:.2f} s")
    memory = [memory_after(variants["ltray"]) for _ in range(EPOCHS)]
    print(f"MiB of this process after each epoch: {', '.join(f'{mib:,.0f}' for mib in memory)}")
    held = classes_in_batches(train)
    print(f"classes in a batch of {BATCH}: {min(held)} to {max(held)} of {len(set(train.labels))}")
    where = conditions("torch", "torchvision", "simplejpeg", "pyarrow")
    print(where)
    write_json(
        options.json,
        {
            "images_per_cpu_second": found,
            "first_batch_seconds": first_batch,
            "mib_after_epochs": memory,
            "classes_in_a_batch": [min(held), max(held)],
            "where": where,
        },
    )
    if options.folder is None:
        shutil.rmtree(folder)


def batches(images: Images, train: Labelled, side: int, epoch: int) -> Iterator[torch.Tensor]:
    """An epoch in its own order."""
    order = epoch_order(train.parts, data_seed=0, epoch=epoch)
    for first in range(0, len(order), BATCH):
        images.expect(order[first : first + EXPECTED_AHEAD * BATCH])
        chosen = order[first : first + BATCH]
        positions = np.arange(first, first + len(chosen))
        crops = training_crops("random_resized_crop", side, CROP, 0, epoch, positions)
        yield images.take(chosen, crops, CROP)


def an_epoch(images: Images, train: Labelled, side: int, epoch: int) -> int:
    """Read it; returns how many images it has."""
    return sum(len(batch) for batch in batches(images, train, side, epoch))


def memory_after(epoch: Callable[[], object]) -> float:
    """MiB."""
    epoch()
    return float(psutil.Process().memory_info().rss) / 2**20


def classes_in_batches(train: Labelled) -> list[int]:
    """How many classes each whole batch of an epoch shows."""
    order = epoch_order(train.parts, data_seed=0, epoch=0)
    whole = range(0, len(order) - BATCH + 1, BATCH)
    return [len(set(train.labels[order[first : first + BATCH]])) for first in whole]


def by_torchvision(run: Run, train: Labelled) -> int:
    """The same images in the shards' order, which costs nothing."""
    from torchvision.io import ImageReadMode, decode_jpeg
    from torchvision.transforms import v2

    transform = v2.Compose([v2.RandomResizedCrop(CROP, antialias=True), v2.RandomHorizontalFlip()])
    count = 0
    for number in np.unique(train.parts).tolist():
        blobs = read_table(run.data.part("train", number), ["image"])["image"].to_pylist()
        rows = train.rows[train.parts == number].tolist()
        tensors = [torch.frombuffer(bytearray(blobs[row]), dtype=torch.uint8) for row in rows]
        made = [transform(decode_jpeg(tensor, ImageReadMode.RGB)) for tensor in tensors]
        count += len(torch.stack(made))
    return count


if __name__ == "__main__":
    main()
