"""Scores to masks with exactly the stated number of weights, and masks to files.

name -> tensor in every mapping; a mask's tensors are bool, True = kept.
n: prunable weights in all, n_t: those of one tensor t.
"""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ltray.errors import LtrayError
from ltray.experiment import Prune, decimal, exact_count
from ltray.lottery.layer_counts import layer_counts
from ltray.randomness import permutation, seed_for
from ltray.tensors import read_tensors, write_tensors

Scores = Mapping[str, torch.Tensor]
Mask = dict[str, torch.Tensor]


def make_mask(scores: Scores, prune: Prune, density: Decimal, output_layer: str) -> Mask:
    """The mask of one density in the scope of an experiment.

    Args:
        scores: of the prunable tensors alone; larger is kept. Not changed.
        prune: scope, output_rate and min_layer_density are what matters here.
        density: share kept of all prunable weights; decimal, for (1 - 0.95) * 10 is not 0.5.
        output_layer: the tensor that prune.output_rate is about.
    """
    shapes = {name: tensor.shape for name, tensor in scores.items()}
    counts = layer_counts(shapes, prune, density, output_layer)
    if counts is None:
        return over_all_layers(scores, density, decimal(prune.min_layer_density))
    return by_layer(scores, counts)


def by_layer(scores: Scores, counts: Mapping[str, int]) -> Mask:
    """Keep so many of every tensor's weights: its own largest scores.

    Equal scores are kept in row-major order, so the mask does not depend on the device. Since a
    tensor's kept weights are the first of one fixed ranking, sparser masks are subsets of denser.

    Args:
        scores: name -> finite tensor of any shape.
        counts: name -> weights kept, from 0 to n_t.
    """
    return {
        name: _like(tensor, top_k(_flat(name, tensor), counts[name]))
        for name, tensor in scores.items()
    }


def over_all_layers(scores: Scores, density: Decimal, min_layer_density: Decimal) -> Mask:
    """Keep round(density x n) weights, the largest scores over all tensors together.

    Every tensor first keeps floor(min_layer_density x n_t) of its own largest. Equal scores are
    kept in the order of tensor name (UTF-8 bytes), then row-major position.

    Args:
        scores: name -> finite tensor of any shape.
        density: fraction kept over all tensors, in (0, 1].
        min_layer_density: in [0, density].

    Source: Frankle et al. 2019 (arXiv 1903.01611), global magnitude pruning; the floor is ours,
        for depthwise layers that a global ranking would empty.
    """
    names = sorted(scores, key=str.encode)
    flat = [_flat(name, scores[name]) for name in names]
    kept = np.concatenate([top_k(part, int(min_layer_density * part.size)) for part in flat])
    rest = np.flatnonzero(~kept)
    every = np.concatenate(flat)
    more = exact_count(density, every.size) - int(kept.sum())
    kept[rest[top_k(every[rest], more)]] = True
    bounds = np.cumsum([part.size for part in flat])[:-1]
    return {
        name: _like(scores[name], part)
        for name, part in zip(names, np.split(kept, bounds), strict=True)
    }


def top_k(values: NDArray[np.floating], k: int) -> NDArray[np.bool_]:
    """True at exactly k of the values, the largest; equal ones are taken in order of position."""
    kept = np.zeros(values.size, dtype=bool)
    if k == 0:
        return kept
    threshold = np.partition(values, values.size - k)[values.size - k]
    kept[values > threshold] = True
    ties = np.flatnonzero(values == threshold)
    kept[ties[: k - int(kept.sum())]] = True
    return kept


def shuffled(mask: Mask, seed: int) -> Mask:
    """The mask with each tensor's entries in another order, which is the seed's.

    One seed shuffles all masks alike: what was nested stays nested.
    """
    return {
        name: part.flatten()[_order(seed, name, part.numel())].reshape(part.shape)
        for name, part in mask.items()
    }


def kept_weights(mask: Mask) -> int:
    """How many weights the mask keeps."""
    return sum(int(part.sum()) for part in mask.values())


def dead_layers(mask: Mask) -> list[str]:
    """Names of the tensors of which the mask keeps nothing."""
    return sorted(name for name, part in mask.items() if not bool(part.any()))


def save_mask(path: Path, mask: Mask) -> None:
    """Write a mask bit-packed: name -> uint8 [ceil(n_t / 8)], row-major, first bit highest.

    The header's `ltray` holds shape and density of every tensor as JSON.
    """
    packed = {name: torch.from_numpy(np.packbits(part.numpy())) for name, part in mask.items()}
    header = {
        "shape": {name: list(part.shape) for name, part in mask.items()},
        "density": {name: int(part.sum()) / part.numel() for name, part in mask.items()},
    }
    write_tensors(path, packed, header)


def load_mask(path: Path) -> Mask:
    """Read a mask that `save_mask` wrote."""
    packed, header = read_tensors(path)
    return {name: _unpack(packed[name], shape) for name, shape in header["shape"].items()}


def _order(seed: int, name: str, count: int) -> torch.Tensor:
    return torch.from_numpy(permutation(seed_for(seed, "shuffled mask", name), count))


def _unpack(packed: torch.Tensor, shape: list[int]) -> torch.Tensor:
    count = int(np.prod(shape))
    bits = np.unpackbits(packed.numpy(), count=count).astype(bool)
    return torch.from_numpy(bits).reshape(shape)


def _flat(name: str, tensor: torch.Tensor) -> NDArray[np.floating]:
    if not bool(torch.isfinite(tensor).all()):
        raise LtrayError(name, "has scores that are not finite", "lower train.lr if it diverged")
    flat: NDArray[np.floating] = tensor.detach().contiguous().reshape(-1).numpy()
    return flat


def _like(tensor: torch.Tensor, kept: NDArray[np.bool_]) -> torch.Tensor:
    return torch.from_numpy(kept.copy()).reshape(tensor.shape)
