"""Two copies of a ticket that differ in data order alone: how stable training is by its start."""

from collections.abc import Sequence
from dataclasses import dataclass

from ltray.errors import LtrayError
from ltray.experiment import Experiment, Prune, as_written
from ltray.lottery.tickets import Ticket, cells_of, retraining_of

DENSE = Prune(sparsities=(0.0,))  # masks that keep everything, whatever criterion would choose


@dataclass(frozen=True)
class Pair:
    """Two retrainings of one cell: of the dense network where the sparsity is 0.

    Attributes:
        one: in the dense run's own data order.
        other: in another one.
    """

    one: Ticket
    other: Ticket

    @property
    def name(self) -> str:
        return f"r{self.one.replicate}-{self.one.name}"


def with_copies(experiment: Experiment, sparsities: Sequence[float]) -> list[Experiment]:
    """Experiments whose grids are the copies: of the dense network, and of tickets.

    Args:
        sparsities: of the tickets; levels of the experiment.

    Raises:
        LtrayError: the experiment has no such level, or its masks are made by training.
    """
    for sparsity in sparsities:
        if sparsity not in experiment.prune.sparsities:
            known = ", ".join(map(as_written, experiment.prune.sparsities))
            found = f"{as_written(sparsity)} is no sparsity of the experiment"
            raise LtrayError("--sparsities", found, f"choose from {known}")
    if sparsities and experiment.prune.style == "iterative":
        found = "masks of iterative pruning are made by training, level after level"
        raise LtrayError("--sparsities", found, "leave it out: the dense network has no mask")
    keep_dense = experiment.prune.keep_dense
    prunes = [DENSE.model_copy(update={"keep_dense": keep_dense})]
    if levels := tuple(one for one in dict.fromkeys(sparsities) if one > 0):
        whole = {"sparsities": levels, "search": "grid"}
        prunes.append(experiment.prune.model_copy(update=whole))
    reset = experiment.reset.model_copy(update={"retrainings": 2})
    changes = {"reset": reset, "controls": ()}
    return [experiment.model_copy(update={**changes, "prune": prune}) for prune in prunes]


def pairs_of(experiment: Experiment) -> list[Pair]:
    """The pairs of an experiment `with_copies`, one for each of its cells."""
    return [Pair(cell, retraining_of(cell, 1)) for cell in cells_of(experiment)]
