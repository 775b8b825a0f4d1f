"""What figures are drawn with: inline SVG, coloured by the CSS of the page that it stands in.

Colours are drawn as placeholders and then replaced by CSS variables, so that one figure is
legible on light and dark paper. Text stays text, and nothing outside the figure is referred to.
"""

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from html import escape
from io import StringIO
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
GLYPHS = ("●", "■", "▲", "◆", "▼", "✚", "✖", "⬟")
DASHES = {"shuffled_mask": (0, (4, 2)), "random_init": (0, (1, 1.5))}  # of controls' lines
DASH_GLYPHS = {"shuffled_mask": "╌", "random_init": "┄"}

INK = "#010101"
RULE = "#020202"
PAPER = "#030303"
LINES = tuple(f"#0401{number:02x}" for number in range(len(MARKERS)))
_CSS = {
    INK: "currentColor",
    RULE: "var(--rule, #8888)",
    PAPER: "var(--paper, #fff)",
    **{line: f"var(--line-{number}, #888)" for number, line in enumerate(LINES)},
}
SIZE_INCHES = (5.6, 3.7)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ltray",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": RULE,
    "grid.linewidth": 0.5,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def styled() -> AbstractContextManager[None]:
    """The style of every figure: what is drawn, and what saves it, must stand inside."""
    import matplotlib as mpl

    return mpl.rc_context(_STYLE)


def new_axes(size_inches: tuple[float, float] = SIZE_INCHES) -> "tuple[Figure, Axes]":
    """An empty figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained")
    return figure, figure.add_subplot()


def look(number: int) -> dict[str, Any]:
    """Colour and marker of the line of that number, as the page's lists of names have them."""
    return {
        "color": LINES[number % len(LINES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markersize": 5,
        "markeredgecolor": PAPER,
        "markeredgewidth": 0.6,
        "linewidth": 1.5,
    }


def density_axis(axes: "Axes", densities: Sequence[float]) -> None:
    """Shares of weights kept along the bottom, sparser to the right."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    if densities:
        axes.set_xlim(max(densities) * 1.15, min(densities) / 1.15)
        decades = [scale * 10.0**power for power in range(-6, 1) for scale in (1, 2, 5)]
        ticks = [tick for tick in decades if min(densities) / 1.01 <= tick <= max(densities) * 1.01]
        ticks = ticks or [fmean(densities)]
        axes.set_xticks(ticks, [f"{100 * tick:.3g} %" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("weights kept (log scale), sparser to the right")
    axes.tick_params(length=0)


def percent_axis(axes: "Axes") -> None:
    """Shares in percent up the side."""
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.4g} %")
    axes.tick_params(length=0)


def svg_of(figure: "Figure", prefix: str, alt: str) -> str:
    """The figure's <svg> element with unique ids, CSS colours and `alt` as its title."""
    buffer = StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for placeholder, css in _CSS.items():
        text = text.replace(placeholder, css)
    text = re.sub(r"<defs>\s*<style.*?</defs>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r"(font: [\d.]+px )[^;\"]+", r"\1sans-serif", text)
    head = f'<svg role="img" aria-labelledby="{prefix}-title"'
    text = text.replace("<svg", head, 1)
    return text.replace(">", f'><title id="{prefix}-title">{escape(alt)}</title>', 1)
