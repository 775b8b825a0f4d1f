"""report.html: what a run found, on one page that needs nothing but itself."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ltray.analysis import accounts, figures, wording
from ltray.analysis.columns import Row
from ltray.analysis.figures import Curve
from ltray.analysis.grid import Cell, cells, outside
from ltray.analysis.heat_map import heat_map, legend
from ltray.analysis.results import DENSE, Rows, collect
from ltray.analysis.speedup_section import speedup_content
from ltray.analysis.statistics import answers
from ltray.analysis.templates import rendered
from ltray.experiment import Experiment
from ltray.files import is_there, read_json, write_whole
from ltray.layout import RunFolder

_TEMPLATE = "report.html.jinja"
_TRAINED_ON = {"Trained on": "device", "Nodes": "node", "Backend": "backend"}
_CONTROLS = {
    "shuffled_mask": "each mask shuffled inside its layers",
    "random_init": "each mask on fresh initial weights",
}


def write_report(run: RunFolder, experiment: Experiment) -> Path:
    """Write report.html from what lies in the run's folders; returns its path.

    Args:
        experiment: resolved; its grid is the one that the page speaks of.
    """
    write_whole(run.report, render(run, experiment, collect(run)).encode())
    return run.report


def render(run: RunFolder, experiment: Experiment, rows: Rows) -> str:
    """The page as HTML; reads launches.json and experiment.yaml from the run, if they are there."""
    return rendered(_TEMPLATE, _content(run, experiment, rows))


def _content(run: RunFolder, experiment: Experiment, rows: Rows) -> dict[str, Any]:
    found = cells(rows, experiment)
    dense = [row for number, row in sorted(rows.dense.items()) if number < experiment.replicates]
    done = [row for cell in found for row in cell.done]
    return {
        "run": run,
        "experiment": experiment,
        "yaml": run.experiment.read_text() if is_there(run.experiment) else None,
        "margin": experiment.report.margin,
        "reset_points": sorted(experiment.reset.epochs),
        "prunable": rows.prunable,
        "dense_runs": len(dense),
        "dense_val": fmean(row["val_top1"] for row in dense) if dense else None,
        "dense_test": fmean(row["test_top1"] for row in dense) if dense else None,
        "counts": _counts(found),
        "tickets": [row for cell in found for row in _rows(cell)],
        "lost": [row for cell in found for row in (*cell.diverged, *cell.failed)],
        "dead": _dead_layers(done),
        "undone": _undone(found, experiment, outside(rows, experiment)),
        **_findings(rows, found, dense, experiment.report.margin),
        **_costs(run, rows, dense, done),
    }


def _findings(
    rows: Rows, found: Sequence[Cell], dense: Sequence[Row], margin: float
) -> dict[str, Any]:
    answered = answers(found, margin)
    chosen = [answer.cell for answer in answered if answer.cell is not None]
    curves = _curves(rows, found, chosen)
    return {
        "answers": answered,
        # Of equally sparse ones that of the earliest reset point says most.
        "best": max(chosen, key=lambda cell: (cell.sparsity, -cell.reset_epoch), default=None),
        "heat_map": heat_map(found, margin, [cell.place for cell in chosen]),
        "legend": legend(margin),
        "glyphs": figures.GLYPHS,
        "accuracy_figures": _accuracy_figures(found, dense, margin),
        "curves": curves,
        "curves_figure": figures.learning_curves(curves) if curves else None,
    }


def _costs(run: RunFolder, rows: Rows, dense: Sequence[Row], done: Sequence[Row]) -> dict[str, Any]:
    launches = read_json(run.launches)["launches"] if is_there(run.launches) else []
    trained = [*dense, *done]
    return {
        **speedup_content(list(rows.tickets.values()), dense, done, launches),
        "machine": accounts.machine(launches[-1]) if launches else None,
        "trained_on": {
            label: accounts.counted(trained, column) for label, column in _TRAINED_ON.items()
        },
    }


def _counts(found: Sequence[Cell]) -> dict[str, int]:
    return {
        "done": sum(len(cell.done) for cell in found),
        "diverged": sum(len(cell.diverged) for cell in found),
        "failed": sum(len(cell.failed) for cell in found),
        "missing": sum(cell.missing for cell in found),
        "all": sum(cell.replicates for cell in found),
    }


def _accuracy_figures(found: Sequence[Cell], dense: Sequence[Row], margin: float) -> list[str]:
    if not dense or not any(cell.comparable for cell in found):
        return []
    val, test = (fmean(row[name] for row in dense) for name in ("val_top1", "test_top1"))
    return [
        figures.accuracy_against_density(found, val, "val", margin),
        figures.accuracy_against_density(found, test, "test", None),
    ]


def _curves(rows: Rows, found: Sequence[Cell], chosen: Sequence[Cell]) -> list[Curve]:
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
            if row["replicate"] == replicate
        ]
    return curves


def _rows(cell: Cell) -> list[Row]:
    return sorted((*cell.done, *cell.diverged, *cell.failed), key=lambda row: row["replicate"])


def _dead_layers(done: Sequence[Row]) -> list[tuple[float, list[str]]]:
    """(sparsity, the layers that a ticket of it has nothing left of), where there are any."""
    by_sparsity: dict[float, set[str]] = {}
    for row in done:
        if row["dead_layers"]:
            by_sparsity.setdefault(row["sparsity"], set()).update(row["dead_layers"])
    return [(sparsity, sorted(names)) for sparsity, names in sorted(by_sparsity.items())]


def _undone(found: Sequence[Cell], experiment: Experiment, others: int) -> list[str]:
    counts = _counts(found)
    said = []
    if counts["missing"]:
        tickets = wording.quantity(counts["missing"], "ticket")
        said.append(f"Not retrained yet: {tickets} of {counts['all']:,}.")
    for control, what in _CONTROLS.items():
        if control not in experiment.controls:
            said.append(f"The control {control} ({what}) did not run.")
    if experiment.replicates == 1:
        said.append("One seed only: replicates: 3 or more would show the spread.")
    if others:
        tickets = wording.quantity(others, "ticket")
        said.append(
            f"Left out here: {tickets} of this run that another grid asked for. tickets.parquet "
            "has them."
        )
    return said
