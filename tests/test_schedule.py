from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltray.analysis.planning.schedule import makespan

TRIALS = st.lists(st.integers(1, 6), min_size=1, max_size=6)
WORKERS = st.integers(1, 4)


def second_by_second(trials: list[int], workers: int, first: int, between: int) -> int:
    """Every worker looked at every second, as a slow but plain simulation."""
    waiting = list(trials)
    busy = [0] * workers  # seconds that each has still to do
    fresh = [True] * workers
    clock = 0
    while waiting or any(busy):
        for worker in range(workers):
            if waiting and not busy[worker]:
                busy[worker] = waiting.pop(0) + (first if fresh[worker] else between)
                fresh[worker] = False
        busy = [max(0, left - 1) for left in busy]
        clock += 1
    return clock


def the_best_there_is(trials: list[int], workers: int) -> int:
    """The shortest makespan of all ways to share the trials out."""
    shared_out = product(range(workers), repeat=len(trials))
    return min(
        max(sum(t for t, at in zip(trials, way, strict=True) if at == w) for w in range(workers))
        for way in shared_out
    )


@given(TRIALS, WORKERS, st.integers(0, 3), st.integers(0, 2))
def test_as_a_simulation_second_by_second(
    trials: list[int], workers: int, first: int, between: int
) -> None:
    expected = second_by_second(trials, workers, first, between)
    assert makespan(trials, workers, first, between) == expected


@given(TRIALS, WORKERS)
def test_never_better_than_the_best_and_never_twice_as_long(
    trials: list[int], workers: int
) -> None:
    best = the_best_there_is(trials, workers)
    assert best <= makespan(trials, workers) <= (2 - 1 / workers) * best  # Graham 1966


@pytest.mark.parametrize(
    ("trials", "workers", "seconds"),
    [([], 3, 0), ([5], 3, 5), ([3, 3, 3], 2, 6), ([1, 1, 4], 2, 5), ([4, 1, 1], 2, 4)],
)
def test_by_hand(trials: list[int], workers: int, seconds: int) -> None:
    assert makespan(trials, workers) == seconds


def test_starts_are_paid_once_a_worker_and_pauses_between_its_trials() -> None:
    # Worker 1: 10 + 4, 1 + 4. Worker 2: 10 + 4.
    assert makespan([4, 4, 4], workers=2, first=10, between=1) == 19
