"""Experiments whose masks are not made in them, but come from another one."""

from typing import Annotated, Literal

from ltray.experiment import Experiment, Prune, Section, Sequence, Share


class Chain(Section):
    """What decides the masks of iterative pruning besides the keys of `prune`.

    Attributes:
        sparsities: all levels of the experiment that made them.
        method, schedule: how the tickets were trained from which they were made.
    """

    sparsities: Annotated[tuple[Share, ...], Sequence]
    method: Literal["weights", "learning_rate", "fine_tune"]
    schedule: Literal["continue", "restart"]


class GivenPrune(Prune):
    """Which masks they are: named as where they were made.

    Attributes:
        chain: that made them; None where it was done in one shot.
    """

    chain: Chain | None


class GivenExperiment(Experiment):
    """An experiment of tickets that come from another one; only ltray writes it.

    Attributes:
        given_by: that one's id.
    """

    given_by: str
    prune: GivenPrune


def given(prune: Prune, **changes: object) -> GivenPrune:
    """Masks as an experiment asks for them, given to another one."""
    return GivenPrune.model_validate({**dict(prune), **changes})


def chain_of(experiment: Experiment) -> Chain | None:
    """The chain that makes, or has made, the masks of an experiment; None of one shot."""
    prune, reset = experiment.prune, experiment.reset
    if isinstance(prune, GivenPrune):
        return prune.chain
    if prune.style == "one_shot":
        return None
    return Chain(sparsities=prune.sparsities, method=reset.method, schedule=reset.schedule)


def trains_chains(experiment: Experiment) -> bool:
    """Whether its masks are made while it is trained, level by level."""
    return experiment.prune.style == "iterative" and not isinstance(experiment.prune, GivenPrune)
