"""Seconds per epoch and ticket: packs from shards against a plain PyTorch loop with a DataLoader.

    python benchmarks/pack.py [--tickets 5] [--rounds 7] [--seconds 15] [--json FILE]

ResNet-20 as experiments/cifar10_resnet20.yaml has it: batches of 128, SGD with momentum and weight
decay, images padded by 4 pixels, cropped and flipped. The plain loop is what a tutorial writes: one
network, a data set of Pillow images, torchvision's transforms, a DataLoader. A pack goes all the
way from shards, with masks. Variants take turns in one process with one thread, which loads its
images itself. The images are made up; how fast they are read does not depend on what they show.

The anchor is the plain loop, measured beside the packs.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
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
from ltray.torchvision_import import import_torchvision
from ltray.training.backends.choice import open_backend
from ltray.training.place import Place, this_place

CIFAR10_IMAGES = 45_000  # of an epoch: 50,000 less a tenth for validation
SIDE, BATCH_SIZE, PADDING = 32, 128, 4
STORED = 10 * BATCH_SIZE
Variant = tuple[Callable[[torch.Tensor, torch.Tensor], None], Iterator[Batch], int]
"""a training step, its batches, for how many tickets"""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--tickets", type=int, default=5, help="of a pack")
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--seconds", type=float, default=15.0, help="of a variant in a round")
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    place = this_place()
    with tempfile.TemporaryDirectory() as folder:
        variants = every_variant(Path(folder), options.tickets, place)
        found = in_turn(variants, options.rounds, options.seconds, place.device)
    rows = [row_of(name, taken, found["plain loop"]) for name, taken in found.items()]
    print_table(rows)
    where = conditions("torch", "torchvision")
    print(f"seconds per epoch of {CIFAR10_IMAGES:,} images and ticket; {where}")
    write_json(options.json, {"seconds_per_epoch_and_ticket": rows, "where": where})


def every_variant(folder: Path, tickets: int, place: Place) -> dict[str, Variant]:
    """The plain loop and packs of one and of many."""
    run = small_images(folder, STORED, SIDE, place.threads)
    variants = {"plain loop": (plain_step(), plain_batches(), 1)}
    for count, precision in ((1, "float32"), (tickets, "float32"), (tickets, "bfloat16")):
        batches = Batches(opened_set(run, place), BATCH_SIZE, data_seed=0)
        step = pack_step(count, precision, place.device)  # type: ignore[arg-type]
        variants[f"pack of {count}, {precision}"] = (step, endless(batches), count)
    return variants


def pack_step(
    count: int, precision: Literal["float32", "bfloat16"], device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A pack as `auto` would train it on a CPU."""
    case = Case("resnet20", 3, SIDE, BATCH_SIZE, precision=precision)
    pack = open_backend("loop", tuple(ticket(case, device, seed=seed) for seed in range(count)))
    return pack.train_step


def plain_step() -> Callable[[torch.Tensor, torch.Tensor], None]:
    """One network by the lines that every tutorial has."""
    model = build("resnet20", CLASSES, 3, SIDE, seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step(images: torch.Tensor, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()
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


def in_turn(
    variants: dict[str, Variant], rounds: int, seconds: float, device: torch.device
) -> dict[str, list[float]]:
    """Variant -> seconds per epoch and ticket of each round."""
    found: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds):
        for name, (step, batches, count) in variants.items():
            taken = seconds_of_steps(step, batches, seconds, device) / count
            found[name].append(taken * CIFAR10_IMAGES / BATCH_SIZE)
        shown = ", ".join(f"{name} {each[-1]:.0f} s" for name, each in found.items())
        print(f"  round {number + 1}/{rounds}: {shown}", flush=True)
    return found


def row_of(name: str, taken: list[float], plain: list[float]) -> dict[str, Any]:
    """A line of the table; the ratios are each of one round."""
    ratios = [anchor / ours for anchor, ours in zip(plain, taken, strict=True)]
    times = summary(ratios)
    shown = f"{times['median']:.2f} ({times['min']:.2f} to {times['max']:.2f})"
    return {"variant": name, **summary(taken), "times as fast": shown}


if __name__ == "__main__":
    main()
