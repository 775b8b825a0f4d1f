"""The loop. A dense run is a pack of one network whose mask is all ones."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ltray.data.batches import Batches
from ltray.training.backends.backend import Backend, Seats
from ltray.training.backends.choice import open_backend
from ltray.training.evaluation import evaluate
from ltray.training.network import Network
from ltray.training.recipe import Recipe

OnEpoch = Callable[[Sequence[Network]], None]


@dataclass(frozen=True)
class Member:
    """One of a pack.

    Attributes:
        first_step: where its ticket joins the stream of batches when nothing is done yet.
        network: None when its ticket had ended before.
    """

    first_step: int
    network: Network | None


def fit(  # noqa: PLR0913, PLR0917 (each is a thing of its own)
    pack: Sequence[Member],
    backend: str,
    batches: Batches,
    recipe: Recipe,
    on_epoch: OnEpoch,
    until: int | None = None,
) -> None:
    """Train a pack's networks together on one stream of batches.

    The stream begins at the earliest network's step; a network joins when the stream reaches its
    own. One whose loss is not finite at an evaluation is marked diverged and left behind. Which
    networks are computed together at a step, and in which places, depends on the pack alone and
    not on what was done before.

    Args:
        pack: tickets of one architecture and one data order.
        backend: the name of the one to train by.
        batches: of that data order.
        recipe: theirs.
        on_epoch: called after each evaluation with the networks that took part; those that have
            not diverged have one more row in `epochs`.
        until: the step to stop before; the end of the recipe when None.
    """
    last = recipe.total_steps if until is None else until
    networks = [one.network for one in pack if one.network is not None]
    step = min(network.step for network in networks)
    together: Backend | None = None
    while step < last:
        waiting = [one.step for one in networks if one.step > step and not one.diverged]
        seats = _seats(pack, step)
        if not any(seats):
            step = min(waiting, default=last)
            continue
        if together is None or together.seats != seats:
            together = open_backend(backend, seats)
        stop = min([last, recipe.next_pause(step), *waiting])
        _train(together, batches, recipe, step, stop)
        step = stop
        if recipe.evaluates_after(step):
            _measure(together, batches, recipe)
            on_epoch(together.networks)


def _seats(pack: Sequence[Member], step: int) -> Seats:
    """Who is computed together: all that have joined by now; a seat is empty if one is not here."""
    joined = [one.network for one in pack if one.first_step <= step]
    return tuple(
        network if network and network.step == step and not network.diverged else None
        for network in joined
    )


def _train(together: Backend, batches: Batches, recipe: Recipe, step: int, stop: int) -> None:
    """Take the steps from `step` to before `stop`, all of one epoch.

    Each network is charged an equal share of the wall time.
    """
    started = time.perf_counter()
    epoch, first = divmod(step, recipe.steps_per_epoch)
    for images, labels in batches.epoch(epoch, first, first + stop - step):
        together.train_step(images, labels)
    for network in together.networks:
        float(network.loss_sum)  # a GPU has done its steps only when a value of them is read
    together.settle()
    share = (time.perf_counter() - started) / len(together.networks)
    for network in together.networks:
        network.train_seconds += share


def _measure(together: Backend, batches: Batches, recipe: Recipe) -> None:
    """Append an epoch row to each network, or mark it diverged."""
    for network, scores in zip(together.networks, evaluate(together, batches), strict=True):
        loss = network.mean_loss()
        row = {
            "ticket": network.name,
            "epoch": network.step / recipe.steps_per_epoch,
            "step": network.step,
            "train_loss": loss,
            **scores.figures,
            "learning_rate": recipe.learning_rate(network.step - 1),
            "seconds": network.train_seconds,
        }
        network.correct = scores.correct
        network.diverged = not all(map(math.isfinite, (loss, *scores.figures.values())))
        if not network.diverged:
            network.epochs.append(row)
