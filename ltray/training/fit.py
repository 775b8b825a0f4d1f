"""The loop. A dense run is a pack of one network whose mask is all ones."""

import math
import time
from collections.abc import Callable, Sequence

from ltray.data.batches import Batches
from ltray.training.evaluation import evaluate
from ltray.training.network import Network
from ltray.training.recipe import Recipe

OnEpoch = Callable[[Sequence[Network]], None]


def fit(
    pack: Sequence[Network],
    batches: Batches,
    recipe: Recipe,
    on_epoch: OnEpoch,
    until: int | None = None,
) -> None:
    """Train a pack's networks, one after the other on one stream of batches.

    The stream begins at the earliest network's step; a network joins when the stream reaches its
    own. One whose loss is not finite at an evaluation is marked diverged and left behind.

    Args:
        pack: networks of one architecture and one data order.
        batches: of that data order.
        recipe: theirs.
        on_epoch: called after each evaluation with the networks that took part; those that have
            not diverged have one more row in `epochs`.
        until: the step to stop before; the end of the recipe when None.
    """
    last = recipe.total_steps if until is None else until
    step = min(network.step for network in pack)
    while step < last:
        running = [one for one in pack if one.step == step and not one.diverged]
        waiting = [one.step for one in pack if one.step > step and not one.diverged]
        if not running:
            step = min(waiting, default=last)
            continue
        stop = min([last, recipe.next_pause(step), *waiting])
        _train(running, batches, recipe, step, stop)
        step = stop
        if recipe.evaluates_after(step):
            _measure(running, batches, recipe)
            on_epoch(running)


def _train(
    networks: Sequence[Network], batches: Batches, recipe: Recipe, step: int, stop: int
) -> None:
    """Take the steps from `step` to before `stop`, all of one epoch.

    Networks take turns step by step, so each is charged an equal share of the wall time.
    """
    started = time.perf_counter()
    epoch, first = divmod(step, recipe.steps_per_epoch)
    for images, labels in batches.epoch(epoch, first, first + stop - step):
        for network in networks:
            network.train_step(images, labels)
    for network in networks:
        float(network.loss_sum)  # a GPU has done its steps only when a value of them is read
    share = (time.perf_counter() - started) / len(networks)
    for network in networks:
        network.train_seconds += share


def _measure(networks: Sequence[Network], batches: Batches, recipe: Recipe) -> None:
    """Append an epoch row to each network, or mark it diverged."""
    for network, scores in zip(networks, evaluate(networks, batches), strict=True):
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
