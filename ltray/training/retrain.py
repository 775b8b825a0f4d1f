"""Retraining a pack's tickets, from reset point and mask to the files of a done ticket."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ltray.files import is_there, read_json, remove, write_json
from ltray.lottery.masks import Mask, dead_layers, kept_weights
from ltray.lottery.snapshot import Snapshot, load_snapshot, save_snapshot
from ltray.lottery.tickets import Pack, Ticket, ticket_columns
from ltray.lottery.trajectory import EpochRow, Trajectory, read_trajectory
from ltray.memory import is_out_of_memory
from ltray.run import Run
from ltray.tensors import write_tensors
from ltray.training.backends.trial import Choice, choose
from ltray.training.first_weights import first_weights, own_mask, reset_step
from ltray.training.fit import Member, fit
from ltray.training.gpu_use import GpuUse
from ltray.training.network import Network
from ltray.training.place import Place, memory_for_pack
from ltray.training.recipe import Recipe
from ltray.training.start import (
    begin,
    chosen,
    conditions,
    images_per_second,
    measured,
    note,
    now,
    open_batches,
    save_correct,
    untrained,
)
from ltray.training.states import States

Record = dict[str, Any]
"""What ticket.json holds: `row`, `epochs`, `sha256`."""
OnProgress = Callable[[Sequence[EpochRow], Sequence[Record]], None]


def train_pack(run: Run, pack: Pack, place: Place, on_progress: OnProgress) -> None:
    """Train the tickets of a pack that are not done, each from its own last saved state.

    Args:
        on_progress: called after each evaluation with the new epoch rows, which also have
            images_per_second, gpu_utilisation and gpu_memory_bytes, and the records of the
            tickets that have ended; at the start with those that had ended before.
    """
    replicate = run.folder.replicate(pack.tickets[0].replicate)
    ended = [replicate.ticket(ticket.name).done for ticket in pack.tickets]
    before = [read_json(path) for path in ended if is_there(path)]
    if before:
        on_progress([], before)
    if len(before) < len(ended):
        _train_left(run, pack, place, on_progress)


def _train_left(run: Run, pack: Pack, place: Place, on_progress: OnProgress) -> None:
    """Train together half as many each time that a device's memory does not suffice."""
    while True:
        retraining = _Retraining(run, pack, place, on_progress)
        try:
            retraining.train()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or not retraining.take_fewer():
                raise
        else:
            return
        del retraining  # and with it the networks
        if place.device.type == "cuda":
            torch.cuda.empty_cache()


