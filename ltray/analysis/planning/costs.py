"""What one worker takes for each kind of work, in seconds."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass

from ltray.analysis.planning.estimate import NOTHING, Estimate, between, exactly

# What starts cost on two cores with Ray 2.60 and torch 2.15, in units of what a worker's process
# takes to start and to import what a probe needs; a slow disk makes that several times as long.
USUAL_PROCESS_SECONDS = 3.0
USUAL_STATE_SECONDS = 0.1  # of writing one


@dataclass(frozen=True)
class Training:
    """Seconds that one worker takes to train.

    Attributes:
        dense: of an epoch of the dense run, its evaluations included.
        tickets: sparsity -> likewise of one ticket; linear between two of them. Where `csr`, whose
            cost falls with the weights that are left, takes over from a backend that computes
            with all of them, it is the cheaper of the two.
        shared: of reading and augmenting an epoch's images, once for all tickets of a pack.
        pack: of making a pack's networks and choosing how to train them.
        ticket_files: of writing what a ticket leaves.
        backends: sparsity -> what it was measured with; empty where costs were given.
    """

    dense: Estimate
    tickets: Mapping[float, Estimate]
    shared: Estimate
    pack: Estimate
    ticket_files: Estimate
    backends: Mapping[float, str]

    def ticket(self, sparsity: float) -> Estimate:
        """One ticket's epoch."""
        measured = sorted(self.tickets)
        right = bisect_left(measured, sparsity)
        if right == 0:
            return self.tickets[measured[0]]
        if right == len(measured):
            return self.tickets[measured[-1]]
        low, high = measured[right - 1], measured[right]
        takes_over = self.backends.get(high) == "csr" != self.backends.get(low)
        if takes_over and right + 1 < len(measured) and self.backends[measured[right + 1]] == "csr":
            return self._cheaper(sparsity, low, high, measured[right + 1])
        share = (sparsity - low) / (high - low)
        return between(self.tickets[low], self.tickets[high], share)

    def _cheaper(self, sparsity: float, other: float, csr: float, sparser: float) -> Estimate:
        """What the backend at `other` takes, or `csr` by the line through two of its levels."""
        here, there = self.tickets[csr].likely, self.tickets[sparser].likely
        by_csr = here + (here - there) * (csr - sparsity) / (sparser - csr)
        if by_csr >= self.tickets[other].likely:
            return self.tickets[other]
        return self.tickets[csr] * (max(here, by_csr) / here)


@dataclass(frozen=True)
class Starting:
    """Seconds that pass beside training.

    Attributes:
        command: until the command has imported what it needs, and from its last line to its end.
        ray: until there is a session.
        tasks: from the beginning of preparing, or of making masks, to the first task.
        trials: from the beginning of the dense run, or of the retrainings, to the first step of
            each worker's first trial.
        next_trial: between two trials of a worker.
        report: tables and page.
    """

    command: Estimate
    ray: Estimate
    tasks: Estimate
    trials: Estimate
    next_trial: Estimate
    report: Estimate


@dataclass(frozen=True)
class Costs:
    """All that a plan is made of.

    Attributes:
        alone: training by a worker that has its machine to itself.
        beside: by one of several that share a machine.
        apart: how many workers can have a machine each.
        prepare: CPU seconds of all shards; None where nothing is known of the images.
        masks: seconds for all masks of one dense run.
        state_seconds: of writing the state of a network.
        told_by: where the cost of an epoch comes from, in words.
    """

    alone: Training
    beside: Training
    apart: int
    starting: Starting
    prepare: Estimate | None
    masks: Estimate
    state_seconds: float
    told_by: str

    def training(self, workers: int) -> Training:
        """With so many workers at a time."""
        return self.alone if workers <= self.apart else self.beside


def given(seconds_per_epoch: float) -> Training:
    """Every epoch of every network takes the same, and nothing is shared."""
    each = exactly(seconds_per_epoch)
    return Training(each, {0.0: each}, NOTHING, NOTHING, NOTHING, {})


def as_given(seconds_per_epoch: float, prepare: Estimate | None = NOTHING) -> Costs:
    """All costs where a person says what an epoch takes, and starts are as usual."""
    each = given(seconds_per_epoch)
    return Costs(
        alone=each,
        beside=each,
        apart=1,
        starting=starting(),
        prepare=prepare,
        masks=NOTHING,
        state_seconds=USUAL_STATE_SECONDS,
        told_by=f"{seconds_per_epoch:g} s, as given",
    )


def starting(process: Estimate | None = None, ray: Estimate | None = None) -> Starting:
    """What starts take.

    Args:
        process: seconds that a worker's process took to start and import torch; None = as usual.
        ray: seconds that a session took to start.
    """
    unit = process or Estimate(USUAL_PROCESS_SECONDS / 2, USUAL_PROCESS_SECONDS, 8.0)
    return Starting(
        command=unit * 1.9,
        ray=ray or unit * 1.5,
        tasks=unit * 0.85,
        trials=unit * 2.75,  # Tune, a process, torch, and its compiler, which optimizers import
        next_trial=Estimate(0.05, 0.15, 0.5),
        report=unit * 0.55,
    )
