"""Tickets minus their controls, drawn: whether mask and early weights matter, at a glance."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ltray.analysis.controls import Beside
from ltray.analysis.drawing import INK, LINES, look, new_axes, styled, svg_of
from ltray.analysis.grid import Place
from ltray.analysis.wording import level

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 0.6  # of the place that a sparsity has along the bottom
ROOM = 54  # characters along the bottom that do not run into each other
TICKS = (-50, -20, -10, -5, -2, -1, 0, 1, 2, 5, 10, 20, 50)


def controls_figure(kind: str, found: Mapping[Place, Beside]) -> str:
    """Points of validation by sparsity with 95 % intervals, a mark for each reset point.

    Args:
        kind: of the control.
        found: the cells beside it.
    """
    with styled():
        figure, axes = new_axes()
        draw_differences(axes, found, LINES)
        told = sum(one.difference is not None for one in found.values())
        above = sum(one.side > 0 for one in found.values())
        alt = (
            f"Tickets minus {kind} in points of validation, by sparsity, with 95 % intervals: "
            f"{above} of {told} cells lie wholly above zero."
        )
        return svg_of(figure, f"controls-{kind}", alt)


def draw_differences(
    axes: "Axes", found: Mapping[Place, Beside], colours: Sequence[str], paper: str | None = None
) -> None:
    """Draw onto axes of one's own: the zero line, marks and intervals; linear within two points.

    Args:
        colours: of the reset points, the earliest first.
        paper: the colour behind, round the marks; the page's when None.
    """
    levels = sorted({sparsity for sparsity, _ in found})
    points = sorted({point for _, point in found})
    axes.axhline(0, color=INK, linewidth=1)
    for (sparsity, point), one in found.items():
        if one.difference is None:
            continue
        number = points.index(point)
        x = levels.index(sparsity) + WIDTH * ((number + 0.5) / len(points) - 0.5)
        colour = colours[number % len(colours)]
        if one.difference.interval is not None:
            ends = one.difference.interval
            axes.vlines(x, 100 * ends.low, 100 * ends.high, color=colour, linewidth=1.5)
        mark = look(number) | {"color": colour, "linestyle": "none", "markersize": 6}
        if paper is not None:
            mark["markeredgecolor"] = paper
        axes.plot([x], [100 * one.difference.value], **mark)
    _axes(axes, levels)


def _axes(axes: "Axes", levels: Sequence[float]) -> None:
    names = [level(one) for one in levels]
    every = -(-len(names) * max(map(len, names)) // ROOM)
    axes.set_xticks(range(0, len(names), every), names[::every])
    axes.set_xlim(-0.6, len(levels) - 0.4)
    axes.set_yscale("symlog", linthresh=2)
    low, high = -_beyond(-axes.dataLim.y0), _beyond(axes.dataLim.y1)
    axes.set_ylim(low, high)
    axes.set_yticks([tick for tick in TICKS if low <= tick <= high])
    axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
    axes.minorticks_off()
    axes.tick_params(length=0)
    axes.set_xlabel("sparsity")
    axes.set_ylabel("ticket minus control,\npoints of validation")


def _beyond(end: float) -> float:
    """Where an axis ends that has room for a mark at `end`, in its linear part or beyond."""
    return max(0.3, end + 0.3, 1.25 * end)
