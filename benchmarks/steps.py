"""How long training steps take, each to the end of what it gave the device to do."""

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch

from ltray.data.batches import Batch

ROUNDS = 5


def step_seconds(
    steps: Sequence[Callable[[], None]], seconds: float, device: torch.device
) -> list[list[float]]:
    """Seconds per step of each, in rounds in which they take turns; `seconds` in all or so."""
    once = [timed(step, 1, device) for step in steps]
    each = seconds / ROUNDS / len(steps)
    counts = [max(1, round(each / taken)) for taken in once]
    found: list[list[float]] = [[] for _ in steps]
    for _ in range(ROUNDS):
        for which, (step, count) in enumerate(zip(steps, counts, strict=True)):
            found[which].append(timed(step, count, device) / count)
    return found


def timed(step: Callable[[], None], count: int, device: torch.device) -> float:
    """Seconds of so many steps, to the end of what they gave the device to do."""
    finish(device)
    started = time.perf_counter()
    for _ in range(count):
        step()
    finish(device)
    return time.perf_counter() - started


def finish(device: torch.device) -> None:
    """Wait until the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of_steps(
    train_step: Callable[..., None], batches: Iterator[Batch], seconds: float, device: torch.device
) -> float:
    """Seconds per step with its batch, over about so many seconds."""
    for images, labels in islice(batches, 2):
        train_step(images, labels)
    finish(device)
    started, count = time.perf_counter(), 0
    for images, labels in batches:
        train_step(images, labels)
        count += 1
        if time.perf_counter() - started > seconds:
            break
    finish(device)
    return (time.perf_counter() - started) / count
