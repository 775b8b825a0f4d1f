"""The masks that an experiment asks for, and their names."""

from dataclasses import dataclass
from typing import Any, Literal

from ltray.experiment import Experiment, Prune, as_written
from ltray.files import short_hash

AT_INITIALISATION = ("random", "snip", "grasp", "synflow")
Scored = Literal["final", "reset", "init"]


@dataclass(frozen=True)
class MaskOf:
    """What one mask is made from.

    Attributes:
        sparsity: the level as written.
        reset_epoch: the reset point whose weights are scored; None where one mask is of them all.
    """

    name: str
    sparsity: float
    reset_epoch: float | None

    def __str__(self) -> str:
        """In words."""
        level = f"sparsity {as_written(self.sparsity)}"
        if self.reset_epoch is None:
            return level
        return f"{level} scored at reset point {as_written(self.reset_epoch)}"


def scored(prune: Prune) -> Scored:
    """Which weights of the dense run the criterion looks at."""
    if prune.scores != "auto":
        return prune.scores
    return "init" if prune.criterion in AT_INITIALISATION else "final"


def mask_of(prune: Prune, sparsity: float, reset_epoch: float) -> MaskOf:
    """The mask of one cell of the grid.

    Its name is `<criterion>-<sparsity as written>-<8 hex of all that decides the mask>`.
    """
    decides: dict[str, Any] = {
        "criterion": prune.criterion,
        "scores": scored(prune),
        "scope": prune.scope,
        "style": prune.style,
        "sparsity": as_written(sparsity),
        "keep_dense": sorted(prune.keep_dense),
        "output_rate": as_written(prune.output_rate),
        "min_layer_density": as_written(prune.min_layer_density),
    }
    point = reset_epoch if scored(prune) == "reset" else None
    if point is not None:
        decides["reset"] = as_written(point)
    criterion = prune.criterion.rpartition(":")[2]  # the function, of a person's own
    name = f"{criterion}-{as_written(sparsity)}-{short_hash(decides)}"
    return MaskOf(name, sparsity, point)


def masks_of(experiment: Experiment) -> list[MaskOf]:
    """All masks that each replicate needs, each once, the densest first."""
    prune = experiment.prune
    asked = (
        mask_of(prune, sparsity, point)
        for sparsity in sorted(prune.sparsities)
        for point in sorted(experiment.reset.epochs)
    )
    return list(dict.fromkeys(asked))
