"""How long the thread that tells a GPU what to do waits for threads that make batches.

    python benchmarks/launching.py [--threads 1 2 4 8 16] [--seconds 3]

Python runs one thread at a time. Needs no GPU: in place of launching kernels the main thread calls
a C function that does nothing, as often as a compiled step of ResNet-50 launches kernels, with a
little Python between two calls; each call lets other threads run, as a launch does. Beside it,
shards of 227 pixels are read into batches of 256 by so many threads: decoded alone, as images are
that the GPU crops, or cropped as well. Shown are milliseconds of such a step, alone and beside the
readers, and the images that they make in a second.
"""

import argparse
import ctypes
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measuring import conditions, print_table, write_json
from numpy.typing import NDArray
from shards import large_images

from ltray.data.augment import training_crops
from ltray.data.images import EncodedImages, StreamedImages, encoded_parts
from ltray.data.manifest import read_manifest
from ltray.data.selection import select

LAUNCHES = 880
BETWEEN = 150  # turns of an empty loop between two launches: some microseconds
BATCH, SIDE, CROP = 256, 227, 224
IMAGES = 2000

Make = Callable[[int], object]


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--threads", type=int, nargs="+", default=(1, 2, 4, 8, 16))
    arguments.add_argument("--seconds", type=float, default=3.0, help="of each row")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    torch.set_num_threads(1)
    alone = statistics.median(launching() for _ in range(500))
    rows = []
    with tempfile.TemporaryDirectory(prefix="ltray-benchmark-") as folder:
        for threads in options.threads:
            for what, make in readers(Path(folder), threads).items():
                make(0)
                rows.append({"readers": what, "threads": threads, **beside(make, options.seconds)})
                print(f"  {rows[-1]}", flush=True)
    print_table(rows)
    where = conditions("torch", "simplejpeg")
    print(f"alone {1000 * alone:.2f} ms; {where}")
    write_json(options.json, {"alone_ms": 1000 * alone, "rows": rows, "where": where})


def launching() -> float:
    """Seconds."""
    nothing = ctypes.CDLL(None).getpid
    started = time.perf_counter()
    for _ in range(LAUNCHES):
        nothing()
        for _ in range(BETWEEN):
            pass
    return time.perf_counter() - started


def readers(folder: Path, threads: int) -> dict[str, Make]:
    """Functions that make the batch of a number."""
    run = large_images(folder, IMAGES, SIDE, CROP, threads=2)
    manifest = read_manifest(run.data)
    train = select(run.data, manifest, run.experiment.data).train
    parts = encoded_parts(run.data, manifest.parts["train"])
    encoded = EncodedImages(parts, train, manifest.pixels, threads)
    cropping = StreamedImages(encoded)
    whole = np.empty((BATCH, SIDE, SIDE, 3), dtype=np.uint8)

    def positions(number: int) -> NDArray[np.int64]:
        return (np.arange(BATCH) + number * BATCH) % len(train.rows)

    def keep(number: int, image: NDArray[np.uint8]) -> None:
        whole[number] = image

    def cropped(number: int) -> None:
        crops = training_crops("random_resized_crop", SIDE, CROP, 0, number, np.arange(BATCH))
        cropping.take(positions(number), crops, CROP)

    return {
        "decode": lambda number: encoded.decode(positions(number), keep),
        "decode and crop": cropped,
    }


def beside(make: Make, seconds: float) -> dict[str, float]:
    """Median and mean milliseconds of a step while another thread has batches made; images/s."""
    ended, made = threading.Event(), [0]

    def read() -> None:
        while not ended.is_set():
            made[0] += 1
            make(made[0])

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.5)
    before, started, taken = made[0], time.perf_counter(), [launching()]
    while time.perf_counter() - started < seconds:
        taken.append(launching())
    images = (made[0] - before) * BATCH / (time.perf_counter() - started)
    ended.set()
    reader.join()
    median, mean = (1000 * of(taken) for of in (statistics.median, statistics.mean))
    return {"median_ms": median, "mean_ms": mean, "images/s": images}


if __name__ == "__main__":
    main()
