"""What can start now: pure functions of an experiment and of what is done."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ltray.experiment import Experiment
from ltray.given import trains_chains
from ltray.lottery.matching import by_seed
from ltray.lottery.search import found, most_levels, next_levels
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
        return _searched(experiment, done)
    packs: list[Pack] = []
    for replicate in range(experiment.replicates):
        of_replicate = streams(experiment, replicate)
        waiting: set[str] = set()
        if trains_chains(experiment):
            cells = of_replicate.pop(0)
            packs += _chains_left(cells, done, alone)
            waiting = {cell.mask for cell in cells if key(cell) not in done}
        size = pack_size(experiment)
        for stream in of_replicate:
            packs += _packs_left(size, stream, done, alone, waiting)
    return packs


def wanted(experiment: Experiment, rows: RowsSoFar) -> list[Ticket]:
    """The tickets that an experiment asks for by now: the grid, or what a search has come to.

    Of a search these are all levels that are measured, those that go on or come now, and the
    controls of what was found where it has ended.
    """
    if experiment.prune.search == "grid":
        return grid(experiment)
    every = searches(experiment, rows)
    asked = {(level, one.reset_epoch) for one in every for level in one.asked}
    answers = {one.answer for one in every if one.ended}
    masks = {cell.mask for cell in cells_of(experiment) if _place(cell) in answers}
    return [
        ticket
        for ticket in grid(experiment)
        if (ticket.control == "none" and _place(ticket) in asked)
        or (ticket.control == "random_init" and ticket.mask in masks)
        or (ticket.control == "shuffled_mask" and _place(ticket) in answers)
    ]


@dataclass(frozen=True)
class Searched:
    """How far the search of one reset point is.

    Attributes:
        measured: sparsities of which every ticket has ended.
        to_come: those that are to be trained now, or go on.
        found: the sparsest that matches by what is measured; None where none does.
    """

    reset_epoch: float
    measured: tuple[float, ...]
    to_come: tuple[float, ...]
    found: float | None

    @property
    def asked(self) -> set[float]:
        return {*self.measured, *self.to_come}

    @property
    def ended(self) -> bool:
        return not self.to_come

    @property
    def answer(self) -> Place | None:
        return None if self.found is None else (self.found, self.reset_epoch)


def searches(experiment: Experiment, rows: RowsSoFar) -> list[Searched]:
    """The search of each reset point, the earliest first."""
    cells: dict[Place, list[Row | None]] = {}
    for cell in cells_of(experiment):
        every = [retraining_of(cell, number) for number in range(experiment.reset.retrainings)]
        cells.setdefault(_place(cell), []).extend(rows.get(key(one)) for one in every)
    return [_searched_at(point, experiment, cells) for point in sorted(experiment.reset.epochs)]


def _searched_at(
    point: float, experiment: Experiment, cells: Mapping[Place, Sequence[Row | None]]
) -> Searched:
    levels = sorted(experiment.prune.sparsities)
    known = {}
    begun = []
    for number, level in enumerate(levels):
        ended = [row for row in cells[level, point] if row is not None]
        if len(ended) == len(cells[level, point]) and not _failed(ended):
            known[number] = _difference(ended)
        elif ended:
            begun.append(level)
    margin = experiment.report.margin
    at = found(known, margin)
    # Of replicates that came later a search's own levels are finished first. More than half of
    # them are a grid's: these only where the search asks for them.
    is_search = len(known) + len(begun) <= max(most_levels(len(levels)), len(levels) // 2)
    asked = [levels[number] for number in next_levels(len(levels), known, margin)]
    to_come = begun if begun and is_search else asked
    return Searched(
        reset_epoch=point,
        measured=tuple(levels[number] for number in known),
        to_come=tuple(to_come),
        found=None if at < 0 else levels[at],
    )


def left_aside(experiment: Experiment, rows: RowsSoFar) -> set[Place]:
    """The cells that count as not trained: a search has no use for them, and they lack tickets.

    An earlier grid of fewer replicates leaves such cells. None of a grid.
    """
    if experiment.prune.search == "grid":
        return set()
    return {
        (level, one.reset_epoch)
        for one in searches(experiment, rows)
        for level in set(experiment.prune.sparsities) - one.asked
    }


def _failed(ended: Sequence[Row]) -> bool:
    """Whether a machine failed one of a cell's tickets: the mean lacks what it may yet give."""
    return any(row["status"] == "failed" for row in ended)


def _difference(ended: Sequence[Row]) -> tuple[float, int] | None:
    """Of a cell: the mean over replicates, or over retrainings of one, and how many it is of.

    None where a ticket diverged: such a cell does not match, whatever the others did.
    """
    if any(row["status"] == "diverged" for row in ended):
        return None
    values = [(row["replicate"], row["val_top1"] - row["dense_val_top1"]) for row in ended]
    return fmean(by_seed(values)), len(values)


def expected(experiment: Experiment, rows: RowsSoFar) -> list[Ticket]:
    """The tickets that a search may still train, in turn; where it will look is not known before.

    Levels are taken at equal distances, and the middle one for a cell that is found.
    """
    levels = sorted(experiment.prune.sparsities)
    chosen: set[Place] = set()
    answers: set[Place] = set()
    for one in searches(experiment, rows):
        if one.ended:
            answers |= {one.answer} if one.answer is not None else set()
            continue
        left = [level for level in levels if level not in one.measured]
        count = max(len(one.to_come), most_levels(len(levels)) - len(one.measured))
        spread = {left[number * len(left) // count] for number in range(count)}
        chosen |= {(level, one.reset_epoch) for level in spread}
        answers.add((levels[len(levels) // 2], one.reset_epoch))
    masks = {cell.mask for cell in cells_of(experiment) if _place(cell) in answers}
    return [
        ticket
        for ticket in grid(experiment)
        if key(ticket) not in rows
        and (
            (ticket.control == "none" and _place(ticket) in chosen)
            or (ticket.control == "random_init" and ticket.mask in masks)
            or (ticket.control == "shuffled_mask" and _place(ticket) in answers)
        )
    ]


def _place(ticket: Ticket) -> Place:
    return ticket.sparsity, ticket.reset_epoch


def _searched(experiment: Experiment, rows: RowsSoFar) -> list[Pack]:
    """What the searches ask for, each ticket alone: who is beside it must not depend on chance."""
    left = [ticket for ticket in wanted(experiment, rows) if key(ticket) not in rows]
    return [Pack((ticket,), (ticket,)) for ticket in left]


def pack_size(experiment: Experiment) -> int:
    """Tickets of a pack: as written; else one mask with its reset points."""
    size = experiment.sweep.tickets_per_trial
    return len(experiment.reset.epochs) if size == "auto" else size


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
