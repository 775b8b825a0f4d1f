"""How much of every layer the masks keep: read from the headers of their files, without a tensor.

A layer here is a prunable tensor. Shares are fractions in [0, 1], means over replicates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import Any

from ltray.analysis.columns import Row
from ltray.analysis.wording import kept, level
from ltray.experiment import Experiment
from ltray.headers import read_headers
from ltray.layout import RunFolder
from ltray.lottery.mask_names import masks_of

FEW = 30  # layers that a table shows at a glance
# The colours change at these shares kept.
_EDGES = (0.5, 0.2, 0.1, 0.05, 0.02, 0.01)


@dataclass(frozen=True)
class Kept:
    """What the masks of one level keep of one layer.

    Attributes:
        dead: in how many replicates nothing is left of it.
        masks: how many replicates' masks there are.
    """

    share: float
    dead: int
    masks: int

    @property
    def look(self) -> str:
        """The CSS class."""
        return "dead" if self.dead else f"share-{sum(self.share < edge for edge in _EDGES)}"

    @property
    def text(self) -> str:
        """The share in percent, without the unit."""
        if self.dead:
            return "dead" if self.masks == 1 else f"dead {self.dead}/{self.masks}"
        return f"{100 * self.share:.2g}" if self.share < 0.995 else "100"


@dataclass(frozen=True)
class Layers:
    """The masks of a grid, layer by layer.

    Attributes:
        weights: how many each layer has, in the order of the network.
        kept: level -> layer -> what is kept, for the levels that have a mask.
        wanting: masks that the grid asks for and that could not be read.
        asked: masks that the grid asks for, over all replicates.
    """

    weights: Mapping[str, int]
    kept: Mapping[float, Mapping[str, Kept]]
    wanting: int
    asked: int

    @property
    def few(self) -> bool:
        return len(self.weights) <= FEW


def read_layers(run: RunFolder, experiment: Experiment, prunable: Mapping[str, int]) -> Layers:
    """Read the headers of the masks that the grid asks for; those that are not there are counted.

    Args:
        prunable: weights of each prunable tensor; those that the experiment keeps dense, too.
    """
    masks = masks_of(experiment)
    replicates = range(experiment.replicates)
    places = [
        (one.sparsity, run.replicate(each).mask(one.name)) for one in masks for each in replicates
    ]
    weights = {
        name: count for name, count in prunable.items() if name not in experiment.prune.keep_dense
    }
    found: dict[float, list[dict[str, float]]] = {}
    headers = read_headers([path for _, path in places])
    for (sparsity, _), header in zip(places, headers, strict=True):
        densities = _densities(header, weights)
        if densities is not None:
            found.setdefault(sparsity, []).append(densities)
    return Layers(
        weights=weights,
        kept={sparsity: _means(each, weights) for sparsity, each in found.items()},
        wanting=len(places) - sum(map(len, found.values())),
        asked=len(places),
    )


def dead_layers(done: Sequence[Row], layers: Layers) -> list[tuple[float, list[str]]]:
    """(sparsity, layers that a mask or a finished ticket has nothing left of), where there are any.

    Masks tell it before a ticket is trained; tickets where a mask's file is gone.
    """
    by_sparsity: dict[float, set[str]] = {
        sparsity: {name for name, of in by_layer.items() if of.dead}
        for sparsity, by_layer in layers.kept.items()
    }
    for row in done:
        by_sparsity.setdefault(row["sparsity"], set()).update(row["dead_layers"])
    return [(sparsity, sorted(names)) for sparsity, names in sorted(by_sparsity.items()) if names]


def legend() -> list[tuple[str, str]]:
    """(CSS class, what it stands for), the fullest first."""
    inner = [f"{kept(low)} to {kept(high)}" for high, low in pairwise(_EDGES)]
    texts = [f"{kept(_EDGES[0])} or more", *inner, f"below {kept(_EDGES[-1])}"]
    return [(f"share-{number}", text) for number, text in enumerate(texts)] + [
        ("dead", "dead: nothing left")
    ]


def tooltip(name: str, sparsity: float, of: Kept) -> str:
    """A cell in words."""
    return f"{name} at {level(sparsity)} sparsity: {kept(of.share)} kept" + (
        f", dead in {of.dead} of {of.masks}" if of.dead else ""
    )


def _densities(
    header: Mapping[str, Any] | None, weights: Mapping[str, int]
) -> dict[str, float] | None:
    """Layer -> share kept; None of a header that does not tell it of every layer."""
    told = (header or {}).get("density")
    if not isinstance(told, dict) or not all(
        isinstance(told.get(name), int | float) for name in weights
    ):
        return None
    return {name: float(told[name]) for name in weights}


def _means(masks: Sequence[Mapping[str, float]], weights: Mapping[str, int]) -> dict[str, Kept]:
    return {
        name: Kept(
            share=fmean(mask[name] for mask in masks),
            dead=sum(mask[name] == 0 for mask in masks),
            masks=len(masks),
        )
        for name in weights
    }
