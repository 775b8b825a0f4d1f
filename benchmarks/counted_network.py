"""A LeNet-300-100 that counts its training steps in a file, which is there when its process is not.

An experiment has it as `counted_network.py:lenet`; the environment, that of the workers too, names
the folder for the counts.
"""

import itertools
import mmap
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from torch import Tensor, nn

from ltray.models.classics import lenet_300_100
from ltray.models.own_networks import TRIED_WITH

FOLDER = "LTRAY_BENCHMARK_COUNTS"
FIELDS = 3  # of a file, eight bytes each: CPU seconds before the first step, steps, saved ones
Process = tuple[int, float]
"""its number and the time of its creation"""
NUMBERS = itertools.count()  # of this process's networks


def lenet(classes: int, channels: int, image_size: int) -> nn.Module:
    """The network; one copy of it is one ticket in one process."""
    network = lenet_300_100(classes, channels, image_size)
    counter = _Counter()
    network.register_forward_pre_hook(counter.take_step)
    # States and trained weights are read so.
    network.register_state_dict_pre_hook(counter.save)  # type: ignore[no-untyped-call]
    return network


class _Counter:
    def __init__(self) -> None:
        self._fields: memoryview[float] | None = None

    def take_step(self, network: nn.Module, inputs: tuple[Tensor]) -> None:
        if not network.training or len(inputs[0]) <= TRIED_WITH:
            return
        if self._fields is None:
            self._fields = _opened()
            self._fields[0] = time.process_time()
        self._fields[1] += 1.0

    def save(self, *_ignored: Any) -> None:
        if self._fields is not None:
            self._fields[2] = self._fields[1]


def _opened() -> "memoryview[float]":
    me = psutil.Process()
    name = f"{me.pid} {me.create_time()} {next(NUMBERS)}"
    with (Path(os.environ[FOLDER]) / name).open("xb+") as file:
        file.truncate(8 * FIELDS)
        return memoryview(mmap.mmap(file.fileno(), 8 * FIELDS)).cast("d")


@dataclass(frozen=True)
class Counts:
    """What one process did for all of its networks.

    Attributes:
        began: CPU seconds that the process had used when its first step began.
        steps: of training, each network's own.
        unsaved: those of them that came after a network's last state, or its trained weights, had
            been read to be written.
    """

    began: float
    steps: int
    unsaved: int


def counts_in(folder: Path) -> dict[Process, Counts]:
    """Of each process that has begun to train."""
    fields: defaultdict[Process, list[memoryview[float]]] = defaultdict(list)
    for file in folder.iterdir():
        pid, created, _ = file.name.split()
        fields[int(pid), float(created)].append(memoryview(file.read_bytes()).cast("d"))
    return {process: _together(of) for process, of in fields.items()}


def _together(networks: "Iterable[memoryview[float]]") -> Counts:
    began, steps, saved = zip(*networks, strict=True)
    return Counts(min(began), round(sum(steps)), round(sum(steps) - sum(saved)))
