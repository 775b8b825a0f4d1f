"""report.html: what a run found, on one page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ltray.analysis import accounts, figures, layers, wording
from ltray.analysis.chosen import verdicts
from ltray.analysis.columns import Row
from ltray.analysis.controls import (
    WHAT,
    Beside,
    beside,
    beyond_control,
    single_pairs,
)
from ltray.analysis.controls_figure import controls_figure
from ltray.analysis.correct import COLUMNS, PerImage, read_per_image
from ltray.analysis.drawing import DASH_GLYPHS, GLYPHS
from ltray.analysis.early_stopping import learnt
from ltray.analysis.grid import (
    Cell,
    Place,
    asked_for,
    cells,
    counts_of,
    outside,
    single_seeds,
    skipped,
)
from ltray.analysis.heat_map import heat_map, legend, tone
from ltray.analysis.learning_curves import control_curves, curves_of, curves_table
from ltray.analysis.results import Rows, collect
from ltray.analysis.speedup_section import speedup_content
from ltray.analysis.statistics import (
    answers,
    best_of,
    beyond_chance,
    dense_interval,
    over_of,
)
from ltray.analysis.templates import rendered
from ltray.analysis.trials import of_sweeps
from ltray.experiment import Experiment
from ltray.files import is_there, read_json, write_whole
from ltray.given import GivenExperiment
from ltray.layout import RunFolder
from ltray.lottery.mask_names import has_masks_by_reset_point
from ltray.lottery.ready import searches

_TEMPLATE = "report.html.jinja"


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
    given_by = experiment.given_by if isinstance(experiment, GivenExperiment) else None
    tickets = asked_for(rows, experiment)
    counts = counts_of(rows, experiment)
    done = [row for row in tickets if row["status"] == "done"]
    return {
        "run": run,
        "given_by": given_by,
        "experiment": experiment,
        "yaml": run.experiment.read_text() if is_there(run.experiment) else None,
        "margin": experiment.report.margin,
        "reset_points": sorted(experiment.reset.epochs),
        "sparsities": sorted(experiment.prune.sparsities),
        "prunable": rows.prunable,
        "dense_runs": len(dense),
        "counts": counts,
        "tickets": tickets,
        "lost": [row for row in tickets if row["status"] != "done"],
        **_layers(run, experiment, rows, done),
        "undone": [
            *_undone(counts, experiment, 0 if given_by else outside(rows, experiment)),
            *_skipped(experiment, rows),
        ],
        **_findings(run, experiment, rows, found, dense),
        **_learnt(rows, experiment, found),
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
    single = [*single_seeds(found), *single_pairs(rows, experiment)]
    per_image = read_per_image(run, rows, single)
    controls: dict[str, Mapping[Place, Beside]] = {
        one: beside(rows, experiment, one, per_image) for one in experiment.controls
    }
    answered = answers(found, margin, per_image)
    chosen = [answer.cell for answer in answered if answer.cell is not None]
    best = best_of(answered)
    curves = curves_of(rows, found, chosen)
    if best is not None and best.cell is not None:
        curves += control_curves(rows, best.cell.place, controls)
    return {
        "answers": answered,
        "fresh_by_point": len(experiment.reset.epochs) > 1 and has_masks_by_reset_point(experiment),
        "verdicts": verdicts(answered, controls.get("random_init")),
        "controls": [_against(kind, found, experiment) for kind, found in controls.items()],
        "best": best,
        "told": sum(answer.validation is not None for answer in answered),
        "surely": sum(answer.surely(margin) for answer in answered),
        "beyond_chance": beyond_chance(found, over_of(experiment), per_image),
        "points_in_images": _points_in_images(per_image),
        "unreadable": _unreadable(run, per_image),
        **_dense_accuracy(dense, per_image),
        "heat_map": heat_map(found, margin, [cell.place for cell in chosen]),
        "legend": legend(margin),
        "glyphs": GLYPHS,
        "dashes": DASH_GLYPHS,
        "accuracy_figures": _accuracy_figures(found, controls, dense, experiment),
        "curves": curves,
        "curves_replicate": min(rows.dense, default=0),
        "curves_table": curves_table(curves),
        "curves_figure": figures.learning_curves(curves) if curves else None,
    }


def _learnt(rows: Rows, experiment: Experiment, found: Sequence[Cell]) -> dict[str, Any]:
    """When networks have learnt, and how the page writes such numbers."""
    asked = "random_init" in experiment.controls
    from_early_weights = experiment.reset.method == "weights"
    controls = cells(rows, experiment, "random_init") if asked else []
    return {
        "learnt": learnt(rows, experiment, found, controls) if from_early_weights else [],
        "epochs": lambda value: wording.signed(value).lstrip("+"),
        "signed": wording.signed,
        "share": partial(wording.percent, places=2),
        "points": partial(wording.points, places=2),
    }


def _against(kind: str, found: Mapping[Place, Beside], experiment: Experiment) -> dict[str, Any]:
    """The grid's cells beside one of their controls."""
    return {
        "kind": kind,
        "what": WHAT[kind],
        "found": found,
        "told": any(
            one.difference or one.cell.diverged or one.control.diverged for one in found.values()
        ),
        "figure": controls_figure(kind, found) if any(map(_is_told, found.values())) else None,
        "beyond": beyond_control(found, over_of(experiment)),
        "tones": {
            place: tone(one.difference.value, experiment.report.margin)
            for place, one in found.items()
            if one.difference
        },
    }


