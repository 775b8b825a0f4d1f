"""An experiment whose trials take their time and hardly any CPU, as trials on a GPU do."""

from pathlib import Path
from typing import Any

from conftest import small_document

# A pruned network waits once for those on all other devices: on few cores workers start so long one
# after the other that the first would be done before the last has come.
NETWORK = """
import os
import socket
import time

from torch import nn

from ltray.files import at, names_below, write_whole

MEETING = {meeting!r}
DEVICES = {devices}
met = False


def meet():
    global met
    here = f"{{socket.gethostname()}}-{{os.environ['CUDA_VISIBLE_DEVICES']}}"
    write_whole(at(f"{{MEETING}}/{{here}}", "meeting"), b"")
    until = time.monotonic() + 180
    while len(names_below(at(MEETING, "meeting"))) < DEVICES and time.monotonic() < until:
        time.sleep(0.1)
    met = True


class Paced(nn.Sequential):
    def forward(self, images):
        if not met and (self[1].weight == 0).any():
            meet()
        time.sleep(0.02)
        return super().forward(images)


def paced(classes, channels, image_size):
    inputs = channels * image_size**2
    return Paced(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, classes))
"""


def paced_experiment(
    folder: Path, devices: int, meeting: str, **changes: list[float] | int
) -> dict[str, Any]:
    """Its document; the network's file is written beside it, in `folder`.

    Args:
        devices: how many trials can run at once.
        meeting: a folder or address that all trials reach, where those of the devices meet.
        changes: of the small experiment.
    """
    (folder / "paced.py").write_text(NETWORK.format(devices=devices, meeting=meeting))
    always = {"name": "paced", "model__arch": "paced.py:paced", "sweep__gpus_per_trial": 1}
    return small_document({**always, "train__epochs": 2, **changes})
