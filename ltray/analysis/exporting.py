"""A ticket as a folder that anyone can load: files, card, loading code, and a check of it all."""

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors.torch import save

from ltray.analysis import wording
from ltray.analysis.chosen import Chosen
from ltray.analysis.columns import Row
from ltray.analysis.onnx import onnx_of
from ltray.analysis.results import collect
from ltray.analysis.ticket_card import ticket_card
from ltray.data.batches import normalisation
from ltray.data.manifest import Manifest, read_manifest
from ltray.data.selection import chosen_classes, image_counts
from ltray.errors import LtrayError, StageFailed
from ltray.files import (
    is_local,
    is_there,
    names_below,
    read_json,
    sha256_of,
    write_json,
    write_whole,
)
from ltray.lottery.exported import (
    ABOUT,
    FORMAT,
    MASK,
    OWN_HASH,
    WEIGHTS,
    hash_of,
    load_described,
    read_about,
)
from ltray.lottery.ready import wanted
from ltray.lottery.standalone import standalone
from ltray.lottery.tickets import Ticket, grid, key
from ltray.lottery.trajectory import read_trajectory
from ltray.own_code import load
from ltray.run import Run
from ltray.say import Say
from ltray.tensors import Tensors, read_tensors
from ltray.training.first_weights import first_weights, own_mask
from ltray.training.recheck import Rechecked, precision_of, recheck

CARD = "README.md"
LOADER = "load_ticket.py"
NETWORK = "network.py"
ONNX = "model.onnx"
NAMES = {ABOUT, MASK, *WEIGHTS.values(), CARD, LOADER, NETWORK, ONNX}
LOADERS = (
    "load_ticket",
    "read_about",
    "network_inputs",
    "apply_mask",
    "keep_masked",
    "to_torch_prune",
)
# Of a ticket's row: what says more of a machine than of the ticket, and its addresses.
LEFT_OUT = {"node", "cuda_visible_devices", "pack", "attempts", "error", "status", "matching"}
REPORT = "report this: it is a fault of ltray"


def export(  # noqa: PLR0913, PLR0917 (what, where to, and what a person adds)
    run: Run, chosen: Chosen, folder: Path, licence: str | None, with_onnx: bool, say: Say
) -> None:
    """Write a ticket's folder, ticket.json last; what is there already is left as it is.

    Raises:
        LtrayError: the folder holds something else, or the shards are not there.
        StageFailed: the run's own files are damaged, or what was written is not the ticket.
    """
    wanted = {MASK, *WEIGHTS.values(), LOADER}
    wanted |= {ONNX} if with_onnx else set()
    wanted |= {NETWORK} if run.network is not None else set()
    kept = _kept_card(folder)
    if _is_there_already(run, chosen, folder, wanted):
        said = "; its card is left as it is" if licence else ""
        say(f"{folder} has it already{said}")
        return
    written = _Export(run, chosen, folder)
    written.tensors()
    checked = written.check(say)
    if with_onnx:
        written.onnx()
    written.words(licence, checked, keep_card=kept)
    if kept:
        say(f"{folder / CARD} was there before and is left as it is")
    differ = sum(one.differ for one in checked.values())
    but = f" but for {differ}" if differ else ""
    say(f"{folder}: {wording.data_size(written.bytes)}, loads, is right on the same images{but}")


def _kept_card(folder: Path) -> bool:
    """Whether there is a card that a person may have written in: alone, or with a whole export.

    One beside the files of an export that was cut off is of that one.
    """
    there = set(names_below(folder)) if _in_the_way(folder) is None else set()
    return CARD in there and (there == {CARD} or ABOUT in there)


def _in_the_way(folder: Path) -> Path | None:
    """The file that is where the folder, or one around it, should be."""
    places = (folder, *folder.parents) if is_local(folder) else ()
    return next((place for place in places if place.is_file()), None)


