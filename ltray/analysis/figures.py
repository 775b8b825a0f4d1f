"""The figures of accuracy over density, and of accuracy over training."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ltray.analysis.columns import Row
from ltray.analysis.drawing import (
    DASH_GLYPHS,
    DASHES,
    GLYPHS,
    INK,
    LINES,
    density_axis,
    look,
    new_axes,
    percent_axis,
    styled,
    svg_of,
)
from ltray.analysis.grid import Cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPLIT_NAMES = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class Curve:
    """One network's validation accuracy over its training; `style` picks colour and marker.

    A style of None is the dense run's: drawn in ink, dashed. Controls are broken lines in the
    colour of their ticket.
    """

    label: str
    style: int | None
    epochs: Sequence[Row]
    control: str | None = None

    @property
    def glyph(self) -> str:
        """Its mark in the list of names."""
        if self.control is not None:
            return DASH_GLYPHS[self.control]
        return "╌" if self.style is None else GLYPHS[self.style % len(GLYPHS)]


def accuracy_against_density(
    cells: Sequence[Cell],
    controls: Mapping[str, Sequence[Cell]],
    dense_top1: float,
    split: Literal["val", "test"],
    margin: float | None,
) -> str:
    """Top-1 over the share of weights kept, one line per reset point, the dense run as a line.

    The band of a line, or the bar of a single cell, reaches from the lowest to the highest
    ticket. Controls are broken lines in the colour of their reset point; in ink where one stands
    beside all of them.

    Args:
        cells: of the current grid; those with a diverged or no finished ticket are left out.
        controls: kind -> its cells, at the same places, or those of one reset point.
        dense_top1: mean over replicates, a fraction.
        split: whose accuracy.
        margin: where given, a second line lies this much below the dense run's.
    """
    points = sorted({cell.reset_epoch for cell in cells})
    name = SPLIT_NAMES[split]
    with styled():
        figure, axes = new_axes()
        for number, point in enumerate(points):
            line = [cell for cell in cells if cell.reset_epoch == point and cell.comparable]
            _draw_line(axes, line, f"{split}_top1", number)
        for kind, of_control in controls.items():
            _draw_controls(axes, kind, of_control, points, f"{split}_top1")
        density_axis(axes, [cell.mean("density_kept") for cell in cells if cell.comparable])
        percent_axis(axes)
        _dense_level(axes, dense_top1)
        if margin is not None:
            _margin_level(axes, dense_top1 - margin)
        axes.set_ylabel(f"{name} top-1")
        alt = (
            f"{name.capitalize()} top-1 accuracy against the share of weights kept, for "
            f"{len(points)} reset points; the dense run has {_percent(dense_top1)}."
            f"{_beside(controls)}"
        )
        return svg_of(figure, f"accuracy-{split}", alt)


@dataclass(frozen=True)
class ComparedLine:
    """One run's cells of one reset point, and the mean accuracy of its dense runs.

    Attributes:
        controls: kind -> its cells of that reset point.
    """

    label: str
    cells: Sequence[Cell]
    controls: Mapping[str, Sequence[Cell]]
    dense_top1: float


def compared_accuracy(reset_epoch: str, lines: Sequence[ComparedLine]) -> str:
    """Validation top-1 over the share of weights kept, a line per run, each with its dense run's.

    Controls are broken lines in the colour of their run.

    Args:
        reset_epoch: as written; all cells are of this reset point.
    """
    with styled():
        figure, axes = new_axes()
        for number, line in enumerate(lines):
            _draw_line(axes, line.cells, "val_top1", number)
            color = look(number)["color"]
            for kind, of_control in line.controls.items():
                _draw_control(axes, kind, of_control, color, "val_top1")
            axes.axhline(line.dense_top1, color=color, linewidth=1, linestyle="-.")
        density_axis(axes, [cell.mean("density_kept") for line in lines for cell in line.cells])
        percent_axis(axes)
        axes.set_ylabel("validation top-1")
        names = " and ".join(f"{line.label}, dense {_percent(line.dense_top1)}" for line in lines)
        alt = (
            f"Validation top-1 accuracy against the share of weights kept, reset to epoch "
            f"{reset_epoch}: {names}.{_beside({kind for line in lines for kind in line.controls})}"
        )
        return svg_of(figure, f"compared-{reset_epoch.replace('.', '-')}", alt)


def learning_curves(curves: Sequence[Curve]) -> str:
    """Validation top-1 over the epochs of the dense run and of a few tickets."""
    from matplotlib.ticker import MaxNLocator

    with styled():
        figure, axes = new_axes()
        for curve in curves:
            measured = [row for row in curve.epochs if row["val_top1"] is not None]
            epochs = [row["epoch"] for row in measured]
            top1 = [row["val_top1"] for row in measured]
            if curve.style is None:
                axes.plot(epochs, top1, color=INK, linewidth=1.5, linestyle="--")
            elif curve.control is not None:
                color = look(curve.style)["color"]
                axes.plot(epochs, top1, color=color, linewidth=1.5, linestyle=DASHES[curve.control])
            else:
                axes.plot(epochs, top1, **look(curve.style), markevery=[-1] if top1 else None)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        percent_axis(axes)
        axes.set_ylabel("validation top-1")
        names = ", ".join(curve.label for curve in curves)
        return svg_of(figure, "learning", f"Validation top-1 over epochs: {names}.")


def _draw_line(axes: "Axes", cells: Sequence[Cell], column: str, number: int) -> None:
    kept = [cell.mean("density_kept") for cell in cells]
    axes.plot(kept, [cell.mean(column) for cell in cells], **look(number))
    if any(len(cell.done) > 1 for cell in cells):
        lows = [min(row[column] for row in cell.done) for cell in cells]
        highs = [max(row[column] for row in cell.done) for cell in cells]
        color = LINES[number % len(LINES)]
        if len(cells) == 1:  # a band would have no width
            axes.vlines(kept, lows, highs, color=color, alpha=0.4)
        else:
            axes.fill_between(kept, lows, highs, color=color, alpha=0.15, lw=0)


def _draw_controls(
    axes: "Axes", kind: str, cells: Sequence[Cell], points: Sequence[float], column: str
) -> None:
    """Broken lines in the colour of their reset point; in ink where one is for all of them."""
    there = sorted({cell.reset_epoch for cell in cells})
    for point in there:
        color = LINES[points.index(point) % len(LINES)]
        if kind == "random_init" and len(there) == 1:
            color = INK
        _draw_control(
            axes, kind, [cell for cell in cells if cell.reset_epoch == point], color, column
        )


def _draw_control(axes: "Axes", kind: str, cells: Sequence[Cell], color: str, column: str) -> None:
    line = [cell for cell in cells if cell.comparable]
    kept = [cell.mean("density_kept") for cell in line]
    top1 = [cell.mean(column) for cell in line]
    alone = ("+" if kind == "random_init" else "_") if len(line) == 1 else ""  # no line to see
    axes.plot(kept, top1, color=color, linestyle=DASHES[kind], linewidth=1.2, marker=alone)


def _beside(controls: Collection[str]) -> str:
    names = " and ".join(sorted(controls))
    return f" Broken lines are the controls {names}." if names else ""


def _dense_level(axes: "Axes", top1: float) -> None:
    """The dense run as a line, labelled above its sparse end, where the curves have left it."""
    axes.axhline(top1, color=INK, linewidth=1, linestyle="--", zorder=1)
    _label(axes, f"dense {_percent(top1)}", (1, top1), "right", "bottom")


def _margin_level(axes: "Axes", top1: float) -> None:
    """Where matching ends, labelled below its dense end, which the curves have not reached."""
    axes.axhline(top1, color=INK, linewidth=1, linestyle=":", zorder=1)
    _label(axes, "dense minus margin", (0, top1), "left", "top")


def _label(
    axes: "Axes",
    text: str,
    at: tuple[float, float],
    side: Literal["left", "right"],
    edge: Literal["top", "bottom"],
) -> None:
    axes.annotate(
        text,
        at,
        xycoords=("axes fraction", "data"),
        xytext=(4 if side == "left" else 0, 3 if edge == "bottom" else -3),
        textcoords="offset points",
        ha=side,
        va=edge,
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
