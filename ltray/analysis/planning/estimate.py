"""A quantity that is not known exactly."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """What a quantity will likely be, and the range that it should lie in.

    All that is planned grows with each of its costs, so a sum or a schedule of the low ends is the
    low end of the sum or schedule; the range is a careful one, not a confidence interval.
    """

    low: float
    likely: float
    high: float

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.low + other.low, self.likely + other.likely, self.high + other.high)

    def __sub__(self, part: Estimate) -> Estimate:
        """What is left without a part that was counted in."""
        return Estimate(self.low - part.low, self.likely - part.likely, self.high - part.high)

    def __mul__(self, factor: float) -> Estimate:
        return Estimate(self.low * factor, self.likely * factor, self.high * factor)

    @property
    def ends(self) -> tuple[float, float, float]:
        """Low, likely, high."""
        return self.low, self.likely, self.high


def exactly(value: float) -> Estimate:
    """A quantity that is known."""
    return Estimate(value, value, value)


NOTHING = exactly(0.0)


def total(estimates: Iterable[Estimate]) -> Estimate:
    """Their sum."""
    return sum(estimates, NOTHING)


def between(low: Estimate, high: Estimate, share: float) -> Estimate:
    """The point that lies `share` of the way from one estimate to another."""
    return low * (1 - share) + high * share
