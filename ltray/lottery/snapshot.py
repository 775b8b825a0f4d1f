"""A network in the middle of its training, as values and as one safetensors file.

The trajectory's step files and a running ticket's state are the same thing: all that the next
step needs, so that going on from the file gives the bits of never having stopped.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from ltray.lottery.trajectory import EpochRow
from ltray.tensors import Tensors, read_tensors, write_tensors


@dataclass(frozen=True)
class Snapshot:
    """Everything that the next step depends on, and what was measured so far.

    Attributes:
        step: steps of the recipe done; the next one has this number.
        model: the network's state_dict, BatchNorm statistics included.
        optimizer: parameter name -> state name -> tensor.
        loss_sum: float64 scalar, training loss summed since the last evaluation.
        loss_steps: how many steps that is.
        steps_trained, train_seconds: of this ticket so far, without evaluation.
        epochs: one row per evaluation so far.
    """

    step: int
    model: Tensors
    optimizer: dict[str, Tensors] = field(default_factory=dict)
    loss_sum: torch.Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    loss_steps: int = 0
    steps_trained: int = 0
    train_seconds: float = 0.0
    epochs: tuple[EpochRow, ...] = ()


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot whole; tensors are named model:<name> and optimizer:<name>:<state>."""
    tensors = {f"model:{name}": tensor for name, tensor in snapshot.model.items()}
    for name, state in snapshot.optimizer.items():
        tensors |= {f"optimizer:{name}:{part}": tensor for part, tensor in state.items()}
    tensors["loss_sum"] = snapshot.loss_sum
    header = {
        "step": snapshot.step,
        "loss_steps": snapshot.loss_steps,
        "steps_trained": snapshot.steps_trained,
        "train_seconds": snapshot.train_seconds,
        "epochs": snapshot.epochs,
    }
    write_tensors(path, tensors, header)


def load_snapshot(path: Path) -> Snapshot:
    """Read a snapshot that `save_snapshot` wrote, onto the CPU."""
    model: Tensors = {}
    optimizer: dict[str, Tensors] = {}
    tensors, header = read_tensors(path)
    loss_sum = tensors.pop("loss_sum")
    for key, tensor in tensors.items():
        kind, _, name = key.partition(":")
        if kind == "model":
            model[name] = tensor
        else:
            parameter, _, part = name.rpartition(":")
            optimizer.setdefault(parameter, {})[part] = tensor
    epochs = tuple(header.pop("epochs"))
    return Snapshot(model=model, optimizer=optimizer, loss_sum=loss_sum, epochs=epochs, **header)


def load_weights(path: Path) -> Tensors:
    """The network's state_dict from a snapshot, without the rest of it."""
    return load_snapshot(path).model
