"""Rows of benchmarks/gpu.py that need no images but random ones on the device."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from masking import shares
from measuring import summary
from networks import Case, batch, ticket
from steps import ROUNDS, finish, step_seconds

from ltray.lottery.snapshot import load_snapshot, save_snapshot
from ltray.training.backends.backend import Backend
from ltray.training.backends.choice import COMPILED, open_backend
from ltray.training.network import Network

Row = dict[str, Any]
COMPILED_LOOP = COMPILED["loop"]
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
        small: the network for fused packs, in both precisions.
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
    large_images=45_000,
    large_pack=5,
    small=Case("resnet20", 3, 32, 128, precision="bfloat16"),
    small_images=50_000,
    small_packs=(5, 20),
    resumed=(30, 15),
    seconds=4.0,
)
QUICK = Sizes(
    large=(
        Case("resnet50", 3, 32, 4, precision="bfloat16"),
        Case("mobilenet_v2", 3, 32, 4, precision="bfloat16"),
    ),
    stored=36,
    large_images=100,
    large_pack=2,
    small=Case("resnet20", 3, 16, 8, precision="bfloat16"),
    small_images=200,
    small_packs=(2, 3),
    resumed=(4, 2),
    seconds=0.2,
)


def row(name: str, ours: float | None, unit: str, anchor: float | str, **more: Any) -> Row:
    """One line of the table: our figure beside what it is to be compared with."""
    return {"row": name, "ours": ours, "unit": unit, "anchor": anchor, **more}


def of_large(sizes: Sizes, device: torch.device) -> Iterator[partial[list[Row]]]:
    """Large networks on one batch that stays on the device."""
    for case in sizes.large:
        for backend, count in (("loop", 1), (COMPILED_LOOP, 1), (COMPILED_LOOP, sizes.large_pack)):
            yield partial(large_pack, case, backend, count, sizes.seconds, device)


def of_small_and_shares(sizes: Sizes, device: torch.device) -> Iterator[partial[list[Row]]]:
    """Packs of a small network; the share of masks and what a resumed training differs in."""
    few, many = sizes.small_packs
    compiled = {"bfloat16": tuple(COMPILED.values()), "float32": (COMPILED["fused"],)}
    for precision in ("bfloat16", "float32"):
        small = replace(sizes.small, precision=precision)
        yield partial(fused_against_loop, small, few, ("fused",), sizes.seconds, device)
        others = ("fused", *compiled[precision])
        yield partial(fused_against_loop, small, many, others, sizes.seconds, device)
    for backend in ("loop", COMPILED_LOOP):
        for case in (sizes.small, *sizes.large):
            yield partial(resuming, case, backend, sizes.resumed, device)
    rounds, steps = (ROUNDS, 40) if sizes is FULL else (2, 2)
    for case, backend in ((sizes.small, "loop"), *((case, COMPILED_LOOP) for case in sizes.large)):
        yield partial(masking, case, backend, rounds, steps, device)


def large_pack(
    case: Case, backend: str, count: int, seconds: float, device: torch.device
) -> list[Row]:
    """Images per second, each ticket's counted, with one batch that is on the device already."""
    started = time.perf_counter()
    pack = opened(backend, case, count, device)
    finish(device)
    first_steps = time.perf_counter() - started
    step = partial(pack.train_step, *batch(case, device))
    found = summary(step_seconds([step], seconds, device)[0])
    speed = count * case.batch_size / found["median"]
    of = f"{case.arch}, {case.side} px, {case.precision}, {backend}"
    name = f"{of} of {count}, images on the device"
    rows = [row(name, speed, "images/s", GOALS[case.arch], step=found, note=NOTES[case.arch])]
    if backend == COMPILED_LOOP and count == 1:
        rows.append(row(f"{of}: compiling and 3 steps", first_steps, "s", "none"))
    return rows


def fused_against_loop(
    case: Case, count: int, others: tuple[str, ...], seconds: float, device: torch.device
) -> list[Row]:
    """Milliseconds per step and ticket, in turn, and how many times as fast as the loop."""
    images, labels = batch(case, device)
    names = ("loop", *others)
    packs = [opened(backend, case, count, device) for backend in names]
    steps = [partial(pack.train_step, images, labels) for pack in packs]
    found = [summary(taken) for taken in step_seconds(steps, seconds, device)]
    each = [1000 * taken["median"] / count for taken in found]
    of = f"{case.arch}, batch {case.batch_size}, {case.precision}, K = {count}"
    rows = [row(f"{of}: loop", each[0], "ms/step/ticket", "none", step=found[0])]
    goal: float | str = 4.0 if count == max(FULL.small_packs) else "1, the loop"
    for backend, ours, taken in zip(others, each[1:], found[1:], strict=True):
        rows.append(row(f"{of}: {backend}", ours, "ms/step/ticket", each[0], step=taken))
        rows.append(row(f"{of}: {backend} against loop", each[0] / ours, "times", goal))
    return rows


def masking(case: Case, backend: str, rounds: int, steps: int, device: torch.device) -> list[Row]:
    """Percent of a step: steps with masks against steps without, and the masking call alone."""
    found = shares(case, device, rounds, steps, backend)
    name = f"{case.arch}, batch {case.batch_size}, {case.precision}, {backend}: masking"
    note = "masking: the write-up that ltray grows from spent 93 % of a MobileNetV2's step on it"
    call = found["call"]
    assert call is not None, "both forms of loop call it"
    return [
        row(name, found["median"], "% of a step", 93, note=note, share=found),
        row(f"{name}, the call alone", call, "% of a step", 93, note=note),
    ]


def resuming(case: Case, backend: str, steps: tuple[int, int], device: torch.device) -> list[Row]:
    """How many tensors differ in any bit from those of never having stopped."""
    total, saved_at = steps
    whole, begun = ticket(case, device), ticket(case, device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.safetensors"
        train(backend, whole, case, total)
        train(backend, begun, case, saved_at)
        save_snapshot(path, begun.snapshot())
        resumed = ticket(case, device, state=load_snapshot(path))
    train(backend, resumed, case, total - saved_at)
    spread = differences(whole, resumed)
    name = f"{case.arch}, {case.precision}, {backend}: {total} steps, resumed at {saved_at}"
    return [row(name, float(len(spread)), "tensors differ", 0, largest_differences=spread)]


def train(backend: str, network: Network, case: Case, steps: int) -> None:
    """Let one network take steps on one batch."""
    alone = open_backend(backend, (network,))
    images, labels = batch(case, network.device)
    for _ in range(steps):
        alone.train_step(images, labels)


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
