"""What a ticket's training starts with: its own mask, and the weights under it."""

import torch

from ltray.experiment import step_of
from ltray.layout import ReplicateFolder
from ltray.lottery.masks import Mask, load_mask, shuffled
from ltray.lottery.snapshot import load_weights
from ltray.lottery.tickets import Ticket, level_before
from ltray.lottery.trajectory import Trajectory
from ltray.randomness import seed_for
from ltray.run import Run
from ltray.tensors import Tensors, read_tensors
from ltray.training.start import untrained


def own_mask(folder: ReplicateFolder, ticket: Ticket) -> Mask:
    """The mask of a ticket's name, or what a control makes of it."""
    mask = load_mask(folder.mask(ticket.mask))
    return shuffled(mask, ticket.seed) if ticket.control == "shuffled_mask" else mask


def first_weights(run: Run, ticket: Ticket, trajectory: Trajectory, classes: int) -> Tensors:
    """Those of its reset point, fresh ones, or the trained ones that it was pruned from.

    Returns:
        the network's state, on the CPU; the mask has not been laid on it.
    """
    if ticket.control == "random_init":
        seed = seed_for(ticket.seed, "random_init")
        return dict(untrained(run, classes, seed, torch.device("cpu")).state_dict())
    folder = run.folder.replicate(ticket.replicate)
    if ticket.reset_method == "weights":
        return load_weights(folder.step(reset_step(ticket, trajectory)))
    before = level_before(run.experiment, ticket)
    if before is None:
        return load_weights(folder.step(trajectory.total_steps))
    weights, _ = read_tensors(folder.ticket(before.name).weights)
    return weights


def reset_step(ticket: Ticket, trajectory: Trajectory) -> int:
    """The step of the dense run that a ticket is put back to."""
    return step_of(ticket.reset_epoch, trajectory.steps_per_epoch)
