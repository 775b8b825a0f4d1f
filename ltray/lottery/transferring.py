"""Tickets of one experiment on another data set: which experiments that makes."""

from dataclasses import dataclass

from ltray.errors import LtrayError
from ltray.experiment import Experiment, as_written
from ltray.given import GivenExperiment, chain_of, given
from ltray.lottery.pairs import DENSE

CONTROLS = ("shuffled_mask", "random_init")


@dataclass(frozen=True)
class Transferred:
    """What is trained on the target.

    Attributes:
        tickets: the source's masks at the source's reset points, and both controls.
        dense: the whole network from the same reset points.
    """

    tickets: GivenExperiment
    dense: Experiment


def transferred(source: Experiment, source_id: str, target: Experiment) -> Transferred:
    """The experiments on the target's data, by its recipe, of a source's masks and weights.

    Args:
        source, target: resolved.
        source_id: the experiment id of the source.

    Raises:
        LtrayError: the source has no such masks, or the target's own tickets are trained in
            another way, so that there is nothing to compare.
    """
    _check(source, target)
    reset = source.reset.model_copy(
        update={"schedule": "restart", "retrainings": target.reset.retrainings}
    )
    levels = _levels(target)
    prune = given(source.prune, sparsities=levels, search="grid", chain=chain_of(source))
    taken = {"given_by": source_id, "prune": prune, "reset": reset, "controls": CONTROLS}
    tickets = GivenExperiment.model_validate({**dict(target), **taken})
    keep_dense = source.prune.keep_dense
    whole = {"prune": DENSE.model_copy(update={"keep_dense": keep_dense}), "reset": reset}
    return Transferred(tickets, target.model_copy(update={**whole, "controls": ()}))


def _check(source: Experiment, target: Experiment) -> None:
    if target.reset.schedule != "restart" or target.reset.method != "weights":
        found = "tickets of the target would have another budget than those that come to it"
        mend = "write reset: {schedule: restart, method: weights} in the target's experiment"
        raise LtrayError("--to", found, mend)
    if source.reset.method != "weights":
        found = f"tickets of {source.name} keep their trained weights ({source.reset.method})"
        raise LtrayError("SOURCE", found, "name a source with reset.method: weights")
    if not _levels(target):
        found = "the target's only sparsity is 0, the whole network"
        raise LtrayError("--to", found, "write prune.sparsities above 0 that the source has")
    missing = [level for level in _levels(target) if level not in source.prune.sparsities]
    if missing:
        known = ", ".join(map(as_written, source.prune.sparsities))
        found = f"{source.name} has no masks at {', '.join(map(as_written, missing))}"
        raise LtrayError("--to", found, f"write prune.sparsities from {known}")
    if target.replicates > source.replicates:
        found = f"{target.replicates} replicates, but {source.name} has {source.replicates}"
        raise LtrayError("--to", found, "write fewer replicates, or sweep more of the source's")


def _levels(target: Experiment) -> tuple[float, ...]:
    """The target's sparsities; without 0, since the whole network is trained from every point."""
    return tuple(sorted(level for level in target.prune.sparsities if level > 0))
