"""Costs from a run's own rows: nothing tells better what its next tickets take."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from statistics import median

from ltray.analysis.columns import Row
from ltray.analysis.planning.costs import Training, given
from ltray.analysis.planning.estimate import Estimate
from ltray.analysis.planning.probed import spread

# What one image costs to evaluate, of what it costs to train on: a forward pass of three parts.
EVALUATION = Estimate(0.2, 0.33, 0.6)
# What a ticket of a pack costs, of what the dense run did: backends that make use of zeros or of
# the pack may more than halve it, and a machine that is full may slow it down.
TICKET = Estimate(0.4, 0.8, 1.2)
# The same with next to no weights left, where kept weights alone may be computed.
EMPTY_TICKET = Estimate(0.03, 0.1, 0.3)
HALF = 0.5  # the sparsity up to which such a ticket costs as much as others


def from_dense_run(epochs: Sequence[Row], evaluated: float, *, kept_alone: bool) -> Training | None:
    """Costs when only the dense run is there; None where it had a single evaluation.

    Its epoch is the median of what followed the first evaluation: before that is also paid for
    what is imported and set up once.

    Args:
        epochs: its rows, one for each evaluation.
        evaluated: images that are evaluated in an epoch, over those that are trained on.
        kept_alone: whether a backend may compute a ticket's kept weights alone.
    """
    taken = [
        (later["seconds"] - row["seconds"]) / (later["epoch"] - row["epoch"])
        for row, later in pairwise(epochs)
        if later["epoch"] > row["epoch"]
    ]
    if not taken:
        return None
    trained = median(taken)
    dense = Estimate(trained, trained, trained) + EVALUATION * (evaluated * trained)
    shares = {HALF: TICKET, 1.0: EMPTY_TICKET} if kept_alone else {0.0: TICKET}
    tickets = {
        sparsity: Estimate(*(part * of for part, of in zip(dense.ends, share.ends, strict=True)))
        for sparsity, share in shares.items()
    }
    return replace(given(0.0), dense=dense, tickets=tickets)


def from_packs(training: Training | None, rows: Sequence[Row]) -> Training | None:
    """The same, with the sparsities that packs have been trained at as those took.

    A pack's seconds, from the start of its training to its end, are shared out over the epochs
    that its tickets were trained for: reading and evaluating are in them. Packs that were
    begun more than once tell nothing, and mixed ones all their sparsities the same.
    """
    packs: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] == "done" and row["epochs_trained"]:
            packs[row["replicate"], row["pack"]].append(row)
    found: dict[float, list[float]] = defaultdict(list)
    backends: dict[float, str] = {}
    for of in packs.values():
        if any(row["attempts"] != 1 for row in of):
            continue
        span = _span(of)
        if span <= 0:  # a clock that was set back
            continue
        seconds = span / sum(row["epochs_trained"] for row in of)
        for row in of:
            found[row["sparsity"]].append(seconds)
            backends[row["sparsity"]] = row["backend"]
    if not found:
        return training
    measured = {level: spread(seconds) for level, seconds in found.items()}
    dense = training.dense if training else measured[min(measured)]
    return replace(given(0.0), dense=dense, tickets=measured, backends=backends)


def _span(rows: Sequence[Row]) -> float:
    starts = [datetime.fromisoformat(row["started_at"]) for row in rows]
    ends = [datetime.fromisoformat(row["finished_at"]) for row in rows]
    return (max(ends) - min(starts)).total_seconds()