def _is_told(one: Beside) -> bool:
    return one.difference is not None


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
        **speedup_content(of_sweeps(run, rows.tickets.values()), dense, done, launches),
        "machine": accounts.machine(launches) if launches else None,
        "trained_on": {
            label: accounts.counted(trained, column)
            for label, column in accounts.TRAINED_ON.items()
        },
    }


def _accuracy_figures(
    found: Sequence[Cell],
    controls: Mapping[str, Mapping[Place, Beside]],
    dense: Sequence[Row],
    experiment: Experiment,
) -> list[str]:
    if not dense or not any(cell.comparable for cell in found):
        return []
    val, test = (fmean(row[name] for row in dense) for name in ("val_top1", "test_top1"))
    of_controls = {kind: _drawn(kind, found, experiment) for kind, found in controls.items()}
    return [
        figures.accuracy_against_density(found, of_controls, val, "val", experiment.report.margin),
        figures.accuracy_against_density(found, of_controls, test, "test", None),
    ]


def _drawn(kind: str, found: Mapping[Place, Beside], experiment: Experiment) -> list[Cell]:
    """A control's cells; where one stands beside all reset points, those of the first."""
    every = [one.control for one in found.values()]
    if kind != "random_init" or has_masks_by_reset_point(experiment):
        return every
    return [cell for cell in every if cell.reset_epoch == min(experiment.reset.epochs)]


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


def _undone(counts: Mapping[str, int], experiment: Experiment, others: int) -> list[str]:
    said = []
    if counts["missing"]:
        tickets = wording.quantity(counts["missing"], "ticket")
        said.append(f"Not retrained yet: {tickets} of {counts['all']:,}.")
    for control, what in WHAT.items():
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


def _skipped(experiment: Experiment, rows: Rows) -> list[str]:
    """What a search has left out, and why."""
    left_out = skipped(experiment, rows)
    if not left_out:
        return []
    if not all(one.ended for one in searches(experiment, rows.tickets)):
        return [f"The search goes on: it has not asked for {left_out} cells so far."]
    cells = len(experiment.prune.sparsities) * len(experiment.reset.epochs)
    return [
        f"Skipped by the search: {left_out} of {cells} cells, which are denser or sparser than what"
        " decides at their reset point: the sparsest cell that matches by the fit, and those around"
        " it. With search: grid they would be trained too, and what is done is kept."
    ]
