"""Rows of benchmarks/gpu.py that need no images but random ones on the device."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from masking import shares
from measuring import summary
from networks import Case, batch, ticket
from steps import ROUNDS, step_seconds

from ltray.lottery.snapshot import load_snapshot, save_snapshot
from ltray.training.backends.backend import Backend
from ltray.training.backends.choice import open_backend
from ltray.training.network import Network

Row = dict[str, Any]
GOALS = {"resnet50": 5500, "mobilenet_v2": 8000}
NOTES = {
    "resnet50": "resnet50: 10,200 would be an H200's floor by unfused memory traffic, "
    "an A100 trains at about 2,500; 5,500 is the goal",
    "mobilenet_v2": "mobilenet_v2: 16,900 would be an H200's floor by unfused memory traffic; "
    "8,000 is the goal",
}


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        large: MobileNetV2 and ResNet-50 in bfloat16, with images of `stored` pixels a side in
            shards and `large_images` of them.
        small: the network for fused packs.
        large_pack, small_packs: tickets in a pack.
        resumed: steps in all, and after which of them the state is saved.
        seconds: of measuring each figure.
    """

    large: tuple[Case, ...]
    stored: int
    large_images: int
    large_pack: int
    small: Case
    small_images: int
    small_packs: tuple[int, int]
    resumed: tuple[int, int]
    seconds: float


FULL = Sizes(
    large=(
        Case("resnet50", 3, 224, 256, precision="bfloat16"),
        Case("mobilenet_v2", 3, 224, 256, precision="bfloat16"),
    ),
    stored=227,
    large_images=20_000,
    large_pack=5,
    small=Case("resnet20", 3, 32, 128),
    small_images=50_000,
    small_packs=(5, 20),
    resumed=(30, 15),
    seconds=8.0,
)
QUICK = Sizes(
    large=(
        Case("resnet50", 3, 32, 4, precision="bfloat16"),
        Case("mobilenet_v2", 3, 32, 4, precision="bfloat16"),
    ),
    stored=36,
    large_images=100,
    large_pack=2,
    small=Case("resnet20", 3, 16, 8),
    small_images=200,
    small_packs=(2, 3),
    resumed=(4, 2),
    seconds=0.2,
)


def row(name: str, ours: float, unit: str, anchor: float | str, **more: Any) -> Row:
    """One line of the table: our figure beside what it is to be compared with."""
    return {"row": name, "ours": ours, "unit": unit, "anchor": anchor, **more}


def synthetic(sizes: Sizes, device: torch.device) -> Iterator[partial[list[Row]]]:
    """What is measured without shards, the most telling first."""
    for case in sizes.large:
        for count in (1, sizes.large_pack):
            yield partial(large_pack, case, count, sizes.seconds, device)
    for precision in ("float32", "bfloat16"):
        small = replace(sizes.small, precision=precision)
        for count in sizes.small_packs:
            yield partial(fused_against_loop, small, count, sizes.seconds, device)
    rounds, steps = (ROUNDS, 40) if sizes is FULL else (2, 2)
    for case in (sizes.small, sizes.large[-1]):
        yield partial(masking, case, rounds, steps, device)
    for case in (sizes.small, *sizes.large):
        yield partial(resuming, case, sizes.resumed, device)


def large_pack(case: Case, count: int, seconds: float, device: torch.device) -> list[Row]:
    """Images per second, each ticket's counted, with one batch that is on the device already."""
    pack = opened("loop", case, count, device)
    step = partial(pack.train_step, *batch(case, device))
    found = summary(step_seconds([step], seconds, device)[0])
    speed = count * case.batch_size / found["median"]
    name = f"{case.arch}, {case.side} px, {case.precision}, pack of {count}, images on the device"
    return [row(name, speed, "images/s", GOALS[case.arch], step=found, note=NOTES[case.arch])]


def fused_against_loop(case: Case, count: int, seconds: float, device: torch.device) -> list[Row]:
    """Milliseconds per step and ticket of both, in turn, and how many times as fast fused is."""
    images, labels = batch(case, device)
    packs = [opened(backend, case, count, device) for backend in ("loop", "fused")]
    steps = [partial(pack.train_step, images, labels) for pack in packs]
    loop, fused = (summary(taken) for taken in step_seconds(steps, seconds, device))
    each = [1000 * found["median"] / count for found in (loop, fused)]
    name = f"{case.arch}, batch {case.batch_size}, {case.precision}, K = {count}"
    goal: float | str = 4.0 if count == max(FULL.small_packs) else "1, the loop"
    return [
        row(f"{name}: loop", each[0], "ms/step/ticket", "none", step=loop),
        row(f"{name}: fused", each[1], "ms/step/ticket", each[0], step=fused),
        row(f"{name}: fused against loop", each[0] / each[1], "times", goal),
    ]


def masking(case: Case, rounds: int, steps: int, device: torch.device) -> list[Row]:
    """Percent of a step."""
    found = shares(case, device, rounds, steps)
    name = f"{case.arch}, batch {case.batch_size}, {case.precision}: masking"
    note = "masking: the write-up that ltray grows from spent 93 % of a MobileNetV2's step on it"
    return [row(name, found["median"], "% of a step", 93, note=note, share=found)]


def resuming(case: Case, steps: tuple[int, int], device: torch.device) -> list[Row]:
    """How many tensors differ in any bit from those of never having stopped."""
    images, labels = batch(case, device)
    total, saved_at = steps
    whole, begun = ticket(case, device), ticket(case, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        for network, count in ((whole, total), (begun, saved_at)):
            for _ in range(count):
                network.train_step(images, labels)
        save_snapshot(path, begun.snapshot())
        resumed = ticket(case, device, state=load_snapshot(path))
    for _ in range(total - saved_at):
        resumed.train_step(images, labels)
    spread = differences(whole, resumed)
    name = f"{case.arch}, {case.precision}: {total} steps, resumed at {saved_at}"
    return [row(name, float(len(spread)), "tensors differ", 0, largest_differences=spread)]


def differences(one: Network, other: Network) -> dict[str, float]:
    """Tensor -> largest difference, of weights, statistics and optimizer state."""
    expected, found = tensors_of(one), tensors_of(other)
    assert expected.keys() == found.keys(), "a state file holds all tensors"
    return {
        name: float((value.double() - found[name].double()).abs().max())
        for name, value in expected.items()
        if not torch.equal(value, found[name])
    }


def tensors_of(network: Network) -> dict[str, torch.Tensor]:
    """All that a state file has of a network."""
    state = network.snapshot()
    of_optimizer = {
        f"{part} of {name}": value
        for name, parts in state.optimizer.items()
        for part, value in parts.items()
    }
    return {**state.model, **of_optimizer, "loss_sum": state.loss_sum}


def opened(backend: str, case: Case, count: int, device: torch.device) -> Backend:
    """A pack of masked tickets that have trained a few steps."""
    pack = open_backend(backend, tuple(ticket(case, device, seed=seed) for seed in range(count)))
    images, labels = batch(case, device)
    for _ in range(3):
        pack.train_step(images, labels)
    return pack
