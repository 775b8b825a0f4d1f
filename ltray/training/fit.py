"""The loop. A dense run is a pack of one network whose mask is all ones."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ltray.data.batches import Batches
from ltray.training.backends.backend import Backend, Seats, on_its_device
from ltray.training.backends.choice import open_backend
from ltray.training.denormals import denormals_as_zero
from ltray.training.evaluation import evaluate
from ltray.training.network import Network
from ltray.training.recipe import Recipe
from ltray.training.states import States

OnEpoch = Callable[[Sequence[Network]], None]
Where = tuple[str, int]
"""backend and part: what is computed as one"""


@dataclass(frozen=True)
class Member:
    """One of a pack.

    Attributes:
        first_step: where its ticket joins the stream of batches when nothing is done yet.
        backend: the name of the one that trains it.
        part: which of the trial's devices it is on.
        network: None when its ticket had ended before.
    """

    first_step: int
    backend: str
    part: int
    network: Network | None


def fit(  # noqa: PLR0913, PLR0917 (each is a thing of its own)
    pack: Sequence[Member],
    batches: Batches,
    recipe: Recipe,
    on_epoch: OnEpoch,
    states: States,
    until: int | None = None,
) -> None:
    """Train a pack's networks together on one stream of batches.

    The stream begins at the earliest network's step; a network joins when the stream reaches its
    own. One whose loss is not finite at an evaluation is marked diverged and left behind. Which
    networks are computed together at a step, and in which places, depends on the pack alone and
    not on what was done before.

    Args:
        pack: tickets of one architecture and one data order.
        batches: of that data order.
        recipe: theirs.
        on_epoch: called after each evaluation with the networks that took part; those that have
            not diverged have one more row in `epochs`.
        states: of the networks that go on.
        until: the step to stop before; the end of the recipe when None.
    """
    last = recipe.total_steps if until is None else until
    networks = [one.network for one in pack if one.network is not None]
    step = min(network.step for network in networks)
    together: dict[Where, Backend] = {}
    while step < last:
        waiting = [one.step for one in networks if one.step > step and not one.diverged]
        seats = _seats(pack, step)
        if not seats:
            step = min(waiting, default=last)
            continue
        if {where: backend.seats for where, backend in together.items()} != seats:
            together = {where: open_backend(where[0], of) for where, of in seats.items()}
        backends = list(together.values())
        stop = min([last, recipe.next_pause(step), *waiting])
        _train(backends, batches, recipe, step, stop, states)
        step = stop
        if recipe.evaluates_after(step):
            _measure(backends, batches, recipe)
            on_epoch(_networks(backends))
        if step < recipe.total_steps and states.due(step % recipe.steps_per_epoch == 0):
            states.write(_running(backends))


def _seats(pack: Sequence[Member], step: int) -> dict[Where, Seats]:
    """Who is computed together, and where: all that have joined by now; empty if not here."""
    seats: defaultdict[Where, Seats] = defaultdict(tuple)
    for one in pack:
        if one.first_step <= step:
            seats[one.backend, one.part] += (_here(one.network, step),)
    return {where: of for where, of in seats.items() if any(of)}


def _here(network: Network | None, step: int) -> Network | None:
    return network if network and network.step == step and not network.diverged else None


@denormals_as_zero()
def _train(  # noqa: PLR0913, PLR0917 (as fit)
    together: Sequence[Backend],
    batches: Batches,
    recipe: Recipe,
    step: int,
    stop: int,
    states: States,
) -> None:
    """Take the steps from `step` to before `stop`, all of one epoch."""
    epoch, first = divmod(step, recipe.steps_per_epoch)
    clock = _Clock(together)
    for number, batch in enumerate(batches.epoch(epoch, first, first + stop - step), 1):
        for backend in together:
            backend.train_step(*on_its_device(backend, batch))
        if states.due(epoch_ended=False) and number < stop - step:
            clock.charge()
            states.write(_running(together))
            clock = _Clock(together)
    clock.charge()


class _Clock:
    """Charges each network an equal share of the wall time."""

    def __init__(self, together: Sequence[Backend]) -> None:
        self._together = together
        self._started = time.perf_counter()

    def charge(self) -> None:
        """Let the networks have what they learnt, and the seconds that it took."""
        networks = _networks(self._together)
        for network in networks:
            float(network.loss_sum)  # a GPU has done its steps only when a value of them is read
        for backend in self._together:
            backend.settle()
        share = (time.perf_counter() - self._started) / len(networks)
        for network in networks:
            network.train_seconds += share


def _networks(together: Iterable[Backend]) -> list[Network]:
    return [network for backend in together for network in backend.networks]


def _running(together: Iterable[Backend]) -> list[Network]:
    return [network for network in _networks(together) if not network.diverged]


def _measure(together: Sequence[Backend], batches: Batches, recipe: Recipe) -> None:
    """Append an epoch row to each network, or mark it diverged."""
    for network, scores in zip(_networks(together), evaluate(together, batches), strict=True):
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
