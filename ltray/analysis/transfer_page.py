"""transfer.html: the tickets of all sources on one target, side by side."""

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from ltray.analysis import figures
from ltray.analysis.correct import PerImage
from ltray.analysis.differences import beyond_chance
from ltray.analysis.drawing import (
    DASH_GLYPHS,
    DASHES,
    GLYPHS,
    INK,
    density_axis,
    look,
    new_axes,
    percent_axis,
    styled,
    svg_of,
)
from ltray.analysis.figures import SPLIT_NAMES, ComparedLine
from ltray.analysis.grid import Cell
from ltray.analysis.statistics import over_of
from ltray.analysis.templates import rendered
from ltray.analysis.transfer import AGAINST, Compared, Moved, Target, between
from ltray.analysis.transfer_answers import Finding, Judged
from ltray.analysis.wording import epoch
from ltray.files import write_whole
from ltray.lottery.mask_names import has_masks_by_reset_point

SPLITS: tuple[Literal["val", "test"], ...] = ("val", "test")


def write_transfer(judged: Judged) -> Path:
    """Write transfer.html of a target; returns its path."""
    page = judged.target.folder.transfer_page
    write_whole(page, rendered("transfer.html.jinja", content(judged)).encode())
    return page


def content(judged: Judged) -> dict[str, Any]:
    """What the template needs to know."""
    experiment, beside = judged.target.experiment, judged.beside
    moves = [one.moved for one in judged.findings]
    return {
        "target": judged.target,
        "experiment": experiment,
        "margin": experiment.report.margin,
        "against": AGAINST,
        "over": over_of(experiment),
        "unreadable": _unreadable([beside.per_image, *(one.per_image for one in moves)]),
        "sections": [_section(number, one, beside) for number, one in enumerate(judged.findings)],
        "sources": _sources(moves),
        "between": _between(moves),
        "glyphs": GLYPHS,
        "dashes": DASH_GLYPHS,
    }


def _unreadable(every: Sequence[PerImage]) -> list[tuple[str, str]]:
    """Files of images that could not be read, and what is wrong with each."""
    return sorted((str(path), found) for one in every for path, found in one.unreadable.items())


def _section(number: int, finding: Finding, target: Target) -> dict[str, Any]:
    """What is said of one source, which is the number-th."""
    moved, every = finding.moved, finding.every
    told = {
        kind: [one.differences[kind] for one in every if kind in one.differences]
        for kind in AGAINST
    }
    return {
        "moved": moved,
        "counts": moved.counts(),
        "every": every,
        "answers": finding.answers,
        "best": finding.best,
        "beyond": {
            kind: beyond_chance(differences, moved.over) for kind, differences in told.items()
        },
        "same_point": _same_point(number, moved, every),
        "figures": _figures(number, moved, target) if every and target.fresh else [],
    }


def _same_point(number: int, moved: Moved, every: Sequence[Compared]) -> str:
    """Validation of each reset point's tickets and dense network, and of the target's own."""
    if not every:
        return ""
    own = {one.own.sparsity: one.own for one in every if one.own is not None}
    with styled():
        figure, axes = new_axes()
        for at, point in enumerate(moved.reset_epochs):
            line = [one.cell for one in every if one.cell.reset_epoch == point]
            axes.plot(_kept(line), [cell.mean("val_top1") for cell in line], **look(at))
            dense = moved.dense[point]
            if dense.comparable:
                color = look(at)["color"]
                axes.axhline(dense.mean("val_top1"), color=color, linewidth=1, linestyle="--")
        best = list(own.values())
        top1 = [cell.mean("val_top1") for cell in best]
        axes.plot(_kept(best), top1, color=INK, linewidth=1.2, marker=".")
        density_axis(axes, _kept([*(one.cell for one in every), *best]))
        percent_axis(axes)
        axes.set_ylabel("validation top-1")
        alt = (
            f"Validation top-1 against the share of weights kept for tickets of {moved.name}, a "
            "line for each reset point, broken for the dense network from there; in ink the "
            "target's own tickets. The table below has the numbers."
        )
        return svg_of(figure, f"same-point-{number}", alt)


def _figures(number: int, moved: Moved, target: Target) -> list[tuple[str, str]]:
    """(split, figure) of one source: its tickets and controls over density, and fresh training."""
    drawn = list(moved.control("random_init").values())
    if not has_masks_by_reset_point(moved.what.tickets):  # one stands beside all reset points
        drawn = [cell for cell in drawn if cell.reset_epoch == moved.reset_epochs[0]]
    controls = {
        "shuffled_mask": list(moved.control("shuffled_mask").values()),
        "random_init": drawn,
    }
    found = []
    for split in SPLITS:
        level = fmean(row[f"{split}_top1"] for row in target.fresh)
        tickets = list(moved.tickets.values())
        svg = figures.accuracy_against_density(tickets, controls, level, split, None)
        own_ids = svg.replace(f"accuracy-{split}", f"accuracy-{split}-{number}")
        found.append((SPLIT_NAMES[split], own_ids))
    return found


def _sources(moves: Sequence[Moved]) -> list[tuple[str, str]]:
    """(reset point, figure) of the points that all of several sources have, and have finished."""
    found = []
    for point in moves[0].reset_epochs if len(moves) > 1 else ():
        lines = [line for one in moves if (line := _line(one, point)) is not None]
        if len(lines) == len(moves):
            found.append((epoch(point), figures.compared_accuracy(epoch(point), lines)))
    return found


def _line(moved: Moved, point: float) -> ComparedLine | None:
    """None where it has no such reset point, or nothing is done there."""
    done = [cell for (_, at), cell in moved.tickets.items() if at == point and cell.comparable]
    dense = moved.dense.get(point)
    if not done or dense is None or not dense.comparable:
        return None
    controls = {
        kind: [cell for (_, at), cell in moved.control(kind).items() if at == point]
        for kind in DASHES
    }
    return ComparedLine(moved.name, done, controls, dense.mean("val_top1"))


def _between(moves: Sequence[Moved]) -> list[dict[str, Any]]:
    """Each other source against the one with the fewest images."""
    sized = sorted(moves, key=lambda one: (one.images is None, one.images or 0))
    found = []
    for other in sized[1:]:
        differences = between(sized[0], other)
        beyond = beyond_chance(list(differences.values()), other.over)
        both = {"one": sized[0], "other": other}
        found.append({**both, "differences": differences, "beyond": beyond})
    return found


def _kept(line: Sequence[Cell]) -> list[float]:
    return [cell.mean("density_kept") for cell in line]
