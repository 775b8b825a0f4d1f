"""What the numbers allow one to say: intervals, the isotonic fit, the sparsest matching ticket."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

from ltray.analysis.grid import Cell
from ltray.analysis.results import within_margin

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A confidence interval, both ends included."""

    low: float
    high: float


@dataclass(frozen=True)
class Answer:
    """The sparsest matching cell of one reset point, None where none matches.

    Attributes:
        compared: how many cells there were to choose from.
        interval: of the cell's mean difference to the dense run; None for one replicate.
    """

    reset_epoch: float
    compared: int
    cell: Cell | None
    interval: Interval | None


def mean_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval | None:
    """Student's t interval of the mean over replicates; None for one, which says nothing of spread.

    Source: Student 1908, "The probable error of a mean".
    """
    from scipy.special import stdtrit

    n = len(values)
    if n < 2:
        return None
    quantile = float(stdtrit(n - 1, (1 + confidence) / 2))
    half = quantile * stdev(values) / sqrt(n)
    middle = fmean(values)
    return Interval(middle - half, middle + half)


def decreasing_fit(values: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The values that never rise and lie nearest to the given ones, in weighted least squares.

    Source: pool adjacent violators (Ayer et al. 1955).
    """
    from scipy.optimize import isotonic_regression

    fit = isotonic_regression(values, weights=weights, increasing=False)
    return [float(value) for value in fit.x]


def sparsest_matching(cells: Sequence[Cell], margin: float) -> Cell | None:
    """The sparsest cell of one reset point whose fitted accuracy is within the margin of dense.

    Accuracy minus the dense run's, as a mean over replicates, is first fitted by values that
    never rise with sparsity, so that one lucky cell does not decide. Cells with a diverged ticket
    take no part.

    Returns:
        A cell that also matches as it is, before the fit; None where no cell does.
    """
    compared = sorted((cell for cell in cells if cell.comparable), key=lambda cell: cell.sparsity)
    if not compared:
        return None
    fitted = decreasing_fit(
        [cell.difference for cell in compared], [len(cell.done) for cell in compared]
    )
    matching = [
        cell for cell, value in zip(compared, fitted, strict=True) if within_margin(value, margin)
    ]
    return matching[-1] if matching else None


def answers(cells: Sequence[Cell], margin: float) -> list[Answer]:
    """The sparsest matching cell of every reset point, the earliest point first."""
    return [
        _answer(reset_epoch, [cell for cell in cells if cell.reset_epoch == reset_epoch], margin)
        for reset_epoch in sorted({cell.reset_epoch for cell in cells})
    ]


def _answer(reset_epoch: float, line: Sequence[Cell], margin: float) -> Answer:
    cell = sparsest_matching(line, margin)
    return Answer(
        reset_epoch=reset_epoch,
        compared=sum(cell.comparable for cell in line),
        cell=cell,
        interval=None if cell is None else mean_interval(cell.differences),
    )
