"""What the numbers allow one to say: the sparsest matching ticket, and what is beyond chance."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ltray.analysis.columns import Row
from ltray.analysis.correct import COLUMNS, PerImage
from ltray.analysis.grid import Cell, Over
from ltray.analysis.intervals import Interval, holm, mean_interval, mean_test, share_interval
from ltray.analysis.paired import mcnemar, paired_interval
from ltray.experiment import Experiment
from ltray.lottery.matching import last_matching, within_margin

LEVEL = 0.05


@dataclass(frozen=True)
class Answer:
    """The sparsest matching cell of one reset point, None where none matches.

    Attributes:
        compared: how many cells there were to choose from.
        over: of the intervals; None without a cell.
        validation: of the cell's mean difference to the dense run; None where nothing tells.
        test: likewise, on images that have chosen nothing.
    """

    reset_epoch: float
    compared: int
    cell: Cell | None
    over: Over | None
    validation: Interval | None
    test: Interval | None

    def surely(self, margin: float) -> bool:
        """Whether the whole interval of validation is within the margin."""
        return self.validation is not None and within_margin(self.validation.low, margin)


@dataclass(frozen=True)
class BeyondChance:
    """How many cells of the grid differ from the dense run by more than chance.

    Attributes:
        compared: the cells whose p-values were corrected together.
        untested: cells that are comparable, but have no p-value.
        below, above: of those compared.
    """

    over: Over
    compared: int
    untested: int
    below: int
    above: int


def sparsest_matching(cells: Sequence[Cell], margin: float) -> Cell | None:
    """The sparsest cell of one reset point whose fitted accuracy is within the margin of dense.

    Accuracy minus the dense run's, as a mean over replicates, is first fitted by values that
    never rise with sparsity, so that one lucky cell does not decide. Cells with a diverged ticket
    take no part.

    Returns:
        A cell that also matches as it is, before the fit; None where no cell does.
    """
    compared = sorted((cell for cell in cells if cell.comparable), key=lambda cell: cell.sparsity)
    weights = [len(cell.done) for cell in compared]
    at = last_matching([cell.difference for cell in compared], weights, margin)
    return None if at < 0 else compared[at]


def answers(cells: Sequence[Cell], margin: float, per_image: PerImage) -> list[Answer]:
    """The sparsest matching cell of every reset point, the earliest point first."""
    return [
        _answer([cell for cell in cells if cell.reset_epoch == point], margin, per_image)
        for point in sorted({cell.reset_epoch for cell in cells})
    ]


def best_of(answered: Sequence[Answer]) -> Answer | None:
    """The sparsest of all reset points; of equally sparse ones the earliest point says most."""
    found = [answer for answer in answered if answer.cell is not None]
    return max(found, key=_sparsest_then_earliest, default=None)


def _sparsest_then_earliest(answer: Answer) -> tuple[float, float]:
    assert answer.cell is not None
    return answer.cell.sparsity, -answer.reset_epoch


def over_of(experiment: Experiment) -> Over:
    """What chance can be reckoned over when the whole grid is done."""
    if experiment.replicates > 1:
        return "replicates"
    return "retrainings" if experiment.reset.retrainings > 1 else "images"


def beyond_chance(cells: Sequence[Cell], over: Over, per_image: PerImage) -> BeyondChance:
    """Compare every cell of the grid with the dense run on validation.

    Over images: McNemar's exact test. Over replicates: Student's t test. Retrainings of one
    replicate have none, as they all stand beside its one dense run.
    """
    tests = [
        (cell.difference, _p_value(cell, over, per_image)) for cell in cells if cell.comparable
    ]
    return corrected(tests, over)


def corrected(tests: Sequence[tuple[float, float | None]], over: Over) -> BeyondChance:
    """How many differences are beyond chance at 5 %, with Holm's correction for all of them.

    Args:
        tests: (difference, p-value) of each; None where it could not be tested.
    """
    tested = [(difference, p) for difference, p in tests if p is not None]
    adjusted = holm([p for _, p in tested])
    beyond = [difference for (difference, _), p in zip(tested, adjusted, strict=True) if p <= LEVEL]
    return BeyondChance(
        over=over,
        compared=len(tested),
        untested=len(tests) - len(tested),
        below=sum(difference < 0 for difference in beyond),
        above=sum(difference > 0 for difference in beyond),
    )


def vary(replicates: Iterable[int], over: Over, once: bool) -> bool:
    """Whether values vary as those of the experiment would.

    Retrainings of one replicate do not where several replicates are to come, for which they would
    pass; nor beside what is trained once in a replicate: its own chance is in all of them alike.

    Args:
        replicates: of each value.
        once: whether each is beside what is trained once.
    """
    return len(set(replicates)) > 1 or (over == "retrainings" and not once)


def dense_interval(per_image: PerImage, split: str, dense: Sequence[Row]) -> Interval | None:
    """Of the accuracy of dense runs: over images for one, over replicates for several.

    No accuracy lies outside [0, 1], so neither does the interval.

    Args:
        dense: the rows of the dense runs, at least one.
    """
    if len(dense) > 1:
        found = mean_interval([row[COLUMNS[split]] for row in dense])
        return None if found is None else Interval(max(found.low, 0.0), min(found.high, 1.0))
    correct = per_image.dense.get(dense[0]["replicate"])
    return None if correct is None else share_interval(correct[split].count, correct[split].images)


def _answer(line: Sequence[Cell], margin: float, per_image: PerImage) -> Answer:
    cell = sparsest_matching(line, margin)
    intervals = (None, None) if cell is None else _intervals(cell, per_image)
    return Answer(
        reset_epoch=line[0].reset_epoch,
        compared=sum(cell.comparable for cell in line),
        cell=cell,
        over=None if cell is None else cell.over,
        validation=intervals[0],
        test=intervals[1],
    )


def _intervals(cell: Cell, per_image: PerImage) -> tuple[Interval | None, Interval | None]:
    """Of a cell's mean difference to the dense run, on validation and on test.

    None for several retrainings of one replicate, which all stand beside its one dense run.
    """
    if cell.over == "retrainings":
        return None, None
    if cell.over == "replicates":
        return mean_interval(cell.differences), mean_interval(cell.test_differences)
    found = [per_image.pairs(cell.done[0], split) for split in ("validation", "test")]
    validation, test = (None if pairs is None else paired_interval(pairs) for pairs in found)
    return validation, test


def _p_value(cell: Cell, over: Over, per_image: PerImage) -> float | None:
    if over != "images":
        return mean_test(cell.differences) if cell.over == "replicates" else None
    pairs = per_image.pairs(cell.done[0], "validation")
    return None if pairs is None else mcnemar(pairs)
