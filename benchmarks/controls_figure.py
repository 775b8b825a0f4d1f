"""The README's figure: tickets minus their controls on validation, with 95 % intervals.

    python benchmarks/controls_figure.py RUN [RUN ...] --svg docs/figures/controls.svg

Each run is a folder of a finished sweep with both controls, as of experiments/digits_controls.yaml
and experiments/mnist_controls.yaml. Also prints the numbers that it draws.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ltray.analysis.controls import Beside, beside
from ltray.analysis.controls_figure import draw_differences
from ltray.analysis.differences import right_images
from ltray.analysis.drawing import look
from ltray.analysis.grid import Place
from ltray.analysis.results import collect
from ltray.analysis.statistics import over_of
from ltray.locate import locate
from ltray.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#1f5fa8", "#b3541e", "#2e7d4f", "#7a4fa3", "#8a6d1b")
SIZE_INCHES = (4.6, 3.2)  # of one run and control


def main() -> None:
    """Draw and print."""
    from matplotlib.figure import Figure

    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--svg", type=Path, required=True)
    options = arguments.parse_args()
    runs = [locate(path) for path in options.runs]
    kinds = sorted({kind for run in runs for kind in run.experiment.controls})
    size = (SIZE_INCHES[0] * len(runs), SIZE_INCHES[1] * len(kinds))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    every = figure.subplots(len(kinds), len(runs), squeeze=False, sharex="col")
    for kind, row in zip(kinds, every, strict=True):
        for run, axes in zip(runs, row, strict=True):
            found = _found(run, kind)
            draw_differences(axes, found, COLOURS, "white")
            axes.set_title(f"{_name(run)}\nminus {kind}", fontsize="medium")
            _print(run, kind, found)
    _legend(figure, max((run.experiment.reset.epochs for run in runs), key=len))
    options.svg.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.svg, format="svg", metadata={"Date": None})


def _legend(figure: "Figure", points: Sequence[float]) -> None:
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], **look(number) | {"color": colour, "linestyle": "none"})
        for number, colour in enumerate(COLOURS[: len(points)])
    ]
    labels = [f"reset to epoch {point:g}" for point in sorted(points)]
    figure.legend(marks, labels, loc="outside lower center", ncols=len(points), frameon=False)


def _found(run: Run, kind: str) -> dict[Place, Beside]:
    rows = collect(run.folder)
    per_image = right_images(run.folder, rows, over_of(run.experiment))
    return beside(rows, run.experiment, kind, per_image)


def _name(run: Run) -> str:
    data = run.experiment.name.partition("-")[0]
    return f"{run.experiment.model.arch} on {data}, {run.experiment.replicates} seeds"


def _print(run: Run, kind: str, found: Mapping[Place, Beside]) -> None:
    for (sparsity, point), one in found.items():
        told = one.difference
        if told is None:
            continue
        interval = "no interval"
        if told.interval is not None:
            interval = f"{100 * told.interval.low:+.2f} to {100 * told.interval.high:+.2f}"
        print(
            f"{run.folder.path.name} {kind} {sparsity} reset {point:g}: "
            f"{100 * told.value:+.2f} ({interval}), n = {told.pairs}"
        )


if __name__ == "__main__":
    main()
