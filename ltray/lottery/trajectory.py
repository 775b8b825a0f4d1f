"""The record of a dense run: its figures, its prunable tensors, and the steps that were saved."""

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from ltray.errors import LtrayError, did_you_mean
from ltray.experiment import Prune, step_of
from ltray.files import is_there, read_json, write_json
from ltray.layout import ReplicateFolder

EpochRow = dict[str, Any]
"""One evaluation of one network: the columns of epochs.parquet."""


class Trajectory(BaseModel):
    """What trajectory.json says; it is written last, so every file that it names is whole.

    Attributes:
        row: the dense run's figures, as a ticket's.
        epochs: one row per evaluation.
        prunable: tensor name -> its number of weights, keep_dense not taken out.
        output_layer: the tensor that prune.output_rate is about.
        parameters: of the whole network.
        sha256: file name -> hash; one `step-<step>.safetensors` per saved step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    row: EpochRow
    epochs: list[EpochRow]
    prunable: dict[str, int]
    output_layer: str
    parameters: int
    steps_per_epoch: int
    total_steps: int
    sha256: dict[str, str]

    def has_step(self, folder: ReplicateFolder, step: int) -> bool:
        """Whether the weights after `step` steps were saved."""
        path = folder.step(step)
        return path.name in self.sha256 and is_there(path)


def saved_steps(points: Iterable[float], steps_per_epoch: int, total_steps: int) -> list[int]:
    """What a dense run saves: step 0, the reset points and the end, in order."""
    return sorted({0, *(step_of(point, steps_per_epoch) for point in points), total_steps})


def read_trajectory(folder: ReplicateFolder) -> Trajectory | None:
    """The record of a replicate's dense run; None while it is not whole.

    Raises:
        LtrayError: trajectory.json is not what this version writes.
    """
    if not is_there(folder.trajectory):
        return None
    try:
        return Trajectory.model_validate(read_json(folder.trajectory))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        mend = "delete it, and the dense run is made again"
        raise LtrayError(str(folder.trajectory), f"not readable: {reason}", mend) from None


def write_trajectory(folder: ReplicateFolder, trajectory: Trajectory) -> None:
    """Write trajectory.json, after all files that it names."""
    write_json(folder.trajectory, trajectory.model_dump(mode="json"))


def prunable_tensors(prune: Prune, trajectory: Trajectory) -> dict[str, int]:
    """Tensor name -> number of weights of what the experiment prunes.

    Raises:
        LtrayError: prune.keep_dense names a tensor that is not prunable, or leaves none.
    """
    for name in prune.keep_dense:
        if name not in trajectory.prunable:
            found = f"'{name}' is no prunable tensor"
            near = did_you_mean(name, list(trajectory.prunable))
            known = f"choose from {', '.join(trajectory.prunable)}"
            raise LtrayError("prune.keep_dense", found + near, known)
    left = {
        name: size for name, size in trajectory.prunable.items() if name not in prune.keep_dense
    }
    if not left:
        raise LtrayError("prune.keep_dense", "leaves nothing to prune", "take a name out")
    return left
