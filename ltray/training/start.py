"""What a dense run and a pack have in common before the first step and after the last."""

from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ltray.data.batches import Batches, DataSet, open_data_set
from ltray.data.manifest import read_manifest
from ltray.experiment import Data
from ltray.files import is_there, read_json, write_json
from ltray.group import ALONE, Group
from ltray.layout import DataFolder
from ltray.models.networks import build
from ltray.own_code import check_unchanged
from ltray.randomness import seed_for
from ltray.run import Run
from ltray.tensors import Tensors, write_tensors
from ltray.training.backends.trial import Choice
from ltray.training.network import Network
from ltray.training.place import Place
from ltray.training.recipe import Recipe


def open_batches(run: Run, place: Place, data_seed: int, group: Group = ALONE) -> Batches:
    """The run's batches in one data order; images decoded before are kept by the process."""
    data_set = _data_set(run.data, run.experiment.data, place.device, place.threads)
    return Batches(data_set, run.experiment.train.batch_size, data_seed, group)


@lru_cache(maxsize=1)
def _data_set(folder: DataFolder, data: Data, device: torch.device, threads: int) -> DataSet:
    return open_data_set(folder, read_manifest(folder), data, device, threads)


def untrained(run: Run, classes: int, seed: int, device: torch.device) -> torch.nn.Module:
    """The network with the initial weights of a seed.

    Raises:
        LtrayError: a person's own network cannot be built here, or its file has changed.
    """
    data = run.experiment.data
    assert isinstance(data.channels, int), "resolve() fills channels"
    assert data.crop_size is not None, "resolve() fills crop_size"
    if run.network is not None:
        check_unchanged(run.network, run.folder.network)
    model = build(
        run.experiment.model.arch,
        classes,
        data.channels,
        data.crop_size,
        seed_for(seed, "initial weights"),
    )
    # Convolutions on CPUs are up to 1.7 times as fast in this layout; batches have it too.
    placed: torch.nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return placed


def note(attempts: Path, device: str, choice: Choice) -> None:
    """Write down how a ticket is trained on this kind of device."""
    before = _begun(attempts)
    choices = {**before.get("choices", {}), device: choice.as_json()}
    write_json(attempts, {**before, "choices": choices})


def begin(attempts: Path) -> int:
    """Count one more beginning of a training; returns the count so far."""
    before = _begun(attempts)
    count = int(before["attempts"]) + 1
    write_json(attempts, {**before, "attempts": count})
    return count


def chosen(attempts: Path, device: str) -> Choice | None:
    """How a training was begun on this kind of device before."""
    before = _begun(attempts).get("choices", {})
    return Choice(**before[device]) if device in before else None


def _begun(attempts: Path) -> dict[str, Any]:
    return read_json(attempts) if is_there(attempts) else {"attempts": 0}


def now() -> str:
    """The time as ISO 8601 in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def measured(network: Network, recipe: Recipe) -> dict[str, Any]:
    """The columns that training gave: figures of the last epoch and of the best."""
    columns = ("val_top1", "val_loss", "test_top1", "test_top5", "test_loss")
    last = network.epochs[-1] if network.epochs and not network.diverged else {}
    best = max(network.epochs, key=lambda row: row["val_top1"], default={})
    return {
        **{column: last.get(column) for column in columns},
        "best_val_top1": best.get("val_top1"),
        "best_val_epoch": best.get("epoch"),
        "steps_trained": network.steps_trained,
        "epochs_trained": network.steps_trained / recipe.steps_per_epoch,
        "train_seconds": network.train_seconds,
        "images_per_second": images_per_second(network, recipe),
    }


def images_per_second(network: Network, recipe: Recipe) -> float | None:
    """Training images by the network's own share of the time so far."""
    images = network.steps_trained * recipe.train.batch_size
    return images / network.train_seconds if network.train_seconds else None


def conditions(place: Place, choice: Choice, started_at: str, attempts: int) -> dict[str, Any]:
    """The columns that say how, where, when and how often."""
    return {
        "backend": choice.backend,
        "backend_ms": choice.told(),
        "device": place.device_name,
        "cuda_visible_devices": place.cuda_visible_devices,
        "node": place.node,
        "started_at": started_at,
        "finished_at": now(),
        "attempts": attempts,
    }


def save_correct(path: Path, correct: Tensors) -> str:
    """Write per image whether top-1 was right, bit-packed: uint8 [ceil(images / 8)] a split.

    Returns:
        the file's SHA-256.
    """
    packed = {name: torch.from_numpy(np.packbits(hits.numpy())) for name, hits in correct.items()}
    header = {"images": {name: hits.numel() for name, hits in correct.items()}}
    return write_tensors(path, packed, header)
