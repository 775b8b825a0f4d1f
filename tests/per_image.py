"""correct.safetensors for made-up runs: which images a network has right, by its accuracies."""

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from test_results import TEST_IMAGES, VAL_IMAGES

from ltray.analysis.correct import COLUMNS
from ltray.analysis.results import collect
from ltray.layout import RunFolder
from ltray.training.start import save_correct

IMAGES = {"validation": VAL_IMAGES, "test": TEST_IMAGES}


def write_bits(path: Path, right: Mapping[str, Iterable[int]]) -> None:
    """Write the images of each split that are right, by their numbers."""
    correct = {}
    for split, numbers in right.items():
        correct[split] = torch.zeros(IMAGES[split], dtype=torch.bool)
        correct[split][list(numbers)] = True
    save_correct(path, correct)


def write_all_correct(run: RunFolder) -> None:
    """Write one for every dense run and finished ticket; hard images are hard for all networks."""
    rows = collect(run)
    for number, row in rows.dense.items():
        _write(run.replicate(number).dense_correct, row)
    for row in rows.tickets.values():
        if row["status"] == "done":
            _write(run.replicate(row["replicate"]).ticket(row["ticket"]).correct, row)


def _write(path: Path, row: dict[str, Any]) -> None:
    right = {}
    for split, column in COLUMNS.items():
        images = IMAGES[split]
        luck = random.Random(f"{row['replicate']} {row['ticket']} {split}")
        ease = [-number + luck.gauss(0, 4) for number in range(images)]
        easiest = sorted(range(images), key=ease.__getitem__, reverse=True)
        right[split] = easiest[: round(row[column] * images)]
    write_bits(path, right)