def _is_there_already(run: Run, chosen: Chosen, folder: Path, wanted: set[str]) -> bool:
    """Whether this ticket lies there whole; refuses a folder that is in use for something else."""
    if (file := _in_the_way(folder)) is not None:
        raise LtrayError("--to", f"{file} is a file", "name a folder")
    there = set(names_below(folder))
    if others := sorted(there - NAMES):
        found = f"{folder} holds {wording.listed(others[:3])}, which no export writes"
        raise LtrayError("--to", found, "name a new folder")
    if ABOUT not in there:
        return False
    about = read_about(folder)
    source = about["run"], about["row"]["replicate"], about["row"]["ticket"]
    if source != (run.folder.path.name, chosen.row["replicate"], chosen.row["ticket"]):
        raise LtrayError("--to", f"{folder} holds another ticket, {source[2]}", "name a new folder")
    hashes = about["sha256"]
    return wanted <= there and all(
        name in hashes and sha256_of(folder / name) == hashes[name] for name in wanted
    )


class _Export:
    """One folder on its way."""

    def __init__(self, run: Run, chosen: Chosen, folder: Path) -> None:
        self.run = run
        self.chosen = chosen
        self.folder = folder
        self.hashes: dict[str, str] = {}
        self.bytes = 0
        self.ticket = _ticket_of(chosen.row)
        self.replicate = run.folder.replicate(self.ticket.replicate)
        self.manifest: Manifest = read_manifest(run.data)
        trajectory = read_trajectory(self.replicate)
        assert trajectory is not None, "a ticket that is done has a trajectory"
        self.trajectory = trajectory
        self.classes = chosen_classes(run.experiment.data, len(self.manifest.class_names))

    def tensors(self) -> None:
        """Write mask, first weights and trained weights."""
        try:
            mask = own_mask(self.replicate, self.ticket)
            start = first_weights(self.run, self.ticket, self.trajectory, len(self.classes))
        except FileNotFoundError as error:
            missing = str(error.filename)
            raise StageFailed(missing, "is missing", self._mend(missing)) from None
        trained, _ = read_tensors(self._checked(self.replicate.ticket(self.ticket.name).weights))
        masked = {name: _masked(value, mask.get(name)) for name, value in start.items()}
        self._write(MASK, save(mask))
        self._write(WEIGHTS["start"], _saved(masked))
        self._write(WEIGHTS["trained"], _saved(trained))

    def check(self, say: Say) -> dict[str, Rechecked]:
        """Load the folder as a stranger does, and see that the network is right as it was."""
        for weights in WEIGHTS:
            model, mask = self._loaded(weights)
            parts = {name: model.get_parameter(name)[~part] for name, part in mask.items()}
            if alive := [name for name, part in parts.items() if bool(part.any())]:
                found = f"masked weights are not zero in {wording.listed(alive[:3])}"
                raise StageFailed(str(self.folder / WEIGHTS[weights]), found, REPORT)
        say("measuring what was written, image by image")
        model, _ = self._loaded("trained")
        correct = self._checked(self.replicate.ticket(self.ticket.name).correct)
        checked = recheck(self.run, model, correct, self.chosen.row)
        for split, one in checked.items():
            part = "" if one.images == one.of else f" of {one.of:,}"
            most = f"at most {one.may_differ:,}" if one.may_differ else "none"
            said = f"{one.differ} of {one.images:,}{part} images differ, on {one.device}"
            say(f"{split}: {said}; {most} may")
            if one.differ > one.may_differ:
                problem = f"the network that was written is another on {one.differ} images"
                raise StageFailed(str(self.folder), problem, REPORT)
        return checked

    def onnx(self) -> None:
        """Write the trained network as ONNX."""
        model, _ = self._loaded("trained")
        self._write(ONNX, onnx_of(model, self.run.experiment.data))

    def words(self, licence: str | None, checked: Mapping[str, Rechecked], keep_card: bool) -> None:
        """Write loading code and card, then ticket.json."""
        if self.run.network is not None:
            self._write(NETWORK, self.run.network.content)
        self._write(LOADER, loading_code().encode())
        about = self.about(checked)
        if not keep_card:
            counts = image_counts(self.manifest, self.run.experiment.data)
            card = ticket_card(self.run.experiment, self.chosen, about, counts, licence)
            write_whole(self.folder / CARD, card.encode())
        write_json(self.folder / ABOUT, {**about, OWN_HASH: hash_of(about)})

    def about(self, checked: Mapping[str, Rechecked]) -> dict[str, Any]:
        """What ticket.json says, but for its own hash."""
        experiment = self.run.experiment
        data = experiment.data
        mean, std = normalisation(self.manifest)
        network = self.run.network
        arch = experiment.model.arch if network is None else f"{NETWORK}:{network.function}"
        described = experiment.model_dump(mode="json")
        described["data"].pop("path")  # of this machine
        described["model"]["arch"] = arch
        if self.ticket.name not in {one.name for one in grid(experiment)}:
            # The experiment has been changed since: these would tell of other tickets.
            for section in ("prune", "reset", "controls"):
                del described[section]
        return {
            "format": FORMAT,
            "run": self.run.folder.path.name,
            "network": {
                "arch": arch,
                "own": network is not None,
                "classes": len(self.classes),
                "channels": data.channels,
                "image_size": data.crop_size,
            },
            "images": {
                "stored_size": data.image_size,
                "crop_size": data.crop_size,
                "resize": data.resize,
                "channels": data.channels,
                "mean": list(mean),
                "std": list(std),
            },
            "class_names": [self.manifest.class_names[label] for label in self.classes],
            "precision": precision_of(experiment, self.chosen.row["backend"]),
            "row": {name: value for name, value in self.chosen.row.items() if name not in LEFT_OUT},
            "experiment": described,
            "source_fingerprint": self.run.fingerprint,
            "checked": {split: asdict(one) for split, one in checked.items()},
            "sha256": dict(sorted(self.hashes.items())),
        }

    def _loaded(self, weights: str) -> tuple[torch.nn.Module, Tensors]:
        """What a stranger finds in the folder: the network and its mask."""
        own = None if self.run.network is None else load(self.run.network)
        return load_described(self.folder, self.about({}), weights, own)

    def _checked(self, path: Path) -> Path:
        """A file of the ticket, which must be what its training wrote."""
        folder = self.replicate.ticket(self.ticket.name)
        if not is_there(path) or sha256_of(path) != read_json(folder.done)["sha256"][path.name]:
            found = "has changed since it was trained" if is_there(path) else "is missing"
            mend = f"remove {folder.path} and sweep again: it is trained anew, to the same bits"
            raise StageFailed(str(path), found, self._once_asked_for(mend))
        return path

    def _mend(self, missing: str) -> str:
        """How a file of the run that is missing comes back, to the same bits."""
        match PurePath(missing).parent.name:
            case "masks":
                mend = "sweep again: it is made anew"
            case "trajectory":
                mend = "give `python -m ltray.dense`: it is made anew"
            case _:
                mend = "delete the folder that it was in, and sweep again: it is trained anew"
        return self._once_asked_for(mend)

    def _once_asked_for(self, mend: str) -> str:
        """What to do, before which a sweep must ask for the ticket again where it does not."""
        rows = collect(self.run.folder).tickets
        if key(self.ticket) in map(key, wanted(self.run.experiment, rows)):
            return mend
        which = f"{self.ticket.name} of replicate {self.ticket.replicate}"
        return f"have the experiment ask for {which} again, in a grid; then {mend}"

    def _write(self, name: str, content: bytes) -> None:
        write_whole(self.folder / name, content)
        self.hashes[name] = hashlib.sha256(content).hexdigest()
        self.bytes += len(content)


def loading_code() -> str:
    """load_ticket.py of an exported folder."""
    preface = '"""Loads the ticket in this folder, and keeps it sparse. Of ltray, Apache-2.0."""'
    return standalone("ltray.lottery.exported", LOADERS, preface)


def _ticket_of(row: Row) -> Ticket:
    return Ticket(**{each.name: row[each.name] for each in fields(Ticket)})


def _masked(weights: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return weights if mask is None else weights.masked_fill(~mask, 0)


def _saved(tensors: Tensors) -> bytes:
    return save({name: value.contiguous() for name, value in tensors.items()})
