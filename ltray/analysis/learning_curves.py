"""Validation accuracy over the epochs of the dense run and of the tickets that say most."""

from collections.abc import Mapping, Sequence

from ltray.analysis import wording
from ltray.analysis.controls import Beside
from ltray.analysis.figures import Curve
from ltray.analysis.grid import Cell, Place
from ltray.analysis.results import DENSE, Rows

MOST_ROWS = 20  # of the table


def curves_of(rows: Rows, found: Sequence[Cell], chosen: Sequence[Cell]) -> list[Curve]:
    """The dense run, the sparsest matching tickets, two of the sparsest level; of one replicate.

    A sparsest matching ticket has the look of its reset point in the other figures.
    """
    if not rows.dense:
        return []
    replicate = min(rows.dense)
    points = sorted({cell.reset_epoch for cell in found})
    looks = {cell.place: points.index(cell.reset_epoch) for cell in chosen}
    extremes = [cell for cell in found if cell.sparsity == found[-1].sparsity]
    for cell in (extremes[0], extremes[-1]):
        looks.setdefault(cell.place, max([len(points) - 1, *looks.values()]) + 1)
    tickets = {cell.place: cell.done for cell in found}
    curves = [Curve("dense run", None, rows.epochs[replicate, DENSE])]
    for (sparsity, reset_epoch), look in looks.items():
        label = f"{wording.level(sparsity)} sparsity, reset to epoch {wording.epoch(reset_epoch)}"
        curves += [
            Curve(label, look, rows.epochs[replicate, row["ticket"]])
            for row in tickets[sparsity, reset_epoch]
            if (row["replicate"], row["retraining"]) == (replicate, 0)
        ]
    return curves


def control_curves(
    rows: Rows, place: Place, controls: Mapping[str, Mapping[Place, Beside]]
) -> list[Curve]:
    """The controls of one cell, of the replicate that the other curves are of."""
    if not rows.dense:
        return []
    sparsity, reset_epoch = place
    where = f"{wording.level(sparsity)} sparsity, reset to epoch {wording.epoch(reset_epoch)}"
    return [
        Curve(
            f"{kind} of {where}",
            sorted({point for _, point in found}).index(reset_epoch),
            rows.epochs[row["replicate"], row["ticket"]],
            kind,
        )
        for kind, found in controls.items()
        for row in found[place].control.done
        if (row["replicate"], row["retraining"]) == (min(rows.dense), 0)
    ]


def curves_table(curves: Sequence[Curve]) -> list[tuple[float, list[float | None]]]:
    """(epoch, each curve's top-1 there), at equal distances, the last always.

    None where a curve has no evaluation at that epoch.
    """
    every = [{row["epoch"]: row["val_top1"] for row in curve.epochs} for curve in curves]
    epochs = sorted({epoch for one in every for epoch in one})
    apart = -(-len(epochs) // MOST_ROWS) or 1
    return [(epoch, [one.get(epoch) for one in every]) for epoch in epochs[::-apart][::-1]]
