"""The grid of tickets, their names, and the packs that are trained together."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from ltray.experiment import Experiment, as_written, decimal, replicate_seeds, step_of
from ltray.lottery.mask_names import mask_of
from ltray.lottery.trajectory import Trajectory
from ltray.randomness import seed_for


@dataclass(frozen=True)
class Ticket:
    """The starting point of one retraining, and how it is retrained.

    Attributes:
        replicate: which dense run it comes from.
        seed, data_seed: that replicate's.
        retraining: which of its cell's; the first has the dense run's data order, others their own.
        sparsity: the level as written.
        mask: the mask's name; a shuffled one is made of it.
        reset_epoch: the moment of the dense run that its weights come from.
        control: `none`, or what is taken from the ticket to see whether it mattered.
    """

    replicate: int
    seed: int
    data_seed: int
    retraining: int
    criterion: str
    scope: str
    style: str
    sparsity: float
    mask: str
    reset_epoch: float
    reset_method: str
    reset_schedule: str
    control: str

    @property
    def name(self) -> str:
        """Unique within the replicate, and independent of what else is in the grid."""
        if self.control == "random_init":
            return f"{self.mask}-random_init"
        point = f"{self.mask}-reset-{as_written(self.reset_epoch)}"
        control = "" if self.control == "none" else f"-{self.control}"
        again = f"-retraining-{self.retraining}" if self.retraining else ""
        return f"{point}-{self.reset_method}-{self.reset_schedule}{control}{again}"


TicketKey = tuple[int, str]
"""(replicate, ticket name): unique within a run"""


@dataclass(frozen=True)
class Pack:
    """The tickets that one process trains together from one stream of batches.

    All are of one replicate, control and retraining: one data order and one recipe serve them.

    Attributes:
        tickets: those that are left.
        seats: those and the ones that had ended before or are to come, in the order of the grid.
        in_turn: a chain of iterative pruning, level by level: trained one after the other, each
            with a mask from what the one before was trained to.
    """

    tickets: tuple[Ticket, ...]
    seats: tuple[Ticket, ...]
    in_turn: bool = False

    @property
    def name(self) -> str:
        """Short enough for a trial: the first ticket's name and how many more there are."""
        first = self.tickets[0]
        more = f"+{len(self.tickets) - 1}" if len(self.tickets) > 1 else ""
        return f"r{first.replicate}-{first.name}{more}"


def grid(experiment: Experiment) -> list[Ticket]:
    """Every ticket of a resolved experiment: M masks x N reset points in each replicate, as often
    as they are retrained, and their controls.
    """
    return [
        ticket
        for replicate in range(experiment.replicates)
        for tickets in streams(experiment, replicate)
        for ticket in tickets
    ]


def control_of(ticket: Ticket, control: str) -> Ticket:
    """The control of a kind of a cell's first ticket; `none` is the ticket itself.

    A mask has one control on fresh initial weights, which stands beside all its reset points and
    retrainings.
    """
    if control != "random_init":
        return replace(ticket, control=control)
    return replace(
        ticket,
        control=control,
        reset_epoch=0.0,
        reset_method="weights",
        reset_schedule="restart",
    )


def retraining_of(ticket: Ticket, number: int) -> Ticket:
    """A cell's ticket of a later retraining, from its first; a fresh control has but one."""
    if number == 0 or ticket.control == "random_init":
        return ticket
    order = seed_for(ticket.data_seed, "retraining", number)
    return replace(ticket, retraining=number, data_seed=order)


def cells_of(experiment: Experiment) -> list[Ticket]:
    """The first ticket of every cell: the grid without controls and later retrainings."""
    return [
        ticket
        for replicate in range(experiment.replicates)
        for ticket in _cells(experiment, replicate)
    ]


def streams(experiment: Experiment, replicate: int) -> list[list[Ticket]]:
    """A replicate's tickets by control and retraining, each of one data order; its cells first."""
    cells = list(_cells(experiment, replicate))
    found: list[list[Ticket]] = []
    for control in ("none", *experiment.controls):
        first = dict.fromkeys(control_of(one, control) for one in cells)
        times = 1 if control == "random_init" else experiment.reset.retrainings
        found += [[retraining_of(one, number) for one in first] for number in range(times)]
    return found


def _cells(experiment: Experiment, replicate: int) -> Iterator[Ticket]:
    prune, reset = experiment.prune, experiment.reset
    seed, data_seed = replicate_seeds(experiment, replicate)
    for sparsity in sorted(prune.sparsities):
        for reset_epoch in sorted(reset.epochs):
            yield Ticket(
                replicate=replicate,
                seed=seed,
                data_seed=data_seed,
                retraining=0,
                criterion=prune.criterion,
                scope=prune.scope,
                style=prune.style,
                sparsity=sparsity,
                mask=mask_of(experiment, sparsity, reset_epoch).name,
                reset_epoch=reset_epoch,
                reset_method=reset.method,
                reset_schedule=reset.schedule,
                control="none",
            )


def key(ticket: Ticket) -> TicketKey:
    """What identifies a ticket in its run."""
    return ticket.replicate, ticket.name


def chains(cells: Iterable[Ticket]) -> list[list[Ticket]]:
    """The tickets of each replicate and reset point, level by level."""
    found: dict[tuple[int, float], list[Ticket]] = {}
    for cell in cells:
        found.setdefault((cell.replicate, cell.reset_epoch), []).append(cell)
    return [sorted(chain, key=lambda ticket: ticket.sparsity) for chain in found.values()]


def level_before(experiment: Experiment, ticket: Ticket) -> Ticket | None:
    """The ticket whose training an iterative one is pruned from; None at the first level."""
    denser = [sparsity for sparsity in experiment.prune.sparsities if sparsity < ticket.sparsity]
    if ticket.style != "iterative" or not denser:
        return None
    cells = _cells(experiment, ticket.replicate)
    place = max(denser), ticket.reset_epoch
    return next(cell for cell in cells if (cell.sparsity, cell.reset_epoch) == place)


def ticket_columns(ticket: Ticket, trajectory: Trajectory) -> dict[str, Any]:
    """The columns of a ticket that are known before it is trained."""
    return {
        "ticket": ticket.name,
        **asdict(ticket),
        "density": float(1 - decimal(ticket.sparsity)),
        "reset_step": step_of(ticket.reset_epoch, trajectory.steps_per_epoch),
        "dense_val_top1": trajectory.row["val_top1"],
        "dense_test_top1": trajectory.row["test_top1"],
    }
