"""Iterative pruning: level by level, each from what the one before was trained to."""

from itertools import pairwise

from ltray.files import is_there, read_json
from ltray.lottery.tickets import Pack, Ticket, cells_of, chains
from ltray.run import Run
from ltray.training.place import Place
from ltray.training.pruning import make_next_mask
from ltray.training.retrain import OnProgress, train_pack


def train_chain(run: Run, chain: Pack, place: Place, on_progress: OnProgress) -> None:
    """Train the tickets of a chain that are not done, level by level.

    Ends where a level has diverged, from which no mask can be made.

    Args:
        chain: its seats are all levels of it, the densest first.
        on_progress: as of `train_pack`.
    """
    before: Ticket | None = None
    for ticket in chain.seats:
        if ticket in chain.tickets:
            if before is not None and not _is_trained(run, before):
                return
            make_next_mask(run, ticket, before)
            train_pack(run, Pack((ticket,), (ticket,)), place, on_progress)
        before = ticket


def make_lost_masks(run: Run, replicate: int) -> None:
    """Make the masks again that the chains' trained tickets had and that are not there."""
    cells = [cell for cell in cells_of(run.experiment) if cell.replicate == replicate]
    for chain in chains(cells):
        for before, ticket in pairwise([None, *chain]):
            assert ticket is not None
            if not _is_trained(run, ticket):
                break
            make_next_mask(run, ticket, before)


def _is_trained(run: Run, ticket: Ticket) -> bool:
    done = run.folder.replicate(ticket.replicate).ticket(ticket.name).done
    return is_there(done) and bool(read_json(done)["row"]["status"] == "done")
