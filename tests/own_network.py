"""A person's own network, with a class of its own that draws in forward()."""

from pathlib import Path
from typing import Any

import yaml
from conftest import small_document

NETS = """\
import torch
from torch import nn
from torch.nn import functional


class Small(nn.Module):
    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.conv = nn.Conv2d(channels, 4, 3, padding=1)
        self.bn = nn.BatchNorm2d(4)
        self.fc = nn.Linear(4 * image_size**2, classes)

    def forward(self, images):
        hidden = functional.relu(self.bn(self.conv(images)))
        return self.fc(functional.dropout(hidden, 0.2, self.training).flatten(1))


def small(classes, channels, image_size):
    return Small(classes, channels, image_size)
"""
OWN: dict[str, Any] = {
    "model__arch": "nets.py:small",
    "data__train_limit": 240,
    "train__epochs": 2,
    "prune": {"sparsities": [0.5, 0.9], "scope": "global"},
    "reset__epochs": [0, 1],
}


def written(folder: Path, text: str = NETS, **changes: Any) -> Path:
    """An experiment on digits, and its network beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "nets.py").write_text(text)
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(small_document({**OWN, **changes})))
    return path
