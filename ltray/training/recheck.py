"""A trained network measured once more, image by image, against what was recorded of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ltray import host
from ltray.data.batches import Batch, Batches
from ltray.experiment import Experiment
from ltray.files import is_there, read_json
from ltray.run import Run
from ltray.tensors import read_tensors
from ltray.training.evaluation import best_five
from ltray.training.network import at_least_float32
from ltray.training.place import Place, this_place
from ltray.training.start import open_batches

MOST_IMAGES = 10_000  # of each split
SPLITS = ("validation", "test")
COMPUTED_ALONE = {"loop", "compiled_loop"}  # backends that evaluate a network as torch itself does
# What may differ where other kernels compute: rounding decides between classes that are all but
# equal. bfloat16 has 7 bits behind the point, and GPUs' convolutions round float32 to 10.
MAY_DIFFER = 0.001  # of the images, in float32 on CPUs
MAY_DIFFER_COARSE = 0.01  # of the images, else
MAY_DIFFER_OF_FEW = 2  # images, of a split so small that these are more


@dataclass(frozen=True)
class Rechecked:
    """One split.

    Attributes:
        images: how many were looked at, from the beginning of the split.
        of: how many it has.
        differ: how many the network has right now and had wrong then, or the other way round.
        may_differ: how many at most, by other kernels' rounding; 0 where it is computed as it was
            when it was trained.
        device: where it was computed.
    """

    images: int
    of: int
    differ: int
    may_differ: int
    device: str


@torch.inference_mode()
def recheck(run: Run, model: nn.Module, correct: Path, row: dict[str, Any]) -> dict[str, Rechecked]:
    """Evaluate a network here, on a GPU if there is one, in the precision of its training.

    Args:
        model: in evaluation mode.
        correct: the correct.safetensors of its training.
        row: of its training.

    Returns:
        split -> how it compares.
    """
    place = this_place(int(torch.cuda.is_available()), host.cpus())
    precision = precision_of(run.experiment, row["backend"])
    share = _share_that_may_differ(run, row, place, precision)
    if share:  # one process, one network: no trial is beside it
        torch.set_num_threads(place.threads)
    model.to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batches = open_batches(run, place, data_seed=0)
    packed, header = read_tensors(correct)
    found = {}
    for split in SPLITS:
        of = header["images"][split]
        was = np.unpackbits(packed[split].numpy(), count=of).astype(bool)
        now = _right(model, _some(batches, split), precision == "bfloat16")
        differ = int((now != was[: now.size]).sum())
        most = max(MAY_DIFFER_OF_FEW, int(share * now.size)) if share else 0
        found[split] = Rechecked(now.size, of, differ, most, place.device_name)
    return found


def precision_of(experiment: Experiment, backend: str) -> Literal["float32", "bfloat16"]:
    """What a ticket's figures were computed in."""
    return "float32" if backend == "csr" else experiment.train.precision


def _share_that_may_differ(run: Run, row: dict[str, Any], place: Place, precision: str) -> float:
    """Of the images; 0 where the same kernels compute the same thing."""
    same_device = row["device"] == place.device_name
    if same_device and row["backend"] in COMPUTED_ALONE and _is_as_then(run, row, place):
        return 0
    on_cpus = {row["device"], place.device_name} == {"cpu"}
    return MAY_DIFFER if on_cpus and precision == "float32" else MAY_DIFFER_COARSE


def _is_as_then(run: Run, row: dict[str, Any], place: Place) -> bool:
    """Whether torch, and a CPU's model, are those of the launch in which the ticket was done."""
    launches = read_json(run.folder.launches)["launches"] if is_there(run.folder.launches) else []
    for launch in launches:
        if launch["started_at"] <= row["finished_at"] <= (launch["finished_at"] or ""):
            machine = launch["machine"]
            same_cpu = machine.get("nodes") == 1 and machine.get("cpu_name") == host.cpu_name()
            same_torch = launch["versions"]["torch"] == version("torch")
            return same_torch and (same_cpu or place.device.type != "cpu")
    return False


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
            logits = at_least_float32(model(images))
        hits.append((best_five(logits)[:, 0] == labels).cpu().numpy())
    return np.concatenate(hits)
