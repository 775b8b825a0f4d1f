"""Images per CPU second from the nested train archive to shards, beside two process pools.

    python benchmarks/prepare.py --release FOLDER [--images 50000] [--rounds 3]

FOLDER holds ILSVRC2012_img_train.tar and ILSVRC2012_devkit_t12.tar.gz; a small release is repeated
under other names until it has so many images. Three variants take turns:

- ltray: the Ray Data job of `python -m ltray.prepare`, from the archive's index to the card;
- pool: the same parts by the same functions in a plain process pool, one process a core;
- pillow: decode, bicubic, JPEG q90 by Pillow in such a pool, its parts written as Parquet too.

They share one Ray session and one pool, and a first round is not counted; the figure counts every
process: workers, Ray's own, this one. Then the job is made in new sessions, with a tenth of the
images and with all: what starting costs, and the memory of one worker at either size.

The time on other clusters is a model: a job of few images, as measured here, for all that is
there once; the driver's CPU seconds (planning, handing out parts) one image after the other; all
of an image's CPU seconds divided among the cores.
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Self, cast

import torch
from archives import repeated
from measuring import TreeMeter, conditions, interleaved, print_table, rates, summary, write_json

from ltray.cluster.preparing import prepare
from ltray.cluster.resources import Cluster
from ltray.cluster.session import Connection, session
from ltray.cluster.tasks import CpuWork
from ltray.data.archives.source import Source
from ltray.data.archives.sources import open_source
from ltray.data.manifest import write_manifest
from ltray.data.pixels import JPEG_QUALITY, Pixels
from ltray.data.shards import SCHEMA, Part, PartRecord, plan, write_part
from ltray.files import write_whole
from ltray.layout import DataFolder
from ltray.locate import locate
from ltray.run import Run
from ltray.tables import table_bytes

IMAGENET = 1_281_167
EXPERIMENT = """
name: benchmark
data: {{source: ilsvrc2012, path: {path}, image_size: 227, validation_fraction: 0.1}}
model: {{arch: mobilenet_v2}}
train: {{epochs: 1, batch_size: 64, lr: 0.1}}
prune: {{sparsities: [0.5]}}
reset: {{epochs: [0]}}
"""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--release", type=Path, required=True)
    arguments.add_argument("--images", type=int, default=50_000)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="ltray-benchmark-"))
    few, many = options.images // 10, options.images
    release = repeated(options.release, many, folder / f"release-{many}")
    run = run_of(release, folder)
    with (
        ProcessPoolExecutor(
            mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool,
        session(Connection()) as cluster,
    ):
        variants = {
            "ltray": partial(by_ray, run, cluster),
            "pool": partial(by_pool, run, pool, write_part),
            "pillow": partial(by_pool, run, pool, write_part_by_pillow),
        }
        for work in variants.values():
            work()
        readings = interleaved(variants, options.rounds)
    found = {name: summary(rates(of, many)) for name, of in readings.items()}
    ours = found["ltray"]["median"]
    print_table([row(name, of, ours) for name, of in found.items()])
    small = run_of(repeated(options.release, few, folder / f"release-{few}"), folder)
    jobs = {images: one_job(of) for images, of in ((few, small), (many, run))}
    for images, job in jobs.items():
        print(f"{images:,} images in a new session: {job}")
    model = TimeModel.of(jobs, ours)
    print(model)
    for cores in (16, 64, 256):
        minutes = model.seconds(IMAGENET, cores) / 60
        print(f"{IMAGENET:,} images on {cores} cores: {minutes:,.1f} min")
    where = conditions("ray", "torch", "simplejpeg", "pillow", "pyarrow")
    print(where)
    write_json(
        options.json,
        {
            "images_per_cpu_second": found,
            "jobs": {images: asdict(job) for images, job in jobs.items()},
            "model": asdict(model),
            "where": where,
        },
    )
    if options.folder is None:
        shutil.rmtree(folder)


@dataclass(frozen=True)
class Job:
    """What one job took: all processes, the driver's CPU of it, MiB of the largest worker."""

    wall_seconds: float
    cpu_seconds: float
    driver_seconds: float
    worker_mib: float


@dataclass(frozen=True)
class TimeModel:
    """Seconds of a job = once + images x (one_by_one + divided / cores)."""

    once: float
    one_by_one: float
    divided: float

    @classmethod
    def of(cls, jobs: Mapping[int, Job], images_per_cpu_second: float) -> Self:
        """Fit to a small and a large job, by images."""
        (few, small), (many, large) = sorted(jobs.items())
        driver = max(0.0, large.driver_seconds - small.driver_seconds) / (many - few)
        once = small.wall_seconds - few / images_per_cpu_second / (cpu_count() or 1)
        return cls(max(0.0, once), driver, 1 / images_per_cpu_second)

    def seconds(self, images: int, cores: int) -> float:
        """On so many cores."""
        return self.once + images * (self.one_by_one + self.divided / cores)


def row(name: str, figures: Mapping[str, float], ours: float) -> dict[str, object]:
    """A line of the table."""
    return {"variant": name, **figures, "ltray is": f"{ours / figures['median']:.2f} of it"}


def run_of(release: Path, folder: Path) -> Run:
    """The run that a release is prepared for."""
    path = folder / "experiment.yaml"
    path.write_text(EXPERIMENT.format(path=release))
    return locate(path, folder / "root")


def by_ray(run: Run, cluster: Cluster) -> None:
    """Prepare from nothing in the Ray session."""
    shutil.rmtree(run.data.path, ignore_errors=True)
    prepare(run, CpuWork(cluster, _unsaid), _unsaid)


def _unsaid(_line: str) -> None:
    pass


def by_pool(run: Run, pool: ProcessPoolExecutor, write: Callable[..., PartRecord | None]) -> None:
    """Prepare from nothing in a process pool."""
    shutil.rmtree(run.data.path, ignore_errors=True)
    source = open_source(run.experiment.data)
    planned = plan(source, run.pixels, pool.map)
    job = partial(write, source=source, pixels=run.pixels, folder=run.data)
    records = list(pool.map(job, planned.parts))
    written = [record for record in records if record is not None]
    if written:
        write_manifest(run.data, planned, written, run.fingerprint, seconds=0.0)


def one_job(run: Run) -> "Job":
    """Prepare from nothing in a Ray session of its own."""
    with session(Connection()) as cluster, TreeMeter() as meter:
        by_ray(run, cluster)
    return Job(
        **asdict(meter.reading),
        driver_seconds=meter.own_process_seconds,
        worker_mib=meter.peak_mib("ray::"),
    )


def write_part_by_pillow(part: Part, source: Source, pixels: Pixels, folder: DataFolder) -> None:
    """What one would write first: Pillow for everything."""
    import pyarrow as pa

    files = cast("Iterator[bytes]", source.read(part.examples))
    images = [by_pillow(file, pixels.image_size) for file in files]
    table = pa.table([part.examples.keys, images, part.examples.labels], schema=SCHEMA)
    write_whole(folder.part(part.split, part.number), table_bytes(table, "none"))


def by_pillow(content: bytes, size: int) -> bytes:
    """Decode, crop, resize and encode the bytes of a file."""
    from PIL import Image

    picture = Image.open(BytesIO(content)).convert("RGB")
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    box = (left, top, left + short, top + short)
    file = BytesIO()
    picture.resize((size, size), Image.Resampling.BICUBIC, box=box).save(
        file, "JPEG", quality=JPEG_QUALITY
    )
    return file.getvalue()


if __name__ == "__main__":
    main()
