"""A made-up run as large as a real study: 20 sparsities x 5 reset points, with all its files."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from test_results import epoch_rows, experiment_of, synthetic_top1, ticket_row, write_dense

from ltray.analysis.correct import COLUMNS
from ltray.data.pixels import pixels_of
from ltray.experiment import SourceFacts, experiment_id
from ltray.files import write_json
from ltray.layout import DataFolder, ReplicateFolder, RunFolder
from ltray.lottery.mask_names import mask_of
from ltray.lottery.masks import save_mask
from ltray.lottery.tickets import Ticket, grid
from ltray.lottery.trajectory import read_trajectory, write_trajectory
from ltray.record import write_experiment
from ltray.run import Run
from ltray.training.start import save_correct

LEVELS = (0.6, 0.65, 0.7, 0.75, 0.8, *(n / 100 for n in range(85, 100)))
LAYERS = {f"layer{number // 3}.{number % 3}.conv.weight": 2000 for number in range(53)}
SPLITS = {"validation": 40_000, "test": 10_000}


def write_large_run(root: Path, epochs: int, replicates: int) -> RunFolder:
    """100 tickets in each replicate, each with its rows of all epochs and its images."""
    experiment = experiment_of(sparsities=LEVELS, replicates=replicates)
    facts = SourceFacts(fingerprint="0123456789abcdef", image_size=8, channels=1)
    train = experiment.train.model_copy(update={"epochs": epochs})
    data = experiment.data.model_copy(update={"encoding": "raw"})
    experiment = experiment.model_copy(update={"train": train, "data": data})
    folder = RunFolder(root / experiment_id(experiment, facts.fingerprint))
    pixels = pixels_of(experiment.data, facts)
    shards = DataFolder(root / "data" / "digits-01234567")
    write_experiment(Run(experiment, facts.fingerprint, pixels, folder, shards))
    for number in range(replicates):
        _write_dense(folder.replicate(number), folder, number, epochs)
        for sparsity in LEVELS:
            path = folder.replicate(number).mask(mask_of(experiment, sparsity, 0).name)
            kept = {layer: round((1 - sparsity) * count) for layer, count in LAYERS.items()}
            save_mask(path, {name: torch.arange(LAYERS[name]) < n for name, n in kept.items()})
    for ticket in grid(experiment):
        _write_ticket(folder.replicate(ticket.replicate), ticket, epochs)
    return folder


def _write_dense(replicate: ReplicateFolder, folder: RunFolder, number: int, epochs: int) -> None:
    write_dense(folder, number)
    trajectory = read_trajectory(replicate)
    assert trajectory is not None
    row = {**trajectory.row, "val_top1": 0.979, "test_top1": 0.976}
    rows = _epochs("dense", number, 0, epochs)
    update = {"row": row, "epochs": rows, "prunable": LAYERS}
    write_trajectory(replicate, trajectory.model_copy(update=update))
    _write_correct(replicate.dense_correct, row, number)


def _write_ticket(replicate: ReplicateFolder, ticket: Ticket, epochs: int) -> None:
    top1 = {
        column: synthetic_top1(ticket, SPLITS[split], split) for split, column in COLUMNS.items()
    }
    row = ticket_row(ticket, dense_val_top1=0.979, dense_test_top1=0.976, **top1)
    files = replicate.ticket(ticket.name)
    rows = _epochs(ticket.name, ticket.replicate, ticket.reset_epoch, epochs)
    write_json(files.done, {"row": row, "epochs": rows, "sha256": {}})
    _write_correct(files.correct, row, hash((ticket.replicate, ticket.sparsity)) % 2**32)


def _epochs(name: str, replicate: int, first: float, epochs: int) -> list[dict[str, Any]]:
    template = epoch_rows(name, replicate, first, 0.97)[0]
    return [
        {**template, "epoch": float(epoch), "step": 25 * epoch, "val_top1": 0.97 - 1 / (epoch + 3)}
        for epoch in range(int(first) + 1, epochs + 1)
    ]


def _write_correct(path: Path, row: dict[str, Any], seed: int) -> None:
    generator = np.random.default_rng(seed)
    correct = {}
    for split, images in SPLITS.items():
        ease = np.arange(images) + generator.normal(0, images / 50, images)
        right = np.zeros(images, dtype=bool)
        right[np.argsort(ease)[: round(row[COLUMNS[split]] * images)]] = True
        correct[split] = torch.from_numpy(right)
    save_correct(path, correct)
