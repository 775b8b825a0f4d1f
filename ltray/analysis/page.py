"""report.html: what a run found, on one page that needs nothing but itself."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from ltray.analysis import accounts, figures, layers, wording
from ltray.analysis.columns import Row
from ltray.analysis.correct import COLUMNS, PerImage, read_per_image
from ltray.analysis.figures import Curve
from ltray.analysis.grid import Cell, cells, counts_of, outside, single_seeds
from ltray.analysis.heat_map import heat_map, legend
from ltray.analysis.results import DENSE, Rows, collect
from ltray.analysis.speedup_section import speedup_content
from ltray.analysis.statistics import answers, best_of, beyond_chance, dense_interval
from ltray.analysis.templates import rendered
from ltray.experiment import Experiment
from ltray.files import is_there, read_json, write_whole
from ltray.layout import RunFolder

_TEMPLATE = "report.html.jinja"
_CONTROLS = {
    "shuffled_mask": "each mask shuffled inside its layers",
    "random_init": "each mask on fresh initial weights",
}


def write_report(run: RunFolder, experiment: Experiment, rows: Rows | None = None) -> Path:
    """Write report.html from what lies in the run's folders; returns its path.

    Args:
        experiment: resolved; its grid is the one that the page speaks of.
        rows: of the run, where they have been collected just now.
    """
    found = collect(run) if rows is None else rows
    write_whole(run.report, render(run, experiment, found).encode())
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
        "counts": counts_of(found),
        "tickets": [row for cell in found for row in _rows(cell)],
        "lost": [row for cell in found for row in (*cell.diverged, *cell.failed)],
        **_layers(run, experiment, rows, done),
        "undone": _undone(found, experiment, outside(rows, experiment)),
        **_findings(run, experiment, rows, found, dense),
        **_costs(run, rows, dense, done),
    }


def _findings(
    run: RunFolder,
    experiment: Experiment,
    rows: Rows,
    found: Sequence[Cell],
    dense: Sequence[Row],
) -> dict[str, Any]:
    margin = experiment.report.margin
    per_image = read_per_image(run, rows, single_seeds(found))
    answered = answers(found, margin, per_image)
    chosen = [answer.cell for answer in answered if answer.cell is not None]
    curves = _curves(rows, found, chosen)
    return {
        "answers": answered,
        "best": best_of(answered),
        "told": sum(answer.validation is not None for answer in answered),
        "surely": sum(answer.surely(margin) for answer in answered),
        "beyond_chance": beyond_chance(found, experiment.replicates, per_image),
        "points_in_images": _points_in_images(per_image),
        "unreadable": _unreadable(run, per_image),
        **_dense_accuracy(dense, per_image),
        "heat_map": heat_map(found, margin, [cell.place for cell in chosen]),
        "legend": legend(margin),
        "glyphs": figures.GLYPHS,
        "accuracy_figures": _accuracy_figures(found, dense, margin),
        "curves": curves,
        "curves_figure": figures.learning_curves(curves) if curves else None,
    }


def _dense_accuracy(dense: Sequence[Row], per_image: PerImage) -> dict[str, Any]:
    """Mean and interval of the dense runs' accuracy on validation and test."""
    said: dict[str, Any] = {}
    for split, column in COLUMNS.items():
        name = f"dense_{column.removesuffix('_top1')}"
        said[name] = fmean(row[column] for row in dense) if dense else None
        said[f"{name}_interval"] = dense_interval(per_image, split, dense) if dense else None
    return said


def _points_in_images(per_image: PerImage) -> list[str]:
    """What a percentage point is worth, in images of each split whose size is known."""
    sizes = {split: per_image.images(split) for split in COLUMNS}
    return [
        f"{images / 100:,.4g} of the {images:,} {split} images"
        for split, images in sizes.items()
        if images is not None
    ]


def _unreadable(run: RunFolder, per_image: PerImage) -> list[tuple[str, str]]:
    """(file, what is wrong with it), the file as seen from the run's folder."""
    return [
        (path.relative_to(run.path).as_posix(), problem)
        for path, problem in per_image.unreadable.items()
    ]


def _costs(run: RunFolder, rows: Rows, dense: Sequence[Row], done: Sequence[Row]) -> dict[str, Any]:
    launches = read_json(run.launches)["launches"] if is_there(run.launches) else []
    trained = [*dense, *done]
    return {
        **speedup_content(list(rows.tickets.values()), dense, done, launches),
        "machine": accounts.machine(launches[-1]) if launches else None,
        "trained_on": {
            label: accounts.counted(trained, column)
            for label, column in accounts.TRAINED_ON.items()
        },
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


def _layers(
    run: RunFolder, experiment: Experiment, rows: Rows, done: Sequence[Row]
) -> dict[str, Any]:
    found = layers.read_layers(run, experiment, rows.prunable)
    return {
        "layers": found,
        "dead": layers.dead_layers(done, found),
        "layer_legend": layers.legend(),
        "layer_tooltip": layers.tooltip,
    }


def _undone(found: Sequence[Cell], experiment: Experiment, others: int) -> list[str]:
    counts = counts_of(found)
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
