"""The sparsest matching ticket of a reset point with few retrainings: which levels are asked for.

Levels are numbered by sparsity, the densest is 0; M of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from ltray.experiment import exact_count
from ltray.lottery.matching import last_matching

LARGEST_SHARE = Decimal("0.35")  # of the levels that are trained, where there are many
FEWEST = 4  # levels that may be trained however few there are


@dataclass(frozen=True)
class Asked:
    """How far the search of one reset point is.

    Attributes:
        rounds: the levels that it has asked for, those of a round together.
        ended: whether all of them are measured, and nothing more is asked for.
        found: the sparsest level that matches by what is measured; -1 where none does, yet.
    """

    rounds: tuple[tuple[int, ...], ...]
    ended: bool
    found: int

    @property
    def levels(self) -> set[int]:
        return {level for each in self.rounds for level in each}


Difference = Callable[[int], tuple[float, int] | None]
"""Level -> (mean accuracy minus the dense run's, how many it is the mean of); None: not measured"""


def most_levels(levels: int) -> int:
    """How many of M levels a search trains at most."""
    return min(levels, max(FEWEST, exact_count(LARGEST_SHARE, levels)))


def search(levels: int, difference: Difference, margin: float) -> Asked:
    """Ask for levels round by round, each by what the rounds before have found.

    Two levels first, which part the others in three; then the middle of what lies between the
    sparsest that matches, by the fit that never rises, and the next one that was measured. When
    these are neighbours, the levels around them: one unlucky ticket, or a lucky one, is to
    decide nothing. What is asked for depends on what was measured and on nothing else, so that a
    search that was interrupted goes on as if it had not been.

    Args:
        levels: M.
    """
    rounds: list[tuple[int, ...]] = []
    known: dict[int, tuple[float, int]] = {}
    asked = _first(levels)
    while asked:
        rounds.append(asked)
        measured = {level: found for level in asked if (found := difference(level)) is not None}
        known |= measured
        if len(measured) < len(asked):
            return Asked(tuple(rounds), ended=False, found=_found(known, margin))
        asked = _next(levels, known, margin)
    return Asked(tuple(rounds), ended=True, found=_found(known, margin))


def _first(levels: int) -> tuple[int, ...]:
    return tuple(sorted({levels // 3, 2 * levels // 3}))


def _next(levels: int, known: dict[int, tuple[float, int]], margin: float) -> tuple[int, ...]:
    """The level to be measured after those that are known; none when the answer stands."""
    if len(known) == most_levels(levels):
        return ()
    low = _found(known, margin)
    high = min((level for level in known if level > low), default=levels)
    if high - low > 1:
        return ((low + high) // 2,)
    around = (low + 2, low - 1, low + 3)
    return next(((one,) for one in around if 0 <= one < levels and one not in known), ())


def _found(known: dict[int, tuple[float, int]], margin: float) -> int:
    """The level of the sparsest that matches among those that are known."""
    ordered = sorted(known)
    differences, weights = ([known[level][part] for level in ordered] for part in (0, 1))
    at = last_matching(differences, weights, margin)
    return -1 if at < 0 else ordered[at]
