from itertools import pairwise
from math import isclose, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltray.analysis.intervals import holm, mean_interval, mean_test, share_interval


def test_student_interval_by_hand() -> None:
    # n = 3: mean 2, standard deviation 1, t(0.975, 2) = 4.302653 from any table.
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval is not None
    assert isclose(interval.low, 2 - 4.302653 / sqrt(3), abs_tol=1e-6)
    assert isclose(interval.high, 2 + 4.302653 / sqrt(3), abs_tol=1e-6)


def test_one_replicate_has_no_interval_and_no_test() -> None:
    assert mean_interval([0.97]) is None
    assert mean_test([0.97]) is None


def test_student_test_by_hand() -> None:
    # n = 3, mean 2, standard deviation 1: t = 2 sqrt(3). With 2 degrees of freedom the two-sided
    # p is 1 - t / sqrt(t^2 + 2).
    t = 2 * sqrt(3)
    assert mean_test([1.0, 2.0, 3.0]) == pytest.approx(1 - t / sqrt(t**2 + 2))
    assert mean_test([-1.0, 1.0]) == pytest.approx(1.0)


def test_equal_differences_are_no_certainty() -> None:
    assert mean_test([-0.01, 0.97 - 0.98, 0.02 - 0.03]) is None  # equal but for their last bits


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(right: int, images: int, low: float, high: float) -> None:
    found = share_interval(right, images)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    mirrored = share_interval(images - right, images)
    assert (round(1 - mirrored.high, 4), round(1 - mirrored.low, 4)) == (low, high)


def test_holm_by_hand() -> None:
    # 0.005 x 4, 0.01 x 3, then 0.03 x 2; 0.04 x 1 would be less than the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_no_correction_and_bonferroni(values: list[float]) -> None:
    adjusted = holm(values)
    for p, more in zip(values, adjusted, strict=True):
        assert p <= more <= min(1.0, p * len(values)) + 1e-12
    ordered = [more for _, more in sorted(zip(values, adjusted, strict=True))]
    assert all(left <= right for left, right in pairwise(ordered))
