"""A trained network measured once more, image by image, against what was recorded of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ltray import host
from ltray.data.batches import Batch, Batches
from ltray.run import Run
from ltray.tensors import read_tensors
from ltray.training.place import this_place
from ltray.training.start import open_batches

MOST_IMAGES = 10_000  # of each split
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Rechecked:
    """One split.

    Attributes:
        images: how many were looked at, from the beginning of the split.
        of: how many it has.
        differ: how many the network has right now and had wrong then, or the other way round.
        device: where it was computed.
    """

    images: int
    of: int
    differ: int
    device: str


@torch.inference_mode()
def recheck(run: Run, model: nn.Module, correct: Path, backend: str) -> dict[str, Rechecked]:
    """Evaluate a network here, on a GPU if there is one, in the precision of its training.

    Args:
        model: in evaluation mode.
        correct: the correct.safetensors of its training.
        backend: that trained it.

    Returns:
        split -> how it compares.
    """
    place = this_place(int(torch.cuda.is_available()), host.cpus())
    torch.set_num_threads(place.threads)  # one process, one network: no trial is beside it
    model.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = open_batches(run, place, data_seed=0)
    bfloat16 = run.experiment.train.precision == "bfloat16" and backend != "csr"
    packed, header = read_tensors(correct)
    found = {}
    for split in SPLITS:
        of = header["images"][split]
        was = np.unpackbits(packed[split].numpy(), count=of).astype(bool)
        now = _right(model, _some(batches, split), bfloat16)
        differ = int((now != was[: now.size]).sum())
        found[split] = Rechecked(now.size, of, differ, place.device_name)
    return found


def _some(batches: Batches, split: str) -> Iterator[Batch]:
    seen = 0
    for images, labels in batches.evaluation(split):
        yield images, labels
        seen += len(labels)
        if seen >= MOST_IMAGES:
            return


def _right(model: nn.Module, batches: Iterator[Batch], bfloat16: bool) -> NDArray[np.bool_]:
    """Bool [images]: whether top-1 is right."""
    hits = []
    for images, labels in batches:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bfloat16):
            logits = model(images)
        hits.append((logits.float().argmax(dim=1) == labels).cpu().numpy())
    return np.concatenate(hits)
