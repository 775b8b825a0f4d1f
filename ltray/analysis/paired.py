"""Two networks on the same images: only those count that one has right and the other wrong."""

from dataclasses import dataclass
from math import copysign, inf, sqrt

from ltray.analysis.intervals import CONFIDENCE, Interval, quantile

_HALVINGS = 50  # of an interval that is at most 2 wide, down to the last bits of a double


@dataclass(frozen=True)
class Pairs:
    """How a ticket and its dense run, or two tickets, agree on the same images.

    Attributes:
        images: how many there are, more than 0.
        gained: those that the ticket has right and the dense run wrong.
        lost: those that the dense run has right and the ticket wrong.
    """

    images: int
    gained: int
    lost: int

    @property
    def difference(self) -> float:
        """The ticket's accuracy minus the dense run's."""
        return (self.gained - self.lost) / self.images


def paired_interval(pairs: Pairs, confidence: float = CONFIDENCE) -> Interval:
    """The score interval of `pairs.difference`, over images like these and for these two networks.

    Networks that agree on nearly all images are the rule here. With 216 images, 1 % of them gained
    and 1 % lost, 95 % intervals of this kind cover the truth in 95.6 % of all samples, those of
    Newcombe's method 10 in 99.2 % (exact sum, 200,000 samples): benchmarks/interval_coverage.py.

    Source: Tango 1998, "Equivalence test and confidence interval for the difference in
        proportions for the paired-sample design".
    """
    z = quantile(confidence)
    return Interval(_crossing(pairs, z, -1.0), _crossing(pairs, -z, 1.0))


def mcnemar(pairs: Pairs) -> float:
    """McNemar's exact test that two networks are equally accurate: its two-sided p-value.

    Conditional on the images on which they differ: each falls to either with probability 1/2. Not
    the mid-p version, which is less strict but does not promise to keep its level.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated
        proportions or percentages"; the exact form as in Fagerland, Lydersen and Laake 2013.
    """
    from scipy.special import bdtr

    differing = pairs.gained + pairs.lost
    if not differing:
        return 1.0
    return min(1.0, 2 * float(bdtr(min(pairs.gained, pairs.lost), differing, 0.5)))


def score(pairs: Pairs, delta: float) -> float:
    """Tango's statistic of the hypothesis that the true difference is `delta`; falls with it."""
    n, gained, lost = pairs.images, pairs.gained, pairs.lost
    # Of the likelihood under the hypothesis, the most likely share of images that are lost.
    linear = (2 * n - gained + lost) * delta - gained - lost
    root = sqrt(max(0.0, linear**2 + 8 * n * lost * delta * (1 - delta)))
    share_lost = (root - linear) / (4 * n)
    variance = n * (2 * share_lost + delta * (1 - delta))
    above = gained - lost - n * delta
    return above / sqrt(variance) if variance > 0 else copysign(inf, above)


def _crossing(pairs: Pairs, wanted: float, end: float) -> float:
    """Where between the difference seen and `end` the statistic has the wanted value."""
    near, far = pairs.difference, end
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        if abs(score(pairs, middle)) < abs(wanted):
            near = middle
        else:
            far = middle
    return far
