"""Which backend is fastest for a pack on its device, and how many tickets fit there together.

B images, C channels, H W pixels.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from ltray.training.backends.backend import Backend
from ltray.training.backends.choice import (
    BACKENDS,
    COMPILED,
    UNCOMPILED,
    check_covers,
    open_backend,
    why_not,
)
from ltray.training.network import Network

MEASURED_SECONDS = 0.2  # of each backend, after the first step
FEWEST_STEPS, MOST_STEPS = 3, 30
SHARE_MEASURED = 0.03  # of a short training's time, for measuring, once the fewest steps are done
WORTH = 1.1  # an earlier backend of the list is taken if it is nearly as fast
ROOM = 1.5  # what a step needs beyond what it saves for its backward pass
# Seconds of a device's training from which on torch.compile is tried on a GPU. It takes three
# quarters of a minute for ResNet-50 and makes a step 1.4 times as fast: it has paid after 150.
WORTH_COMPILING = 600.0

Make = Callable[[], Network]
Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Choice:
    """How a ticket is trained on one kind of device.

    Attributes:
        fits: how many such tickets a device's memory has room for; of a pack the others wait.
        milliseconds: backend -> per step and ticket, where several were measured.
        left_out: what could not be measured, and why.
    """

    backend: str
    fits: int
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    left_out: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Its fields."""
        return asdict(self)

    def told(self) -> str | None:
        """The measured milliseconds, fastest first, and what was left out."""
        by_time = sorted(self.milliseconds.items(), key=lambda item: item[1])
        told = [f"{name} {each:.3g}" for name, each in by_time]
        return ", ".join([*told, *([self.left_out] if self.left_out else [])]) or None


def choose(  # noqa: PLR0913, PLR0917 (what a pack is, and where)
    wanted: str,
    tickets: Sequence[Make],
    batch: Batch,
    memory: int,
    steps: int = 0,
    forms: int = 1,
) -> Choice:
    """Take the named backend, or for `auto` measure a few steps of each that fits and take the
    fastest; measure what a step keeps in memory, so that a pack that is too big is split.

    Args:
        tickets: make the networks of one device, for trying and throwing away.
        batch: images [B, C, H, W] and labels [B] of one training step.
        memory: bytes that the pack may take.
        steps: that each ticket has to train: where they take little time, not much of it goes into
            measuring, and where they take long, compiled steps are measured too. 0 = not known.
        forms: how often steps would have to be compiled: each device and each number of tickets
            that train together needs its own.

    Raises:
        LtrayError: the named backend cannot train such networks here.
    """
    first = tickets[0]()
    check_covers(wanted, first.model)
    names = _candidates(wanted, first.model, len(tickets))
    may_compile = wanted == "auto" and first.device.type == "cuda"
    need = _need(first, batch)
    fits = {name: _fitting(name, need, memory) for name in names}
    if len(names) == 1 and not may_compile:
        return Choice(names[0], fits[names[0]])
    share = memory // len(names)  # they are all there while they are measured
    packs = {
        name: tuple(make() for make in tickets[: _fitting(name, need, share)]) for name in names
    }
    opened = {name: open_backend(name, pack) for name, pack in packs.items()}
    taken = _milliseconds(opened, batch, steps)
    fast = _fastest(taken)
    left_out = None
    seconds = taken[fast] * len(tickets) * steps / 1000
    if may_compile and seconds > forms * WORTH_COMPILING:
        compiled = COMPILED[fast]
        fits[compiled] = fits[fast]
        try:
            taken |= _milliseconds({compiled: open_backend(compiled, packs[fast])}, batch, steps)
        except Exception as error:  # noqa: BLE001 (the compiler may lack or stumble over anything)
            left_out = f"{compiled} left out: {type(error).__name__}: {error}".splitlines()[0]
    fast = _fastest(taken)
    return Choice(fast, fits[fast], taken, left_out)


def _fastest(taken: Mapping[str, float]) -> str:
    """The first of the list that is about as fast as the fastest."""
    best = min(taken.values())
    return next(name for name in BACKENDS if name in taken and taken[name] <= best * WORTH)


def _candidates(wanted: str, model: torch.nn.Module, count: int) -> list[str]:
    if wanted != "auto":
        return [wanted]
    covering = [name for name in UNCOMPILED if why_not(name, model) is None]
    return [name for name in covering if count > 1 or name != "fused"]


def _milliseconds(backends: Mapping[str, Backend], batch: Batch, steps: int) -> dict[str, float]:
    """Medians per step and ticket, step by step in turn: what else runs here falls on all."""
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    for number in range(1 + MOST_STEPS):
        for name, backend in backends.items():
            started = time.perf_counter()
            backend.train_step(*batch)
            float(backend.networks[0].loss_sum)  # a GPU's step ends when a value of it is read
            seconds[name].append(time.perf_counter() - started)
        if number >= FEWEST_STEPS and _is_enough([each[1:] for each in seconds.values()], steps):
            break
    return {
        name: round(1000 * statistics.median(each[1:]) / len(backends[name].networks), 4)
        for name, each in seconds.items()
    }


def _is_enough(seconds: Sequence[Sequence[float]], steps: int) -> bool:
    """Whether each backend was measured long enough, or all of them for long enough together.

    Args:
        seconds: of each backend's steps, after its first.
        steps: of the training that they are measured for; 0 = not known.
    """
    training = steps * min(statistics.median(each) for each in seconds)
    measured = sum(map(sum, seconds))
    return min(map(sum, seconds)) > MEASURED_SECONDS or measured > SHARE_MEASURED * training > 0


@dataclass(frozen=True)
class _Need:
    """Bytes of one network: what it is between steps, and what a step saves beside that."""

    state: int
    step: int


def _need(network: Network, batch: Batch) -> _Need:
    own = {parameter.data_ptr() for parameter in network.parameters.values()}
    saved: dict[int, int] = {}

    def see(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.layout is torch.strided and tensor.data_ptr() not in own:
            saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        network.train_step(*batch)
    snapshot = network.snapshot()
    optimizer = [part for parts in snapshot.optimizer.values() for part in parts.values()]
    gradients = [one.grad for one in network.parameters.values() if one.grad is not None]
    kept = [*snapshot.model.values(), *optimizer, *gradients, *network.factors.values()]
    return _Need(sum(part.nbytes for part in kept), int(ROOM * sum(saved.values())))


def _fitting(name: str, need: _Need, memory: int) -> int:
    """How many networks fit; one at least, which may still be too much."""
    if name in {"loop", COMPILED["loop"]}:
        fitting = (memory - need.step) // need.state
    else:
        fitting = memory // (need.state + need.step)
    return max(1, fitting)
