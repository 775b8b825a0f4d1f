import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltray.analysis.intervals import quantile
from ltray.analysis.paired import Pairs, mcnemar, paired_interval, score


@pytest.mark.parametrize(
    ("pairs", "confidence", "low", "high"),
    [
        # Bentur et al. 2009 in Fagerland, Lydersen and Laake 2014, "Recommended tests and
        # confidence intervals for paired binomial proportions".
        (Pairs(21, gained=1, lost=7), 0.95, -0.517, -0.026),
        # What R's PropCIs::scoreci.mp(25, 28, 618, 0.90) gives.
        (Pairs(618, gained=28, lost=25), 0.90, -0.015, 0.025),
    ],
)
def test_score_interval_as_published(
    pairs: Pairs, confidence: float, low: float, high: float
) -> None:
    found = paired_interval(pairs, confidence)
    assert (round(found.low, 3), round(found.high, 3)) == (low, high)


def test_interval_of_networks_that_agree_by_hand() -> None:
    # Without discordant pairs the statistic is sqrt(n delta / (1 - delta)), which is z where
    # delta = z^2 / (n + z^2).
    found = paired_interval(Pairs(216, gained=0, lost=0))
    z2 = quantile(0.95) ** 2
    assert found.high == pytest.approx(z2 / (216 + z2))
    assert found.low == pytest.approx(-found.high)


def test_interval_of_networks_that_always_differ_ends_at_one() -> None:
    found = paired_interval(Pairs(10, gained=10, lost=0))
    assert found.high == 1.0
    assert 0 < found.low < 1


@given(
    gained=st.integers(0, 40), lost=st.integers(0, 40), same=st.integers(1, 400), z=st.floats(1, 3)
)
def test_interval_holds_the_difference_and_turns_with_the_roles(
    gained: int, lost: int, same: int, z: float
) -> None:
    pairs = Pairs(gained + lost + same, gained, lost)
    found = paired_interval(pairs)
    assert -1 <= found.low <= pairs.difference <= found.high <= 1
    turned = paired_interval(Pairs(pairs.images, gained=lost, lost=gained))
    assert turned.low == pytest.approx(-found.high, abs=1e-9)
    assert turned.high == pytest.approx(-found.low, abs=1e-9)
    assert score(pairs, found.low) == pytest.approx(quantile(0.95), rel=1e-6)
    assert score(pairs, found.high) == pytest.approx(-quantile(0.95), rel=1e-6)


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (1, 7, 18 / 256),  # 2 (1 + 8) / 2^8: published as 0.070, Fagerland et al. 2013
        (0, 6, 2 / 64),
        (4, 4, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(Pairs(21, gained, lost)) == pytest.approx(p)
    assert mcnemar(Pairs(21, lost, gained)) == pytest.approx(p)
