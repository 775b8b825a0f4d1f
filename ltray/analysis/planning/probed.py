"""Costs from what was tried on a machine."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from ltray.analysis.planning.costs import Training
from ltray.analysis.planning.estimate import Estimate
from ltray.data.expected import ExpectedImages
from ltray.experiment import Experiment, steps_per_epoch
from ltray.training.probe import Probe
from ltray.training.tried import Tried

# A few seconds of trying are no hour of training: clocks rise and fall, neighbours come and go.
LOWER, HIGHER = 0.85, 1.25


def training_of(
    probes: Sequence[Probe], experiment: Experiment, images: ExpectedImages
) -> Training:
    """What probes of one kind found, as seconds of an epoch."""
    steps = steps_per_epoch(images.train, experiment.train.batch_size)
    every = experiment.train.evaluate_every
    evaluations = 1.0 if every == "epoch" else steps / every
    evaluated = evaluations * (images.validation + images.test)

    def epoch(tried: Sequence[Tried]) -> Estimate:
        evaluation = evaluated * fmean(each for one in tried for each in one.evaluation_seconds)
        stretches = [seconds for one in tried for seconds in one.step_seconds]
        return spread([steps * seconds + evaluation for seconds in stretches])

    levels = sorted(probes[0].tickets)
    tickets = {level: [one.tickets[level] for one in probes] for level in levels}
    return Training(
        dense=epoch([one.dense for one in probes]),
        tickets={level: epoch(tried) for level, tried in tickets.items()},
        shared=spread([steps * each for one in probes for each in one.batch_seconds]),
        pack=spread([one.start_seconds for tried in tickets.values() for one in tried]),
        ticket_files=spread([2 * one.state_seconds for one in probes]),
        backends={level: tried[0].backend for level, tried in tickets.items()},
    )


def alone_and_beside(
    alone: Sequence[Probe], beside: Sequence[Probe], experiment: Experiment, images: ExpectedImages
) -> tuple[Training, Training]:
    """Of a worker that has its machine to itself, and of one of several that share it.

    No worker is slower for being alone. What seemed so was chance, and is for both what all
    probes together found: else two workers would be more than twice as fast as one.
    """
    found = [
        training_of(probes, experiment, images) for probes in (alone, beside, [*alone, *beside])
    ]
    dense, shared, pack, files = (
        _judged(*(getattr(training, part) for training in found))
        for part in ("dense", "shared", "pack", "ticket_files")
    )
    tickets = {
        level: _judged(*(training.tickets[level] for training in found))
        for level in found[0].tickets
    }

    def training(which: int) -> Training:
        return replace(
            found[which],
            dense=dense[which],
            tickets={level: both[which] for level, both in tickets.items()},
            shared=shared[which],
            pack=pack[which],
            ticket_files=files[which],
        )

    return training(0), training(1)


def _judged(alone: Estimate, beside: Estimate, all_of_them: Estimate) -> tuple[Estimate, Estimate]:
    if alone.likely <= beside.likely:
        return alone, beside
    return all_of_them, all_of_them


def spread(samples: Sequence[float]) -> Estimate:
    """Their mean, which adds up to what all will take, and a range somewhat wider than theirs."""
    return Estimate(LOWER * min(samples), fmean(samples), HIGHER * max(samples))
