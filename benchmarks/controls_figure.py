"""The README's figure: tickets minus their controls on validation, with 95 % intervals.

    python benchmarks/controls_figure.py RUN [RUN ...] --svg docs/figures/controls.svg

Each run is a folder of a finished sweep with both controls, as of experiments/digits_controls.yaml
and experiments/mnist_controls.yaml. Also prints the numbers that it draws.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ltray.analysis.controls import Beside, beside, single_pairs
from ltray.analysis.correct import read_per_image
from ltray.analysis.grid import Place
from ltray.analysis.results import collect
from ltray.analysis.wording import level
from ltray.locate import locate
from ltray.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"shuffled_mask": "#b3541e", "random_init": "#1f5fa8"}
MARKERS = ("o", "s", "^", "D", "v")
WIDTH = 0.7  # of the place that a sparsity has along the bottom


def main() -> None:
    """Draw and print."""
    from matplotlib.figure import Figure

    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--svg", type=Path, required=True)
    options = arguments.parse_args()
    runs = [locate(path) for path in options.runs]
    figure = Figure(
        figsize=(max(6.4, 4.6 * len(runs)), 4.2), layout="constrained", facecolor="white"
    )
    for axes, run in zip(figure.subplots(1, len(runs), squeeze=False)[0], runs, strict=True):
        _draw(axes, run)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.svg, format="svg", metadata={"Date": None})


def _draw(axes: "Axes", run: Run) -> None:
    experiment = run.experiment
    rows = collect(run.folder)
    per_image = read_per_image(run.folder, rows, single_pairs(rows, experiment))
    for kind in experiment.controls:
        _draw_kind(axes, run, kind, beside(rows, experiment, kind, per_image))
    levels = sorted(experiment.prune.sparsities)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_xticks(range(len(levels)), [level(one) for one in levels])
    axes.set_yscale("symlog", linthresh=2)
    axes.set_ylim(bottom=min(-0.3, axes.dataLim.y0 - 0.3))
    ticks = (-1, 0, 1, 2, 5, 10, 20, 50, 100)
    shown = [tick for tick in ticks if axes.get_ylim()[0] <= tick <= axes.get_ylim()[1]]
    axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
    axes.minorticks_off()
    axes.set_xlabel("sparsity")
    axes.set_ylabel("ticket minus control,\npoints of validation")
    seeds = experiment.replicates
    axes.set_title(f"{experiment.model.arch} on {experiment.name.partition('-')[0]}, {seeds} seeds")


def _draw_kind(axes: "Axes", run: Run, kind: str, found: Mapping[Place, Beside]) -> None:
    levels = sorted(run.experiment.prune.sparsities)
    points = sorted(run.experiment.reset.epochs)
    kinds = run.experiment.controls
    for (sparsity, point), one in found.items():
        if not one.comparable or one.validation is None:
            continue
        slot = points.index(point) * len(kinds) + kinds.index(kind)
        step = WIDTH / (len(points) * len(kinds))
        x = levels.index(sparsity) - WIDTH / 2 + step * (slot + 0.5)
        low, high = 100 * one.validation.low, 100 * one.validation.high
        axes.vlines(x, low, high, color=COLOURS[kind], linewidth=1.5)
        label = f"{kind}, reset to epoch {point:g}" if sparsity == levels[0] else None
        axes.plot(
            x,
            100 * one.difference,
            MARKERS[points.index(point) % len(MARKERS)],
            color=COLOURS[kind],
            markersize=5,
            label=label,
        )
        print(
            f"{run.folder.path.name} {kind} {sparsity} reset {point:g}: "
            f"{100 * one.difference:+.2f} ({low:+.2f} to {high:+.2f}), n = {len(one.pairs)}"
        )


if __name__ == "__main__":
    main()
