"""The grid as a table of coloured cells: what each shows, and what the colours mean."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from ltray.analysis.grid import Cell, Place
from ltray.analysis.wording import epoch, level, percent, points, quantity
from ltray.lottery.matching import within_margin

# Edges between the colours, in margins above the dense run's accuracy. An edge lies at -1, so
# that no colour is shared by a cell within the margin and one beyond it.
_EDGES = (1, 0, -1, -2, -4, -8)
_UNIT_WITHOUT_MARGIN = 0.005


@dataclass(frozen=True)
class Square:
    """One cell of the heat map: a CSS class, the text in it, what it says in words."""

    look: str
    text: str
    words: str
    matching: bool = False
    sparsest: bool = False
    note: str = ""


def heat_map(
    cells: Sequence[Cell], margin: float, sparsest: Collection[Place]
) -> list[tuple[str, list[Square]]]:
    """(sparsity, its squares in order of reset point) for each sparsity.

    Args:
        cells: of the current grid, in order of sparsity, then of reset point.
        margin: of the experiment.
        sparsest: where the sparsest matching cell of each reset point lies.
    """
    by_sparsity = groupby(cells, key=lambda cell: cell.sparsity)
    return [
        (level(sparsity), [_square(cell, margin, cell.place in sparsest) for cell in row])
        for sparsity, row in by_sparsity
    ]


def legend(margin: float) -> list[tuple[str, str]]:
    """(CSS class, differences to the dense run in points) for each colour, best first."""
    unit = margin or _UNIT_WITHOUT_MARGIN
    places = 1 if round(unit, 3) == unit else 2
    edges = [points(edge * unit, places) for edge in _EDGES]
    inner = [f"{low} to {high}" for high, low in pairwise(edges)]
    texts = [f"{edges[0]} or more", *inner, f"below {edges[-1]}"]
    return [(f"tone-{number}", text) for number, text in enumerate(texts)]


def tone(difference: float, margin: float) -> str:
    """The CSS class of a difference to the dense run's accuracy."""
    unit = margin or _UNIT_WITHOUT_MARGIN
    passed = sum(not within_margin(difference, -edge * unit) for edge in _EDGES)
    return f"tone-{passed}"


def _square(cell: Cell, margin: float, sparsest: bool) -> Square:
    where = f"{level(cell.sparsity)} sparsity, reset to epoch {epoch(cell.reset_epoch)}"
    if cell.diverged:
        return Square("diverged", "diverged", f"{where}: {_counts(cell)}")
    if not cell.done:
        look = "failed" if cell.failed else "missing"
        text = "failed" if cell.failed else "·"
        return Square(look, text, f"{where}: {_counts(cell)}")
    return Square(
        look=tone(cell.difference, margin),
        text=f"{100 * cell.mean('val_top1'):.1f}",
        words=f"{where}: {_accuracies(cell)}. {_counts(cell)}",
        matching=cell.matches(margin),
        sparsest=sparsest,
        note="" if len(cell.done) == cell.asked else f"{len(cell.done)}/{cell.asked}",
    )


def _accuracies(cell: Cell) -> str:
    validation, test = cell.mean("val_top1"), cell.mean("test_top1")
    return (
        f"validation {percent(validation)} ({points(cell.difference)} points against dense), "
        f"test {percent(test)} ({points(cell.test_difference)})"
    )


def _counts(cell: Cell) -> str:
    counts = {
        "done": len(cell.done),
        "diverged": len(cell.diverged),
        "failed": len(cell.failed),
        "not run": cell.missing,
    }
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    return f"{quantity(cell.asked, 'ticket')}: {said}"
