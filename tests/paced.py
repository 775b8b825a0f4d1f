"""An experiment whose trials take their time and hardly any CPU, as trials on a GPU do."""

from pathlib import Path
from typing import Any

from conftest import small_document

NETWORK = """
import time

from torch import nn


class Paced(nn.Sequential):
    def forward(self, images):
        time.sleep(0.1)
        return super().forward(images)


def paced(classes, channels, image_size):
    inputs = channels * image_size**2
    layers = [nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, classes)]
    return Paced(*layers)
"""


def paced_experiment(
    folder: Path, sparsities: int, reset_epochs: list[int], tickets_per_trial: int = 1
) -> dict[str, Any]:
    """Its document; the network's file is written beside it, in `folder`.

    A ticket takes six seconds, so that trials that start one after the other on few cores still
    train at the same time.
    """
    (folder / "paced.py").write_text(NETWORK)
    return small_document(
        {
            "name": "paced",
            "model__arch": "paced.py:paced",
            "train__epochs": 2,
            "prune__sparsities": [round(0.05 * number, 2) for number in range(1, sparsities + 1)],
            "reset__epochs": reset_epochs,
            "sweep__tickets_per_trial": tickets_per_trial,
            "sweep__gpus_per_trial": 1,
        }
    )
