"""The masks that an experiment asks for, and their names."""

from dataclasses import dataclass
from typing import Any, Literal

from ltray.experiment import Experiment, Prune, as_written
from ltray.files import short_hash
from ltray.given import Chain, chain_of

AT_INITIALISATION = ("random", "snip", "grasp", "synflow")
Scored = Literal["final", "reset", "init"]


@dataclass(frozen=True)
class MaskOf:
    """What one mask is made from.

    Attributes:
        sparsity: the level as written.
        reset_epoch: the reset point that it is for; None where one mask is for them all.
    """

    name: str
    sparsity: float
    reset_epoch: float | None

    def __str__(self) -> str:
        """In words."""
        level = f"sparsity {as_written(self.sparsity)}"
        if self.reset_epoch is None:
            return level
        return f"{level} of reset point {as_written(self.reset_epoch)}"


def scored(prune: Prune) -> Scored:
    """Which weights of the dense run the criterion looks at."""
    if prune.scores != "auto":
        return prune.scores
    return "init" if prune.criterion in AT_INITIALISATION else "final"


def has_masks_by_reset_point(experiment: Experiment) -> bool:
    """Whether each reset point has masks of its own, and not one mask a level for them all."""
    return scored(experiment.prune) == "reset" or experiment.prune.style == "iterative"


def mask_of(experiment: Experiment, sparsity: float, reset_epoch: float) -> MaskOf:
    """The mask of one cell of the grid.

    Its name is `<criterion>-<sparsity as written>-<8 hex of all that decides the mask>`.
    """
    prune = experiment.prune
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
    point = None
    if has_masks_by_reset_point(experiment):
        point = reset_epoch
        decides["reset"] = as_written(reset_epoch)
    if (chain := chain_of(experiment)) is not None:
        decides |= _levels_before(chain, sparsity)
    criterion = prune.criterion.rpartition(":")[2]  # the function, of a person's own
    name = f"{criterion}-{as_written(sparsity)}-{short_hash(decides)}"
    return MaskOf(name, sparsity, point)


def masks_of(experiment: Experiment) -> list[MaskOf]:
    """All masks that each replicate needs, each once, the densest first."""
    asked = (
        mask_of(experiment, sparsity, point)
        for sparsity in sorted(experiment.prune.sparsities)
        for point in sorted(experiment.reset.epochs)
    )
    return list(dict.fromkeys(asked))


def _levels_before(chain: Chain, sparsity: float) -> dict[str, Any]:
    """What decides the trained ticket that an iterative mask is made from; nothing at the first."""
    denser = [as_written(one) for one in sorted(chain.sparsities) if one < sparsity]
    if not denser:
        return {"denser": []}
    return {"denser": denser, "method": chain.method, "schedule": chain.schedule}
