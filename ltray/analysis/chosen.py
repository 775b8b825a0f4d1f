"""The ticket that a run hands out, and what may be said of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ltray.analysis.columns import Row
from ltray.analysis.controls import Beside, Verdict, beside, single_pairs, verdict
from ltray.analysis.correct import read_per_image
from ltray.analysis.grid import Place, cells, counts_of, single_seeds
from ltray.analysis.results import Rows, is_matching
from ltray.analysis.statistics import Answer, answers, best_of
from ltray.errors import LtrayError, did_you_mean
from ltray.lottery.tickets import grid, key
from ltray.run import Run


@dataclass(frozen=True)
class Winner:
    """A ticket of the best cell, and that cell.

    Attributes:
        row: of the first replicate in which the ticket matches by itself.
        answer: the cell, with its intervals.
        verdict: what may be said of it, by its control on fresh initial weights.
        so_far: (tickets that have ended, tickets that are asked for) of a sweep that goes on;
            None of one that has ended.
    """

    row: Row
    answer: Answer
    verdict: Verdict
    so_far: tuple[int, int] | None


@dataclass(frozen=True)
class Chosen:
    """The ticket to be exported.

    Attributes:
        row: as its ticket.json has it.
        winner: what it won, where it was not named.
    """

    row: Row
    winner: Winner | None

    @property
    def said(self) -> str:
        """Which it is, and how good."""
        won = (
            ""
            if self.winner is None
            else f"{self.winner.verdict.word}, {self.winner.verdict.why}: "
        )
        return (
            f"{won}{self.row['ticket']} of replicate {self.row['replicate']}; validation "
            f"{self.row['val_top1']:.4f}, dense {self.row['dense_val_top1']:.4f}"
        )


def choose(run: Run, rows: Rows, name: str | None, replicate: int | None) -> Chosen:
    """The ticket of a name; without one, the sparsest winning ticket of the grid.

    Raises:
        LtrayError: there is no such ticket, it has no weights, or none matches.
    """
    if name is None:
        best = winner(run, rows)
        return Chosen(best.row, best)
    named = {number: row for (number, one), row in rows.tickets.items() if one == name}
    asked = {number for number, one in map(key, grid(run.experiment)) if one == name}
    if not named and not asked:
        known = sorted({one for _, one in (*rows.tickets, *map(key, grid(run.experiment)))})
        found = f"the run has no ticket '{name}'{did_you_mean(name, known)}"
        raise LtrayError("--ticket", found, "see the column `ticket` of tickets.parquet")
    replicates = sorted(asked | named.keys())
    if replicate is None and len(replicates) > 1:
        found = f"{len(replicates)} replicates have '{name}'"
        raise LtrayError("--ticket", found, "add --replicate N, counted from 0")
    wanted = replicates[0] if replicate is None else replicate
    if wanted not in replicates:
        raise LtrayError("--replicate", f"there is no replicate {replicate}", "count from 0")
    row = named.get(wanted)
    if row is None or row["status"] != "done":
        how = "has not been trained yet" if row is None else row["status"]
        raise LtrayError("--ticket", f"{name} {how}: there are no weights", "name another")
    if row["style"] == "iterative" and row["reset_method"] != "weights" and wanted not in asked:
        found = f"{name} is of a chain that the experiment does not ask for any more"
        raise LtrayError("--ticket", found, "give the experiment with its denser levels")
    return Chosen(row, None)


def winner(run: Run, rows: Rows) -> Winner:
    """The sparsest winning ticket of the grid; where none wins, the sparsest matching one.

    Raises:
        LtrayError: none matches.
    """
    experiment = run.experiment
    margin = experiment.report.margin
    found = cells(rows, experiment)
    single = [*single_seeds(found), *single_pairs(rows, experiment)]
    per_image = read_per_image(run.folder, rows, single)
    answered = answers(found, margin, per_image)
    fresh = None
    if "random_init" in experiment.controls:
        fresh = beside(rows, experiment, "random_init", per_image)
    said = verdicts(answered, fresh)
    winning = [one for one in answered if one.cell and said[one.reset_epoch].word == "winning"]
    best = best_of(winning or answered)
    if best is None or best.cell is None:
        compared = sum(answer.compared for answer in answered)
        problem = f"no ticket matches the dense network within {margin}, of {compared} cells done"
        left = counts_of(rows, experiment)["missing"]
        more = "let the sweep go on" if left else "sweep denser levels, or raise report.margin"
        mend = f"name a ticket with --ticket, or {more}"
        raise LtrayError(str(run.folder.path), problem, mend)
    matching = [row for row in best.cell.done if is_matching(row, margin)]
    counts = counts_of(rows, experiment)
    so_far = (counts["all"] - counts["missing"], counts["all"]) if counts["missing"] else None
    return Winner(matching[0], best, said[best.reset_epoch], so_far)


def verdicts(
    answered: Sequence[Answer], fresh: Mapping[Place, Beside] | None
) -> dict[float, Verdict]:
    """Reset point -> what may be said of its sparsest matching ticket.

    Args:
        fresh: each cell beside its control on fresh initial weights; None where none was asked for.
    """
    return {
        answer.reset_epoch: verdict(None if fresh is None else fresh[answer.cell.place])
        for answer in answered
        if answer.cell is not None
    }
