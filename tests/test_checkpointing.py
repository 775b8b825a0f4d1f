import random
from math import inf, sqrt

import pytest

from ltray.analysis.planning.checkpointing import (
    Interruptions,
    dalys_interval,
    slowdown,
    youngs_interval,
)

HOUR = 3600.0


def test_young_by_hand() -> None:
    assert youngs_interval(write=2, between=100) == 20
    assert youngs_interval(write=60, between=24 * HOUR) == pytest.approx(3220.0, rel=1e-3)


def test_daly_by_hand() -> None:
    # d = 2, M = 100: sqrt(2 d M) (1 + sqrt(d / 2M) / 3 + d / 2M / 9) - d
    by_hand = 20 * (1 + sqrt(0.01) / 3 + 0.01 / 9) - 2
    assert dalys_interval(write=2, between=100) == pytest.approx(by_hand)
    assert dalys_interval(write=300, between=100) == 100


def test_dalys_interval_is_about_where_work_takes_least() -> None:
    found = Interruptions(between=4 * HOUR, write=30, restart=300)
    best = dalys_interval(30, 4 * HOUR)
    intervals = [best * 1.02**power for power in range(-150, 150)]
    least = min(slowdown(interval, found) for interval in intervals)
    assert slowdown(best, found) <= least * 1.0005
    assert slowdown(best / 4, found) > slowdown(best, found) < slowdown(best * 4, found)


def test_without_interruptions_only_saving_costs() -> None:
    found = Interruptions(between=1e12, write=6, restart=300)
    assert slowdown(60, found) == pytest.approx(1.1, rel=1e-4)


def test_work_that_never_gets_done_is_infinite() -> None:
    assert slowdown(1e6, Interruptions(between=100, write=1, restart=1)) == inf


@pytest.mark.parametrize("interval", [200.0, 800.0])
def test_as_a_simulation_of_a_worker_that_is_interrupted(interval: float) -> None:
    found = Interruptions(between=1000.0, write=20.0, restart=60.0)
    chance = random.Random(0)
    pieces, passed = 20_000, 0.0
    for _ in range(pieces):
        needed = interval + found.write
        while (alive := chance.expovariate(1 / found.between)) < needed:
            passed += alive
            while (start := chance.expovariate(1 / found.between)) < found.restart:
                passed += start
            passed += found.restart
        passed += needed
    # Daly takes each piece to begin with a restart's risk; the simulation only after a loss.
    assert passed / (pieces * interval) == pytest.approx(slowdown(interval, found), rel=0.06)
