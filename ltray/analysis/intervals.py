"""Confidence intervals and tests of means and shares, by the published formulas."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, fmean, stdev, variance

from ltray.lottery.matching import TOLERANCE

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


def quantile(confidence: float) -> float:
    """The z that a standard normal variable lies within, on both sides of 0; 1.96 for 95 %."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Student's t interval of the mean over replicates.

    Returns:
        None for one replicate. Also where all are equal: accuracies are whole numbers of images,
        so that a few equal values are no sign that there is no spread.

    Source: Student 1908, "The probable error of a mean".
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2 or max(values) - min(values) < TOLERANCE:
        return None
    half = float(stdtrit(n - 1, (1 + confidence) / 2)) * stdev(values) / sqrt(n)
    middle = fmean(values)
    return Interval(middle - half, middle + half)


def mean_test(values: Sequence[float]) -> float | None:
    """The two-sided p-value of Student's t test that the mean over replicates is 0.

    Returns:
        None where `mean_interval` has none.
    """
    from scipy.special import stdtr

    n = len(values)
    if n < 2 or max(values) - min(values) < TOLERANCE:
        return None
    t = fmean(values) / (stdev(values) / sqrt(n))
    return float(2 * stdtr(n - 1, -abs(t)))


def two_means(
    ones: Sequence[float], others: Sequence[float], confidence: float = CONFIDENCE
) -> tuple[Interval, float] | None:
    """The mean of `others` minus that of `ones`: its interval, and the p-value that it is 0.

    The two are of different seeds, or of seeds that mean different things, so nothing is paired.

    Returns:
        None where either has fewer than two values, or neither any spread.

    Source: Welch 1947, "The generalization of 'Student's' problem when several different
        population variances are involved".
    """
    from scipy.special import stdtr, stdtrit

    if min(len(ones), len(others)) < 2:
        return None
    parts = [variance(values) / len(values) for values in (ones, others)]
    if sum(parts) < TOLERANCE**2:
        return None
    error = sqrt(sum(parts))
    freedom = sum(parts) ** 2 / sum(
        part**2 / (len(values) - 1) for part, values in zip(parts, (ones, others), strict=True)
    )
    difference = fmean(others) - fmean(ones)
    half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    p_value = float(2 * stdtr(freedom, -abs(difference) / error))
    return Interval(difference - half, difference + half), p_value


def share_interval(right: int, images: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of one accuracy, over images like these.

    Args:
        right: how many of the images were classified right.
        images: more than 0.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference";
        method 3 of Newcombe 1998, "Two-sided confidence intervals for the single proportion".
    """
    z2 = quantile(confidence) ** 2
    middle = (right + z2 / 2) / (images + z2)
    half = sqrt(z2 * (right * (images - right) / images + z2 / 4)) / (images + z2)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of a family of tests, adjusted so that any false one is as rare as in one test.

    Returns:
        one for each, in their order, to be compared with the level of a single test.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted = [1.0] * len(p_values)
    least = 0.0
    ascending = sorted(range(len(p_values)), key=lambda number: p_values[number])
    for rank, number in enumerate(ascending):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[number]))
        adjusted[number] = least
    return adjusted
