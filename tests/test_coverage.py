"""95 % intervals hold the truth in 93 to 97 % of all studies: summed exactly, or simulated.

benchmarks/interval_coverage.py simulates these cases and larger ones, and says which are left out.
"""

from random import Random

import pytest
from scipy.stats import binom

from ltray.analysis.intervals import Interval, mean_interval, share_interval
from ltray.analysis.paired import Pairs, paired_interval

LEAST, MOST = 0.93, 0.97
TRIALS = 3000  # the simulation's standard deviation is 0.4 points, a fifth of what is allowed
NEGLIGIBLE = 1e-7


def holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


@pytest.mark.parametrize("replicates", [3, 5, 10])
def test_student_interval_of_normal_differences(replicates: int) -> None:
    luck = Random(replicates)
    held = 0
    for _ in range(TRIALS):
        interval = mean_interval([luck.gauss(-0.01, 0.02) for _ in range(replicates)])
        assert interval is not None
        held += holds(interval, -0.01)
    assert LEAST <= held / TRIALS <= MOST


@pytest.mark.parametrize("top1", [0.7, 0.9, 0.976])
@pytest.mark.parametrize("images", [216, 5_000, 50_000])
def test_wilson_interval_of_one_accuracy(images: int, top1: float) -> None:
    low, high = (int(end) for end in binom.interval(1 - NEGLIGIBLE, images, top1))
    chances = binom.pmf(range(low, high + 1), images, top1)
    coverage = sum(
        chance
        for right, chance in enumerate(chances, start=low)
        if holds(share_interval(right, images), top1)
    )
    assert LEAST <= coverage <= MOST


@pytest.mark.parametrize(
    ("images", "gained", "lost"),
    [
        (216, 0.002, 0.018),  # the default digits at 80 to 90 % sparsity
        (216, 0.01, 0.01),
        (216, 0.02, 0.02),
        (1_000, 0.002, 0.008),
        (1_000, 0.005, 0.015),
    ],
)
def test_paired_interval_of_few_images(images: int, gained: float, lost: float) -> None:
    """Exact: over all numbers of discordant images, and how they fall to either side."""
    differing = gained + lost
    _, most = (int(end) for end in binom.interval(1 - NEGLIGIBLE, images, differing))
    coverage = 0.0
    for number, chance in enumerate(binom.pmf(range(most + 1), images, differing)):
        sides = binom.pmf(range(number + 1), number, gained / differing)
        coverage += chance * sum(
            side
            for won, side in enumerate(sides)
            if side > NEGLIGIBLE
            and holds(paired_interval(Pairs(images, won, number - won)), gained - lost)
        )
    assert LEAST <= coverage <= MOST


@pytest.mark.parametrize(("gained", "lost"), [(0.002, 0.006), (0.02, 0.025)])
def test_paired_interval_of_ten_thousand_images(gained: float, lost: float) -> None:
    luck, images = Random(1), 10_000
    held = 0
    for _ in range(TRIALS):
        differing = _binomial(luck, images, gained + lost)
        won = _binomial(luck, differing, gained / (gained + lost))
        interval = paired_interval(Pairs(images, won, differing - won))
        held += holds(interval, gained - lost)
    assert LEAST <= held / TRIALS <= MOST


def _binomial(luck: Random, n: int, p: float) -> int:
    return int(binom.ppf(luck.random(), n, p))
