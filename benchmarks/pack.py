"""Seconds per epoch and ticket: packs from shards against a plain PyTorch loop with a DataLoader.

    python benchmarks/pack.py [--tickets 5] [--rounds 7] [--seconds 15] [--json FILE]

ResNet-20 as experiments/cifar10_resnet20.yaml has it: batches of 128, SGD with momentum and weight
decay, images padded by 4 pixels, cropped and flipped. The plain loop is what a tutorial writes: one
network, a data set of Pillow images, torchvision's transforms, a DataLoader, and nothing set but
the number of threads. A pack goes all the way from shards, with masks. Each variant has a process
with one thread, which loads its images itself; they take turns, and those that wait sleep. The
images are made up; how fast they are read does not depend on what they show.

The anchor is the plain loop, measured beside the packs.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import torch
from measuring import conditions, print_table, summary, write_json
from networks import Case, ticket
from numpy.typing import NDArray
from PIL import Image
from shards import CLASSES, endless, opened_set, pictures, small_images
from steps import seconds_of_steps
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from ltray.data.batches import Batch, Batches
from ltray.models.networks import build
from ltray.run import Run
from ltray.torchvision_import import import_torchvision
from ltray.training.backends.choice import open_backend
from ltray.training.place import this_place

CIFAR10_IMAGES = 45_000  # of an epoch: 50,000 less a tenth for validation
SIDE, BATCH_SIZE, PADDING = 32, 128, 4
STORED = 10 * BATCH_SIZE
PLAIN = "plain loop"
Step = Callable[[torch.Tensor, torch.Tensor], None]


@dataclass(frozen=True)
class Variant:
    """What one process trains; without a precision it is the plain loop."""

    tickets: int = 1
    precision: Literal["float32", "bfloat16"] | None = None

    @property
    def name(self) -> str:
        return f"pack of {self.tickets}, {self.precision}" if self.precision else PLAIN


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--tickets", type=int, default=5, help="of a pack")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=15.0, help="of a variant in a round")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    many = options.tickets
    packs = [Variant(1, "float32"), Variant(many, "float32"), Variant(many, "bfloat16")]
    with tempfile.TemporaryDirectory() as folder:
        run = small_images(Path(folder), STORED, SIDE, threads=1)
        found = in_turn([Variant(), *packs], run, options.rounds, options.seconds)
    rows = [row_of(name, taken, found[PLAIN]) for name, taken in found.items()]
    print_table(rows)
    where = conditions("torch", "torchvision")
    print(f"seconds per epoch of {CIFAR10_IMAGES:,} images and ticket; {where}")
    write_json(options.json, {"seconds_per_epoch_and_ticket": rows, "where": where})


def in_turn(
    variants: Sequence[Variant], run: Run, rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Variant -> seconds per epoch and ticket of each round."""
    found: dict[str, list[float]] = {variant.name: [] for variant in variants}
    with ExitStack() as processes:
        pools = {one: processes.enter_context(process_of(one, run)) for one in variants}
        for number in range(rounds):
            for variant, pool in pools.items():
                taken = pool.submit(seconds_of_a_step, seconds).result() / variant.tickets
                found[variant.name].append(taken * CIFAR10_IMAGES / BATCH_SIZE)
            shown = ", ".join(f"{name} {each[-1]:.0f} s" for name, each in found.items())
            print(f"  round {number + 1}/{rounds}: {shown}", flush=True)
    return found


def process_of(variant: Variant, run: Run) -> ProcessPoolExecutor:
    """A process that stands ready to take steps."""
    return ProcessPoolExecutor(1, get_context("spawn"), prepare, (variant, run))


ready: list[tuple[Step, Iterator[Batch]]] = []
"""what this process trains"""


def prepare(variant: Variant, run: Run) -> None:
    """Make a process ready."""
    torch.set_num_threads(1)
    ready.append(pack_on_shards(variant, run) if variant.precision else plain_training())


def seconds_of_a_step(seconds: float) -> float:
    """Of all tickets, over about so many seconds."""
    return seconds_of_steps(*ready[0], seconds, torch.device("cpu"))


def pack_on_shards(variant: Variant, run: Run) -> tuple[Step, Iterator[Batch]]:
    """As a trial trains it, by `loop`, which `auto` takes for it on a CPU."""
    assert variant.precision is not None
    place = this_place()
    case = Case("resnet20", 3, SIDE, BATCH_SIZE, precision=variant.precision)
    seats = tuple(ticket(case, place.device, seed=seed) for seed in range(variant.tickets))
    batches = Batches(opened_set(run, place), BATCH_SIZE, data_seed=0)
    return open_backend("loop", seats).train_step, endless(batches)


def plain_training() -> tuple[Step, Iterator[Batch]]:
    """By the lines that every tutorial has."""
    return plain_step(), plain_batches()


def plain_step() -> Step:
    """Of one network."""
    model = build("resnet20", CLASSES, 3, SIDE, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def plain_batches() -> Iterator[Batch]:
    """Shuffled and augmented, one epoch after the other."""
    loader = DataLoader(PillowImages(STORED), BATCH_SIZE, shuffle=True, drop_last=True)
    while True:
        yield from loader


class PillowImages(Dataset[tuple[torch.Tensor, int]]):
    """As torchvision's CIFAR10: an array, of which each image goes through Pillow."""

    def __init__(self, count: int) -> None:
        self._images: NDArray[Any] = pictures(count, SIDE)
        transforms = import_torchvision().transforms
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(SIDE, padding=PADDING),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
            ]
        )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._images[number])), number % CLASSES


def row_of(name: str, taken: list[float], plain: list[float]) -> dict[str, Any]:
    """A line of the table; the ratios are each of one round."""
    ratios = [anchor / ours for anchor, ours in zip(plain, taken, strict=True)]
    times = summary(ratios)
    shown = f"{times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f})"
    return {"variant": name, **summary(taken), "times as fast": shown}


if __name__ == "__main__":
    main()
