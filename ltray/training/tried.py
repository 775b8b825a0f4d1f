"""One kind of training, a pack's or the dense run's, timed stretch by stretch."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from ltray.data.batches import Batch, Batches
from ltray.training.backends.backend import Backend, on_its_device
from ltray.training.denormals import denormals_as_zero
from ltray.training.evaluation import evaluate

STRETCH_SECONDS = 0.4


@dataclass(frozen=True)
class Tried:
    """One kind of training: a pack of tickets, or the dense run.

    Attributes:
        backend: that trained it.
        step_seconds: of one step of one network with the experiment's batch, its images at hand:
            of several stretches, each a mean.
        evaluation_seconds: of one image of one network, likewise.
        start_seconds: of building the networks and choosing how to train them.
    """

    backend: str
    step_seconds: tuple[float, ...]
    evaluation_seconds: tuple[float, ...]
    start_seconds: float


class Kind:
    """One kind of training, its networks ready for the next step."""

    def __init__(
        self, name: str, backend: Backend, batch: Batch, start_seconds: float, evaluated: int
    ) -> None:
        self.name = name
        self.backend = backend
        self.batch = batch
        self.start_seconds = start_seconds
        self.evaluated = evaluated
        self.steps: list[float] = []
        self.evaluations: list[float] = []

    def time(self, batches: Batches) -> None:
        """One stretch of steps and one evaluation."""
        with denormals_as_zero():  # as in training: one batch over and over makes many
            self.steps.append(stretch_of(lambda: train_step(self.backend, self.batch)))
        self.evaluations.append(seconds_of(lambda: evaluate([self.backend], batches)))

    def tried(self, scale: float) -> Tried:
        """For one network and one image."""
        count = len(self.backend.networks)
        return Tried(
            backend=self.name,
            step_seconds=tuple(scale * each / count for each in self.steps),
            evaluation_seconds=tuple(each / self.evaluated / count for each in self.evaluations),
            start_seconds=self.start_seconds,
        )


def train_step(backend: Backend, batch: Batch) -> None:
    """One step, to its end."""
    backend.train_step(*on_its_device(backend, batch))
    float(backend.networks[0].loss_sum)  # a GPU's step ends when a value of it is read


def seconds_of(work: Callable[[], object]) -> float:
    """What one call takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def stretch_of(work: Callable[[], object]) -> float:
    """The mean of as many calls as fit into a stretch, one at least."""
    started = time.perf_counter()
    calls, seconds = 0, 0.0
    while seconds < STRETCH_SECONDS:
        work()
        calls += 1
        seconds = time.perf_counter() - started
    return seconds / calls
