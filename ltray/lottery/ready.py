"""What can start now: pure functions of an experiment and of what is done."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from statistics import fmean
from typing import Any

from ltray.experiment import Experiment
from ltray.lottery.search import Asked, most_levels, search
from ltray.lottery.tickets import (
    Pack,
    Ticket,
    TicketKey,
    cells_of,
    chains,
    grid,
    key,
    retraining_of,
    streams,
)

Row = Mapping[str, Any]
RowsSoFar = Mapping[TicketKey, Row]
Place = tuple[float, float]
"""(sparsity, reset_epoch)"""
NEVER = -1.0  # the difference of a cell that diverged or failed: it does not match


def ready(
    experiment: Experiment,
    done: Collection[TicketKey] | RowsSoFar,
    alone: Collection[TicketKey] = (),
) -> list[Pack]:
    """The packs that can start now.

    Packs are cut from the whole grid before the done tickets are taken out, so that a restart
    asks for the same packs. Tickets in `alone` (their pack died) get a pack each. Iterative pruning
    has a pack for each chain, then its tickets' controls and retrainings, which need their masks.

    Args:
        done: the tickets that have ended; a search for matching ones looks at their rows.
    """
    if experiment.prune.search == "matching":
        assert isinstance(done, Mapping), "a search needs to know what was measured"
        return list(_searched(experiment, done, alone))
    packs: list[Pack] = []
    for replicate in range(experiment.replicates):
        of_replicate = streams(experiment, replicate)
        waiting: set[str] = set()
        if experiment.prune.style == "iterative":
            cells = of_replicate.pop(0)
            packs += _chains_left(cells, done, alone)
            waiting = {cell.mask for cell in cells if key(cell) not in done}
        size = _pack_size(experiment)
        for stream in of_replicate:
            packs += _packs_left(size, stream, done, alone, waiting)
    return packs


def wanted(experiment: Experiment, rows: RowsSoFar) -> list[Ticket]:
    """The tickets that an experiment asks for by now: the grid, or what a search has come to.

    A search asks for the controls of the cells that it found, when it has ended.
    """
    if experiment.prune.search == "grid":
        return grid(experiment)
    found = searches(experiment, rows)
    levels = sorted(experiment.prune.sparsities)
    asked = {(levels[at], point) for point, one in found.items() for at in one.levels}
    answers = _answers(experiment, found)
    masks = {cell.mask for cell in cells_of(experiment) if _place(cell) in answers}
    return [
        ticket
        for ticket in grid(experiment)
        if (ticket.control == "none" and _place(ticket) in asked)
        or (ticket.control == "random_init" and ticket.mask in masks)
        or (ticket.control == "shuffled_mask" and _place(ticket) in answers)
    ]


def searches(experiment: Experiment, rows: RowsSoFar) -> dict[float, Asked]:
    """Reset point -> how far the search for its sparsest matching ticket is."""
    cells: dict[Place, list[Ticket]] = {}
    for cell in cells_of(experiment):
        every = [retraining_of(cell, number) for number in range(experiment.reset.retrainings)]
        cells.setdefault(_place(cell), []).extend(every)
    levels = sorted(experiment.prune.sparsities)

    def difference(point: float, level: int) -> tuple[float, int] | None:
        return _difference([rows.get(key(one)) for one in cells[levels[level], point]])

    return {
        point: search(len(levels), partial(difference, point), experiment.report.margin)
        for point in sorted(experiment.reset.epochs)
    }


def as_grid(experiment: Experiment) -> Experiment:
    """The experiment itself; of a search, a grid of as many tickets as it may come to.

    Levels are taken at equal distances: where a search will look is not known before.
    """
    prune, sweep = experiment.prune, experiment.sweep
    if prune.search == "grid":
        return experiment
    levels = sorted(prune.sparsities)
    most = most_levels(len(levels))
    chosen = tuple(levels[number * len(levels) // most] for number in range(most))
    changes = {"search": "grid", "sparsities": chosen}
    size = {"tickets_per_trial": _pack_size(experiment)}
    return experiment.model_copy(
        update={
            "prune": prune.model_copy(update=changes),
            "sweep": sweep.model_copy(update=size),
        }
    )


def _difference(rows: Sequence[Row | None]) -> tuple[float, int] | None:
    """Of a cell: the mean over replicates, and over how many; None while a ticket is to end.

    A cell with a diverged ticket, or with none that is done, does not match.
    """
    ended = [row for row in rows if row is not None]
    if len(ended) < len(rows):
        return None
    done = [row for row in ended if row["status"] == "done"]
    if not done or any(row["status"] == "diverged" for row in ended):
        return NEVER, 1
    of_replicate: dict[int, list[float]] = {}
    for row in done:
        difference = row["val_top1"] - row["dense_val_top1"]
        of_replicate.setdefault(row["replicate"], []).append(difference)
    return fmean(fmean(each) for each in of_replicate.values()), len(of_replicate)


def _place(ticket: Ticket) -> Place:
    return ticket.sparsity, ticket.reset_epoch


def _answers(experiment: Experiment, found: Mapping[float, Asked]) -> set[Place]:
    """The cells that searches which have ended came to."""
    levels = sorted(experiment.prune.sparsities)
    return {
        (levels[one.found], point) for point, one in found.items() if one.ended and one.found >= 0
    }


def _searched(
    experiment: Experiment, rows: RowsSoFar, alone: Collection[TicketKey]
) -> Iterator[Pack]:
    """Packs of what the searches ask for; those of one round may be trained together."""
    found = searches(experiment, rows)
    levels = sorted(experiment.prune.sparsities)
    by_now = {key(ticket) for ticket in wanted(experiment, rows)}
    rounds = max(len(one.rounds) for one in found.values())
    size = _pack_size(experiment)
    for replicate in range(experiment.replicates):
        for stream in streams(experiment, replicate):
            if stream[0].control != "none":
                last = [ticket for ticket in stream if key(ticket) in by_now]
                yield from _packs_left(size, last, rows, alone, ())
                continue
            for number in range(rounds):
                seats = [
                    ticket
                    for ticket in stream
                    if levels.index(ticket.sparsity) in _round(found[ticket.reset_epoch], number)
                ]
                yield from _packs_left(size, seats, rows, alone, ())


def _round(asked: Asked, number: int) -> tuple[int, ...]:
    return asked.rounds[number] if number < len(asked.rounds) else ()


def _pack_size(experiment: Experiment) -> int:
    """As written; else one mask with its reset points, and a search's few tickets each alone."""
    size = experiment.sweep.tickets_per_trial
    if size != "auto":
        return size
    return 1 if experiment.prune.search == "matching" else len(experiment.reset.epochs)


def _chains_left(
    cells: Iterable[Ticket], done: Collection[TicketKey], alone: Collection[TicketKey]
) -> Iterator[Pack]:
    for chain in chains(cells):
        left = [ticket for ticket in chain if key(ticket) not in done]
        if left and key(left[0]) in alone:
            left = left[:1]
        if left:
            yield Pack(tuple(left), tuple(chain), in_turn=True)


def _packs_left(
    size: int,
    tickets: Sequence[Ticket],
    done: Collection[TicketKey],
    alone: Collection[TicketKey],
    waiting: Collection[str],
) -> Iterator[Pack]:
    """Packs of what is left and does not wait for its mask."""
    for first in range(0, len(tickets), size):
        seats = tuple(tickets[first : first + size])
        left = [one for one in seats if key(one) not in done and one.mask not in waiting]
        together = tuple(ticket for ticket in left if key(ticket) not in alone)
        yield from (Pack((ticket,), (ticket,)) for ticket in left if key(ticket) in alone)
        if together:
            yield Pack(together, seats)
