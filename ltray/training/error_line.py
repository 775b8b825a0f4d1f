"""The straight line between the weights of two trained networks, and the errors along it.

A points of the line, N images of a split.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltray.data.batches import Batches
from ltray.files import is_there, read_json, write_json
from ltray.layout import TicketFolder
from ltray.lottery.pairs import Pair
from ltray.lottery.snapshot import Snapshot
from ltray.randomness import seed_for
from ltray.run import Run
from ltray.tensors import Tensors, read_tensors
from ltray.training.backends.loop import Loop
from ltray.training.evaluation import Scores, evaluate
from ltray.training.network import Network
from ltray.training.place import Place
from ltray.training.recipe import Recipe
from ltray.training.start import now, open_batches, untrained

POINTS = 11  # of the line, both ends included
STATISTICS_BATCHES = 50  # of training, at most, that BatchNorm's statistics are taken from
RESAMPLED = 1000
RESAMPLED_AT_ONCE = 50  # 128,000 images each take 50 MB
TAIL = 0.025  # on each side of a 95 % interval

Correct = NDArray[np.bool_]


def measure_line(run: Run, pair: Pair, place: Place) -> dict[str, Any]:
    """The record of a pair, made and written if it is not there.

    Returns:
        {"row": what stability/barriers.parquet has of it}.
    """
    before = measured_line(run, pair)
    if before is not None:
        return before
    ends = _ends(run, pair)
    started = time.perf_counter()
    batches = open_batches(run, place, pair.one.data_seed)
    weights = [read_tensors(end.weights)[0] for end in ends]
    scores = list(_along(run, batches, place, pair, *weights))
    record = {
        "between": _trained(ends),
        "row": {
            "replicate": pair.one.replicate,
            "ticket": pair.one.name,
            "other": pair.other.name,
            "sparsity": pair.one.sparsity,
            "reset_epoch": pair.one.reset_epoch,
            "at": [number / (POINTS - 1) for number in range(POINTS)],
            **_columns("val", "validation", scores, pair),
            **_columns("test", "test", scores, pair),
            "device": place.device_name,
            "node": place.node,
            "seconds": time.perf_counter() - started,
            "finished_at": now(),
        },
    }
    write_json(run.folder.stability.line(pair.one.replicate, pair.one.name), record)
    return record


def measured_line(run: Run, pair: Pair) -> dict[str, Any] | None:
    """The record of a pair; None where there is none of what its copies are trained to by now."""
    path = run.folder.stability.line(pair.one.replicate, pair.one.name)
    ends = _ends(run, pair)
    if not all(is_there(file) for file in (path, *(end.done for end in ends))):
        return None
    record = read_json(path)
    return record if record["between"] == _trained(ends) else None


def _ends(run: Run, pair: Pair) -> list[TicketFolder]:
    replicate = run.folder.replicate(pair.one.replicate)
    return [replicate.ticket(ticket.name) for ticket in (pair.one, pair.other)]


def _trained(ends: Sequence[TicketFolder]) -> list[str | None]:
    """The hashes of what copies are trained to; None of one that diverged."""
    return [read_json(end.done)["sha256"].get(end.weights.name) for end in ends]


def barrier(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest error on a line minus the mean of its ends: [A, ...] -> [...].

    Source: Frankle et al. 2020, section 2 (arXiv 1912.05671), error barrier height.
    """
    return np.asarray(errors.max(axis=0) - (errors[0] + errors[-1]) / 2)


def barrier_interval(correct: Correct, seed: int) -> tuple[float, float]:
    """A 95 % interval of the barrier over images like these: percentiles of resampled ones.

    It reaches down to the barrier itself: of each sample the highest of several points is taken, so
    that a barrier of zero is hardly ever drawn again.

    Args:
        correct: [A, N], the same images at every point.

    Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, section 13.3.
    """
    source = np.random.default_rng(seed)
    wrong = (~correct).astype(np.float64)
    images = wrong.shape[1]
    found: list[NDArray[np.float64]] = []
    for first in range(0, RESAMPLED, RESAMPLED_AT_ONCE):
        times = min(RESAMPLED_AT_ONCE, RESAMPLED - first)
        drawn = source.multinomial(images, np.full(images, 1 / images), size=times)
        found.append(barrier(wrong @ drawn.T / images))
    low, high = np.quantile(np.concatenate(found), [TAIL, 1 - TAIL])
    return min(float(low), float(barrier(wrong.mean(axis=1)))), float(high)


def between(one: Tensors, other: Tensors, at: float) -> Tensors:
    """The point of the line at a share of the way; both ends, and equal tensors, to the bit."""
    return {
        name: torch.lerp(value, other[name], at) if value.is_floating_point() else value
        for name, value in one.items()
    }


@torch.no_grad()
def reestimate(model: nn.Module, batches: Batches) -> None:
    """Take BatchNorm's statistics anew, as means over the first training batches of epoch 0.

    Those of either end say nothing of what lies between.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # all batches count alike
        norm.train()
    stop = min(STATISTICS_BATCHES, batches.steps_per_epoch)
    for images, _ in batches.epoch(0, 0, stop):
        model(images.to(next(model.parameters()).device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def _along(  # noqa: PLR0913, PLR0917 (where, between what)
    run: Run, batches: Batches, place: Place, pair: Pair, one: Tensors, other: Tensors
) -> Iterator[Scores]:
    """The scores of each point, from the first copy to the other."""
    model = untrained(run, batches.classes, pair.one.seed, place.device)
    recipe = Recipe(run.experiment.train, batches.steps_per_epoch)
    network = Network("line", model, Snapshot(step=0, model=one), {}, recipe, data_seed=0)
    loop = Loop((network,))
    for number in range(POINTS):
        model.load_state_dict(between(one, other, number / (POINTS - 1)))
        with network.autocast():
            reestimate(model, batches)
        yield from evaluate([loop], batches)


def _columns(prefix: str, split: str, scores: list[Scores], pair: Pair) -> dict[str, Any]:
    correct = np.stack([score.correct[split].numpy() for score in scores])
    errors = 1 - correct.mean(axis=1)
    seed = seed_for(pair.one.seed, "bootstrap", pair.one.name, split)
    low, high = barrier_interval(correct, seed)
    return {
        f"{prefix}_errors": errors.tolist(),
        f"{prefix}_barrier": float(barrier(errors)),
        f"{prefix}_barrier_low": low,
        f"{prefix}_barrier_high": high,
    }
