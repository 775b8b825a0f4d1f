"""What matching is: accuracy minus the dense run's against a margin, cell by cell and fitted."""

from collections.abc import Sequence
from statistics import fmean

# Accuracies are k / n, so where two of them and a margin of up to four decimals are not equal they
# differ by more than 1e-11 for any n up to ten million; sums of doubles near 1 err by about 1e-16.
TOLERANCE = 1e-12


def within_margin(difference: float, margin: float) -> bool:
    """Whether accuracy minus the dense run's is at least -margin, equality included."""
    return difference >= -margin - TOLERANCE


def decreasing_fit(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The values that never rise and lie nearest to the given ones, in weighted least squares.

    Source: pool adjacent violators (Ayer et al. 1955).
    """
    from scipy.optimize import isotonic_regression

    fit = isotonic_regression(values, weights=weights, increasing=False)
    return [float(value) for value in fit.x]


def last_matching(differences: Sequence[float], weights: Sequence[float], margin: float) -> int:
    """The number of the sparsest that matches by the fit; it matches as it is, too. -1: none.

    Args:
        differences: accuracy minus the dense run's, the densest first.
        weights: how much each counts in the fit.
    """
    if not differences:
        return -1
    fitted = decreasing_fit(differences, weights)
    return max((at for at, value in enumerate(fitted) if within_margin(value, margin)), default=-1)


def by_seed(values: Sequence[tuple[int, float]]) -> list[float]:
    """What tells of chance: the mean of each replicate, whose retrainings have much in common; of
    a single replicate, each retraining.

    Args:
        values: (replicate, value).
    """
    found: dict[int, list[float]] = {}
    for replicate, value in values:
        found.setdefault(replicate, []).append(value)
    if len(found) > 1:
        return [fmean(each) for each in found.values()]
    return [value for _, value in values]
