"""What there is to do: dense runs and packs, and the seconds of each on one worker."""

from collections.abc import Collection, Mapping

from ltray.analysis.planning.costs import Training
from ltray.analysis.planning.estimate import Estimate, total
from ltray.experiment import Experiment, decimal
from ltray.lottery.ready import RowsSoFar, expected, ready
from ltray.lottery.tickets import Pack, Ticket, TicketKey, key

Done = Collection[TicketKey] | RowsSoFar


def epochs_of(ticket: Ticket, experiment: Experiment) -> float:
    """Epochs that a ticket is trained for: the rest of the recipe with `continue`, else all."""
    if ticket.reset_schedule == "continue":
        return float(experiment.train.epochs - decimal(ticket.reset_epoch))
    return float(experiment.train.epochs)


def packs_left(
    experiment: Experiment, done: Done = (), tickets_per_trial: int | None = None
) -> list[Pack]:
    """The trials that are to come, in the order in which they start; of a search, at most.

    Args:
        experiment: resolved.
        done: the tickets that have ended; a search goes by their rows.
        tickets_per_trial: as if the experiment said this; None = as it says.
    """
    if experiment.prune.search == "matching":
        rows = done if isinstance(done, Mapping) else {}
        return [Pack((ticket,), (ticket,)) for ticket in expected(experiment, rows)]
    if tickets_per_trial is not None:
        sweep = experiment.sweep.model_copy(update={"tickets_per_trial": tickets_per_trial})
        experiment = experiment.model_copy(update={"sweep": sweep})
    found: list[Pack] = []
    ended = set(done)
    while packs := ready(experiment, ended):  # what waits for others comes after them
        found += packs
        ended |= {key(ticket) for pack in packs for ticket in pack.tickets}
    return found


def dense_seconds(experiment: Experiment, training: Training) -> Estimate:
    """One dense run."""
    return (training.dense + training.shared) * experiment.train.epochs


def pack_seconds(pack: Pack, experiment: Experiment, training: Training) -> Estimate:
    """One pack: each ticket's own epochs, and one stream of images as long as the longest.

    A chain of iterative pruning trains its tickets one after the other, each with its own stream.
    """
    epochs = {ticket.name: epochs_of(ticket, experiment) for ticket in pack.tickets}
    own = total(training.ticket(one.sparsity) * epochs[one.name] for one in pack.tickets)
    files = training.ticket_files * len(pack.tickets)
    if pack.in_turn:
        return own + files + training.pack * len(epochs) + training.shared * sum(epochs.values())
    return training.pack + own + training.shared * max(epochs.values()) + files
