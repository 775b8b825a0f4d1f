"""How often the report's 95 % intervals hold the truth, by simulation.

    python benchmarks/interval_coverage.py [--trials 20000] [--seed 0] [--json F]

Every trial draws a study whose truth is known, and asks the report's own function for the interval.
The goal is 93 to 97 % in every row but those marked `coarse`: where two or three of the images are
expected to differ, hardly any results are possible, and no interval comes near 95 %; this one is
then too wide, never too narrow. The margin of error is the simulation's own, at 95 %.
"""

import argparse
from collections.abc import Callable
from functools import partial
from math import sqrt
from typing import Any

import numpy as np
from measuring import conditions, print_table, write_json

from ltray.analysis.intervals import Interval, mean_interval, share_interval
from ltray.analysis.paired import Pairs, paired_interval

GOAL = (0.93, 0.97)
REPLICATES = (3, 5, 10)
IMAGES = (216, 5_000, 50_000)
TOP1 = (0.7, 0.9, 0.976)
# Images, share gained, share lost. The first is the default digits at 80 to 90 % sparsity.
PAIRED = (
    (216, 0.002, 0.018),
    (216, 0.01, 0.01),
    (216, 0.01, 0.02),
    (216, 0.02, 0.02),
    (1_000, 0.002, 0.008),
    (1_000, 0.005, 0.015),
    (1_000, 0.03, 0.03),
    (10_000, 0.002, 0.006),
    (10_000, 0.02, 0.025),
    (10_000, 0.08, 0.08),
)
COARSE = ((216, 0.001, 0.01), (216, 0.005, 0.005))

Share = float
Cover = Callable[[np.random.Generator, int], Share]
"""(generator, trials) -> coverage"""


def main() -> None:
    """Simulate and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--trials", type=int, default=20_000, help="of each row")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    generator = np.random.default_rng(options.seed)
    rows = [
        _row(interval, case, cover(generator, options.trials), options.trials)
        for interval, case, cover in _cases()
    ]
    print_table(rows)
    where = conditions("numpy", "scipy")
    print(where)
    write_json(options.json, {"coverage": rows, "seed": options.seed, "where": where})


def student(generator: np.random.Generator, trials: int, replicates: int) -> Share:
    """Coverage of the mean over replicates, of normal differences with mean 0."""
    drawn = generator.normal(size=(trials, replicates)).tolist()
    found = [mean_interval(differences) for differences in drawn]
    return sum(interval is not None and _holds(interval, 0.0) for interval in found) / trials


def wilson(generator: np.random.Generator, trials: int, images: int, top1: float) -> Share:
    """Coverage of one accuracy."""
    right, times = np.unique(generator.binomial(images, top1, trials), return_counts=True)
    holds = [_holds(share_interval(int(count), images), top1) for count in right]
    return float(times[holds].sum()) / trials


def tango(
    generator: np.random.Generator, trials: int, images: int, gained: float, lost: float
) -> Share:
    """Coverage of the difference of two accuracies on the same images."""
    drawn = generator.multinomial(images, (gained, lost, 1 - gained - lost), trials)
    seen, times = np.unique(drawn[:, :2], axis=0, return_counts=True)
    intervals = [paired_interval(Pairs(images, int(one), int(other))) for one, other in seen]
    holds = [_holds(interval, gained - lost) for interval in intervals]
    return float(times[holds].sum()) / trials


def _cases() -> list[tuple[str, str, Cover]]:
    """(interval, what of, its coverage) for each row of the table."""
    by_replicates = [
        ("Student", f"{number} replicates", partial(student, replicates=number))
        for number in REPLICATES
    ]
    by_images = [
        ("Wilson", f"{images:,} images, top-1 {top1:g}", partial(wilson, images=images, top1=top1))
        for images in IMAGES
        for top1 in TOP1
    ]
    by_pairs = [
        (
            "Tango",
            f"{images:,} images, {gained:.1%} gained, {lost:.1%} lost"
            f"{', coarse' if (images, gained, lost) in COARSE else ''}",
            partial(tango, images=images, gained=gained, lost=lost),
        )
        for images, gained, lost in (*PAIRED, *COARSE)
    ]
    return [*by_replicates, *by_images, *by_pairs]


def _row(interval: str, case: str, coverage: Share, trials: int) -> dict[str, Any]:
    error = 1.96 * sqrt(coverage * (1 - coverage) / trials)
    return {
        "interval": interval,
        "case": case,
        "coverage %": f"{100 * coverage:.2f}",
        "+-": f"{100 * error:.2f}",
        "n": trials,
        "93 to 97 %": GOAL[0] <= coverage <= GOAL[1],
    }


def _holds(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


if __name__ == "__main__":
    main()
