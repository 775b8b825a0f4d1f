"""Do the tickets of a source transfer? What may be said of each of its reset points."""

from collections.abc import Sequence
from dataclasses import dataclass

from ltray.analysis.differences import Difference
from ltray.analysis.grid import Cell, Over
from ltray.analysis.transfer import Compared, Moved, Target, compared, of_target
from ltray.analysis.wording import chance, points
from ltray.experiment import as_written
from ltray.lottery.matching import last_matching
from ltray.run import Run


@dataclass(frozen=True)
class Answer:
    """What may be said of a source's reset point.

    Attributes:
        dense: the whole network from there.
        compared: how many tickets could be set beside it.
        sparsest: that is within the margin of it; None where none is.
    """

    moved: Moved
    dense: Cell
    compared: int
    sparsest: Compared | None

    @property
    def reset_epoch(self) -> float:
        return self.dense.reset_epoch

    @property
    def why_none(self) -> str:
        """Why there is no sparsest."""
        if self.compared:
            return "none"
        if self.dense.diverged:
            return "cannot be told: the dense network from there diverged"
        if not self.dense.done:
            return "cannot be told yet: the dense network from there is not done"
        here = [
            cell for cell in self.moved.tickets.values() if cell.reset_epoch == self.reset_epoch
        ]
        every = all(cell.diverged for cell in here)
        return "none: in every cell a ticket diverged" if every else "no ticket is done yet"


@dataclass(frozen=True)
class Finding:
    """What a source's tickets gave.

    Attributes:
        every: the transferred tickets that are done.
        answers: of each reset point, the earliest first.
    """

    moved: Moved
    every: Sequence[Compared]
    answers: Sequence[Answer]

    @property
    def best(self) -> Answer | None:
        """The sparsest of all reset points; of equally sparse ones the earliest says most."""
        found = [(one.sparsest, one) for one in self.answers if one.sparsest is not None]
        best = max(found, key=lambda of: (of[0].cell.sparsity, -of[1].reset_epoch), default=None)
        return None if best is None else best[1]

    @property
    def line(self) -> str:
        """The answer in a line, with how sure it is."""
        best = self.best
        if best is not None and best.sparsest is not None:
            one, point = best.sparsest, as_written(best.reset_epoch)
            beside = one.differences["same_point"]
            found = (
                f"transfers down to {as_written(one.cell.sparsity)} sparsity, from reset point"
                f" {point}: {points(beside.value)} points {_of_chance(beside, one.over)} beside the"
                f" dense network from there, {one.verdict}"
            )
        elif any(one.compared for one in self.answers):
            found = "no ticket transfers"
        else:
            found = "no answer"
        return f"{self.moved.name}: {found}"


@dataclass(frozen=True)
class Judged:
    """What all sources gave.

    Attributes:
        beside: the target's own results.
        findings: of each source.
    """

    target: Run
    beside: Target
    findings: Sequence[Finding]


def answers(moved: Moved, every: Sequence[Compared], margin: float) -> list[Answer]:
    """Of each reset point of a source, the earliest first.

    As everywhere, the sparsest is read from a fit in which accuracy may only fall with sparsity.
    """
    return [
        _answer(moved, [one for one in every if one.cell.reset_epoch == point], point, margin)
        for point in moved.reset_epochs
    ]


def judge(target: Run, moves: Sequence[Moved]) -> Judged:
    """Set every source's tickets beside what they must beat."""
    beside, margin = of_target(target), target.experiment.report.margin
    found = []
    for moved in moves:
        every = compared(moved, beside)
        found.append(Finding(moved, every, answers(moved, every, margin)))
    return Judged(target, beside, found)


def _answer(moved: Moved, here: Sequence[Compared], point: float, margin: float) -> Answer:
    told = [(one, one.differences["same_point"]) for one in here if "same_point" in one.differences]
    told.sort(key=lambda both: both[0].cell.sparsity)
    values, weights = [one.value for _, one in told], [one.pairs for _, one in told]
    at = last_matching(values, weights, margin)
    return Answer(moved, moved.dense[point], len(told), None if at < 0 else told[at][0])


def _of_chance(difference: Difference, over: Over) -> str:
    interval = difference.interval
    if interval is None:
        return "(no interval)"
    return f"({points(interval.low)} to {points(interval.high)} over {chance(over)})"
