from math import isclose

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltray.analysis.planning.scaling_laws import amdahl, amdahl_limit, gustafson, karp_flatt

SHARES = st.floats(0.0, 1.0)
WORKERS = st.integers(1, 10_000)


@pytest.mark.parametrize(
    ("workers", "serial", "speedup"),
    [(1, 0.3, 1.0), (20, 0.0, 20.0), (20, 1.0, 1.0), (4, 0.5, 1.6), (10, 0.1, 10 / 1.9)],
)
def test_amdahl_by_hand(workers: int, serial: float, speedup: float) -> None:
    assert amdahl(workers, serial) == pytest.approx(speedup, rel=1e-12)


def test_the_write_ups_speedup_with_the_dense_run_is_amdahls() -> None:
    dense, retrainings = 26.25, 2_625.0
    assert round(amdahl(20, dense / (dense + retrainings)), 2) == 16.83


@pytest.mark.parametrize(
    ("workers", "serial", "speedup"),
    [(1, 0.3, 1.0), (20, 0.0, 20.0), (20, 1.0, 1.0), (4, 0.5, 2.5)],
)
def test_gustafson_by_hand(workers: int, serial: float, speedup: float) -> None:
    assert gustafson(workers, serial) == pytest.approx(speedup, rel=1e-12)


@given(WORKERS, SHARES)
def test_no_more_workers_than_there_are_help_and_no_fewer_than_one(p: int, s: float) -> None:
    assert 1 - 1e-9 <= amdahl(p, s) <= min(p, amdahl_limit(s)) * (1 + 1e-9)
    assert amdahl(p, s) <= gustafson(p, s) * (1 + 1e-9)


@given(st.integers(2, 10_000), SHARES)
def test_karp_flatt_finds_the_share_that_amdahl_was_given(p: int, s: float) -> None:
    assert isclose(karp_flatt(p, amdahl(p, s)), s, abs_tol=1e-9)


def test_without_a_serial_part_there_is_no_limit() -> None:
    assert amdahl_limit(0.0) == float("inf")
    assert amdahl_limit(0.25) == 4.0
