"""The published grid, and a run laid over it, as text and as JSON."""

from dataclasses import asdict
from itertools import groupby
from statistics import fmean
from typing import Any

from ltray.analysis.published_grid import NOT_ASKED_FOR, Compared, Comparison, Lacking, Published
from ltray.analysis.wording import epoch, kept, level, points, quantity
from ltray.experiment import as_written


def published_lines(published: Published) -> list[str]:
    """The published figures as a table: a line for each reset point, a column for each density."""
    heads = "".join(f"{kept(density):>9}" for density in published.densities)
    lines = [
        "ResNet-50 on ImageNet, one-shot magnitude pruning: top-1 in %, by weights kept",
        f"({published.source}; entered {published.entered})",
        "",
        f"{'':12}{heads}",
        _line("fresh init", published.fresh_init),
    ]
    return lines + [
        _line(f"reset {epoch(reset)}", values) for reset, values in published.by_reset.items()
    ]


def comparison_lines(comparison: Comparison) -> list[str]:
    """A run over the published grid: what both have, what one lacks, what was not alike."""
    return [
        *_shared(comparison.compared),
        *_lacking(comparison.lacking),
        f"{quantity(comparison.others, 'cell')} of the run not among the published ones. "
        "Fresh init is not compared, though a run may have the control random_init.",
        *_conditions(comparison),
    ]


def as_json(published: Published, comparison: Comparison | None, run: str | None) -> dict[str, Any]:
    """The same as JSON values: accuracies in percent, differences in points.

    Args:
        comparison: None where there is no run to compare.
        run: the run's folder.
    """
    cells = [
        {"sparsity": sparsity, "reset_epoch": reset, "top1": value}
        for (sparsity, reset), value in published.top1.items()
    ]
    fresh = dict(zip(map(as_written, published.sparsities), published.fresh_init, strict=True))
    theirs = {"source": published.source, "entered": published.entered, "cells": cells}
    ours: dict[str, Any] | None = None
    if comparison is not None:
        ours = asdict(comparison)
        for cell, one in zip(ours["compared"], comparison.compared, strict=True):
            cell["difference"] = one.difference
    return {"published": {**theirs, "fresh_init": fresh}, "run": run, "comparison": ours}


def _line(name: str, values: tuple[float, ...]) -> str:
    return f"{name:12}" + "".join(f"{value:9.2f}" for value in values)


def _shared(compared: tuple[Compared, ...]) -> list[str]:
    if not compared:
        return ["No cell of the published grid has been trained in this run yet."]
    apart = [one.difference for one in compared]
    lines = [
        "Test top-1 in % of the cells that both have; differences in percentage points:",
        "",
        f"{'sparsity':>9} {'reset':>6} {'published':>10} {'ours':>7} {'difference':>11}",
        *map(_row, compared),
        "",
        f"Difference over {quantity(len(compared), 'cell')}: mean {_points(fmean(apart))}, "
        f"from {_points(min(apart))} to {_points(max(apart))} points.",
    ]
    if all(one.replicates == 1 for one in compared):
        lines.append("One replicate: what another seed would give is not known.")
    return lines


def _row(one: Compared) -> str:
    text = (
        f"{level(one.sparsity):>9} {epoch(one.reset_epoch):>6} {one.published:10.2f} "
        f"{one.ours:7.2f} {_points(one.difference):>11}"
    )
    if one.interval is None:
        return text
    span = f"{one.interval.low:.2f} to {one.interval.high:.2f}"
    return f"{text}   ours {span} (95 % interval, {quantity(one.replicates, 'replicate')})"


def _points(difference: float) -> str:
    return points(difference / 100, places=2)


def _lacking(lacking: tuple[Lacking, ...]) -> list[str]:
    if not lacking:
        return []
    lines = ["", f"{quantity(len(lacking), 'published cell')} that the run lacks:"]
    in_order = sorted(lacking, key=lambda one: (one.why, one.sparsity, one.reset_epoch))
    for (why, sparsity), cells in groupby(in_order, key=lambda one: (one.why, one.sparsity)):
        resets = ", ".join(epoch(cell.reset_epoch) for cell in cells)
        lines.append(f"  {level(sparsity)} at reset {resets}: {why}")
    if any(one.why == NOT_ASKED_FOR for one in lacking):
        lines.append("  (to ask: add to prune.sparsities and reset.epochs, and sweep again)")
    return [*lines, ""]


def _conditions(comparison: Comparison) -> list[str]:
    lines = []
    differences = comparison.differences
    if differences:
        lines += ["", "Warning: not made alike, so part of a difference may come from this:"]
        lines += [f"  {one.key}: {one.ours}, theirs {one.published}" for one in differences]
    said = ", ".join(f"{key} {value}" for key, value in comparison.not_given.items())
    return [*lines, "", f"Not given with the published figures, and here: {said}."]
