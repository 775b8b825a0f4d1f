"""What interruptions cost a worker that goes on from its last saved state.

A worker saves its state every `interval` seconds of work, which takes `write` seconds; it is
interrupted at random, `between` seconds apart on average, and is at work again after `restart`
seconds. All in seconds.
"""

from dataclasses import dataclass
from math import exp, inf, sqrt


@dataclass(frozen=True)
class Interruptions:
    """How often a worker is interrupted, and what that and its precaution take."""

    between: float
    write: float
    restart: float


def youngs_interval(write: float, between: float) -> float:
    """sqrt(2 d M).

    Source: Young 1974, "A first order approximation to the optimum checkpoint interval".
    """
    return sqrt(2 * write * between)


def dalys_interval(write: float, between: float) -> float:
    """The optimum for all d: Young's with its higher orders, M where saving takes 2 M or more.

    Source: Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart
        dumps", equation 37.
    """
    if write >= 2 * between:
        return between
    share = write / (2 * between)
    return youngs_interval(write, between) * (1 + sqrt(share) / 3 + share / 9) - write


def slowdown(interval: float, found: Interruptions) -> float:
    """Expected time of work over its time without interruptions and without saving.

    M e^(R/M) (e^((t + d)/M) - 1) / t; infinite where the work would never be done.

    Source: Daly 2006, equation 20.
    """
    lost = (interval + found.write) / found.between + found.restart / found.between
    if lost > 700:  # e to this is beyond what a double holds
        return inf
    saved = exp((interval + found.write) / found.between) - 1
    return found.between * exp(found.restart / found.between) * saved / interval
