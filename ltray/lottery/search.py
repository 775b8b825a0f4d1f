"""The sparsest matching ticket of a reset point with few retrainings: which level comes next.

Levels are numbered by sparsity, the densest is 0; M of them.
"""

from collections.abc import Mapping
from decimal import Decimal

from ltray.experiment import exact_count
from ltray.lottery.matching import last_matching

LARGEST_SHARE = Decimal("0.35")  # of the levels, where there are many
FEWEST = 6  # levels that are trained as a rule, however few there are
Known = Mapping[int, tuple[float, int] | None]
"""level -> (mean accuracy minus the dense run's, how many it is the mean of); None: it has none,
since training diverged, and does not match"""


def most_levels(levels: int) -> int:
    """How many of M levels a search trains as a rule, at most.

    More where some diverge, which tells nothing, or where what was measured contradicts itself.
    """
    return min(levels, max(FEWEST, exact_count(LARGEST_SHARE, levels)))


def next_levels(levels: int, known: Known, margin: float) -> tuple[int, ...]:
    """The levels to be measured now; none when the answer stands.

    Two first, which part the levels in three; then the middle of what lies between the sparsest
    that matches, by the fit that never rises, and the next sparser one that was measured. When
    these are neighbours, the levels around them: one unlucky ticket, or a lucky one, is to decide
    nothing. What is asked for depends on what was measured and on nothing else, so that a search
    that was interrupted goes on as if it had not been.

    Args:
        levels: M.
        known: what was measured, asked for or not.
    """
    first = tuple(sorted({levels // 3, 2 * levels // 3} - known.keys()))
    if first:
        return first
    low = found(known, margin)
    high = min((level for level in known if level > low), default=levels)
    if high - low > 1:
        return ((low + high) // 2,)
    if sum(value is not None for value in known.values()) >= most_levels(levels):
        return ()
    around = (low + 2, low - 1, low + 3)
    return next(((one,) for one in around if 0 <= one < levels and one not in known), ())


def found(known: Known, margin: float) -> int:
    """The sparsest level that matches by what is known; -1 where none does."""
    measured = sorted((level, value) for level, value in known.items() if value is not None)
    differences, weights = ([value[part] for _, value in measured] for part in (0, 1))
    at = last_matching(differences, weights, margin)
    return -1 if at < 0 else measured[at][0]
