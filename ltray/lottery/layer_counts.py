"""How many weights each tensor keeps where a scope gives every tensor a share of its own.

name -> size in every mapping; n_t: weights of tensor t, n: of all of them.
"""

from bisect import bisect_left
from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from math import prod

import torch

from ltray.experiment import Prune, decimal, exact_count

Counts = dict[str, int]


def layer_counts(
    shapes: Mapping[str, torch.Size], prune: Prune, density: Decimal, output_layer: str
) -> Counts | None:
    """Kept weights of every tensor, halves to even; None where all tensors share one ranking.

    Args:
        shapes: of the prunable tensors.
        prune: scope, output_rate and min_layer_density are what matters here.
        density: of all of them together, in (0, 1].
        output_layer: the tensor that prune.output_rate is about.
    """
    floor = decimal(prune.min_layer_density)
    match prune.scope:
        case "global":
            return None
        case "layerwise":
            return _layerwise(shapes, density, decimal(prune.output_rate), output_layer)
        case "erk":
            return _proportional(shapes, {t: sum(of) for t, of in shapes.items()}, density, floor)
        case "balanced":
            return _proportional(shapes, dict.fromkeys(shapes, 1), density, floor)


def _layerwise(
    shapes: Mapping[str, torch.Size], density: Decimal, rate: Decimal, output_layer: str
) -> Counts:
    """round(density x n_t) of every tensor; density ** rate of the output layer.

    Source: Frankle & Carbin 2019, section 2 (arXiv 1803.03635), where the output layer of
        LeNet-300-100 is pruned at half the rate of the others.
    """
    return {
        name: exact_count(density**rate if name == output_layer else density, of.numel())
        for name, of in shapes.items()
    }


def _proportional(
    shapes: Mapping[str, torch.Size],
    parts: Mapping[str, int],
    density: Decimal,
    floor: Decimal,
) -> Counts:
    """Kept weights in the proportion of `parts`, density x n in all but for the rounding.

    A tensor that would have to keep more weights than it has is left dense, one that would keep
    less than floor x n_t keeps that, and the others share what is left in the same proportion.

    With the sum of a tensor's sides as its part this is Erdos-Renyi-Kernel: the density of a layer
    is proportional to (n_in + n_out + height + width) / (n_in x n_out x height x width), of a
    linear layer to (n_in + n_out) / (n_in x n_out). With equal parts it is balanced: all layers
    have equally many weights.

    Source: Evci et al. 2020, section 3 (arXiv 1911.11134) for Erdos-Renyi-Kernel; Gadhikar et al.
        2023 (arXiv 2210.02412) for balanced. The floor is ours.
    """
    sizes = {name: prod(of) for name, of in shapes.items()}
    least = {name: Fraction(floor) * size for name, size in sizes.items()}

    def kept(factor: Fraction) -> dict[str, Fraction]:
        return {
            name: min(max(factor * parts[name], least[name]), Fraction(size))
            for name, size in sizes.items()
        }

    def total(factor: Fraction) -> Fraction:
        return sum(kept(factor).values(), start=Fraction())

    wanted = Fraction(density) * sum(sizes.values())
    # The total grows with the factor along straight lines, which meet where a tensor leaves its
    # least or comes to its size.
    bends = sorted(
        {bound[name] / Fraction(parts[name]) for bound in (least, sizes) for name in sizes}
    )
    right = max(1, bisect_left(bends, wanted, key=total))
    low, high = bends[right - 1], bends[right]
    share = (wanted - total(low)) / (total(high) - total(low))
    factor = low + share * (high - low)
    return {name: round(count) for name, count in kept(factor).items()}