class _Retraining:
    def __init__(self, run: Run, pack: Pack, place: Place, on_progress: OnProgress) -> None:
        self.run = run
        self.pack = pack
        self.place = place
        self.on_progress = on_progress
        self.replicate = pack.tickets[0].replicate
        self.folder = run.folder.replicate(self.replicate)
        trajectory = read_trajectory(self.folder)
        assert trajectory is not None, "a pack is ready only when its trajectory is whole"
        self.trajectory: Trajectory = trajectory
        first = pack.tickets[0]
        self.batches = open_batches(run, place, first.data_seed)
        self.recipe = Recipe(
            run.experiment.train, self.batches.steps_per_epoch, first.reset_method == "fine_tune"
        )
        left = [one for one in pack.tickets if not is_there(self.folder.ticket(one.name).done)]
        self.tickets = {ticket.name: ticket for ticket in left}
        self.masks = {name: own_mask(self.folder, one) for name, one in self.tickets.items()}
        self.states = States(self._write_state, self.place.leaves or str)
        self.choices: dict[str, Choice] = {}

    def train(self) -> None:
        self.choices = self._choices()
        for name, choice in self.choices.items():
            note(self.folder.ticket(name).attempts, self.place.device_name, choice)
        at_once = self._fitting() * len(self.place.devices)
        for first in range(0, len(self.pack.seats), at_once):
            self._train_together(self.pack.seats[first : first + at_once])

    def take_fewer(self) -> bool:
        """Note that a device has room for half as many as it was given; False when that was one."""
        if not self.choices:
            return False
        devices = len(self.place.devices)
        given = min(self._fitting(), math.ceil(len(self.pack.seats) / devices))
        for name, choice in self.choices.items():
            said = f"no memory for {given} together"
            fewer = replace(choice, fits=given // 2, left_out=said)
            if given > 1:
                note(self.folder.ticket(name).attempts, self.place.device_name, fewer)
        return given > 1

    def _fitting(self) -> int:
        """How many of the pack a device trains at a time."""
        return min(self._choice(ticket).fits for ticket in self.pack.seats)

    def _train_together(self, seats: Sequence[Ticket]) -> None:
        """Train what fits the devices; its networks are gone before the next ones come."""
        left = [ticket.name for ticket in seats if ticket.name in self.tickets]
        if not left:
            return
        self.started_at = now()
        self.attempts = {name: begin(self.folder.ticket(name).attempts) for name in left}
        self.gpu_use = GpuUse(self.place.gpu_uuids)
        with self.gpu_use:
            fit(self._members(seats), self.batches, self.recipe, self._on_epoch, self.states)

    def _choices(self) -> dict[str, Choice]:
        """Ticket -> how it is trained: as was chosen before on such a device, else as now."""
        before = {name: self._chosen(ticket) for name, ticket in self.tickets.items()}
        wanted = self.run.experiment.sweep.backend
        kept = {
            name: choice
            for name, choice in before.items()
            if choice and wanted in {"auto", choice.backend}
        }
        new = [ticket for name, ticket in self.tickets.items() if name not in kept]
        if not new:
            return kept
        a_device = new[: math.ceil(len(new) / len(self.place.devices))]
        batch = next(self.batches.epoch(0, 0, 1))
        made = [partial(self._network, ticket, self.place.device) for ticket in a_device]
        first_steps = {self._first_step(ticket) for ticket in self.pack.seats}
        choice = choose(
            wanted,
            made,
            batch,
            memory_for_pack(self.place.device),
            steps=self.recipe.total_steps - min(first_steps),
            forms=len(first_steps) * len(self.place.devices),
        )
        return kept | {ticket.name: choice for ticket in new}

    def _chosen(self, ticket: Ticket) -> Choice | None:
        return chosen(self.folder.ticket(ticket.name).attempts, self.place.device_name)

    def _members(self, seats: Sequence[Ticket]) -> list[Member]:
        """Those that have ended too: what is computed together must not depend on that."""
        devices = self.place.devices
        parts = [number * len(devices) // len(seats) for number in range(len(seats))]
        return [
            Member(
                self._first_step(ticket),
                self._choice(ticket).backend,
                part,
                self._network(ticket, devices[part]) if ticket.name in self.tickets else None,
            )
            for ticket, part in zip(seats, parts, strict=True)
        ]

    def _choice(self, ticket: Ticket) -> Choice:
        """Of a ticket that has ended, too: how a pack is cut must not depend on who is left."""
        choice = self.choices.get(ticket.name) or self._chosen(ticket)
        if choice is None:  # it ended on another kind of device
            choice = next(iter(self.choices.values()))
        return choice

    def _network(self, ticket: Ticket, device: torch.device) -> Network:
        model = untrained(self.run, self.batches.classes, ticket.seed, device)
        return Network(
            ticket.name,
            model,
            self._start(ticket),
            self.masks[ticket.name],
            self.recipe,
            ticket.data_seed,
        )

    def _start(self, ticket: Ticket) -> Snapshot:
        """Where the ticket goes on, or its first weights with nothing of an optimizer."""
        state = self.folder.ticket(ticket.name).state
        if is_there(state):
            return load_snapshot(state)
        weights = first_weights(self.run, ticket, self.trajectory, self.batches.classes)
        return Snapshot(step=self._first_step(ticket), model=weights)

    def _first_step(self, ticket: Ticket) -> int:
        if ticket.reset_schedule == "restart":
            return 0
        return reset_step(ticket, self.trajectory)

    def _on_epoch(self, networks: Sequence[Network]) -> None:
        whole = [network for network in networks if not network.diverged]
        rows = [self._live(network) for network in whole]
        ended = [
            network
            for network in networks
            if network.diverged or network.step == self.recipe.total_steps
        ]
        self.on_progress(rows, [self._finish(network) for network in ended])

    def _write_state(self, network: Network) -> None:
        save_snapshot(self.folder.ticket(network.name).state, network.snapshot())

    def _finish(self, network: Network) -> Record:
        """Write a ticket's files, ticket.json last."""
        folder = self.folder.ticket(network.name)
        hashes = {}
        if not network.diverged:
            hashes = {
                folder.weights.name: write_tensors(folder.weights, network.model.state_dict()),
                folder.correct.name: save_correct(folder.correct, network.correct),
            }
        record = {
            "row": self._row(network),
            "epochs": [self._with_replicate(row) for row in network.epochs],
            "sha256": hashes,
        }
        write_json(folder.done, record)
        remove(folder.state)
        return record

    def _live(self, network: Network) -> EpochRow:
        """The last epoch row, with what is only told while training goes on."""
        return {
            **self._with_replicate(network.epochs[-1]),
            "images_per_second": images_per_second(network, self.recipe),
            **self.gpu_use.columns(),
        }

    def _with_replicate(self, row: EpochRow) -> EpochRow:
        return {**row, "replicate": self.replicate}

    def _row(self, network: Network) -> dict[str, Any]:
        ticket = self.tickets[network.name]
        return {
            **ticket_columns(ticket, self.trajectory),
            **mask_columns(self.masks[network.name], self.trajectory),
            "status": "diverged" if network.diverged else "done",
            "error": "the loss is not finite" if network.diverged else None,
            **measured(network, self.recipe),
            **self.gpu_use.columns(),
            "pack": self.pack.name,
            **conditions(
                self.place, self.choices[network.name], self.started_at, self.attempts[network.name]
            ),
        }


def mask_columns(mask: Mask, trajectory: Trajectory) -> dict[str, Any]:
    """What a mask keeps, of the prunable weights and of all parameters."""
    prunable = sum(part.numel() for part in mask.values())
    kept = kept_weights(mask)
    return {
        "kept_weights": kept,
        "prunable_weights": prunable,
        "density_kept": kept / prunable,
        "density_all": (trajectory.parameters - prunable + kept) / trajectory.parameters,
        "dead_layers": dead_layers(mask),
    }
