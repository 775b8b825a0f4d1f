"""The barrier between two copies of a ticket, by reset point: table, figure and page."""

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from statistics import fmean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ltray.analysis.barriers import STABLE, Barrier, barriers, first_stable
from ltray.analysis.columns import TIME, Row
from ltray.analysis.drawing import GLYPHS, INK, look, new_axes, percent_axis, styled, svg_of
from ltray.analysis.results import Rows
from ltray.analysis.templates import rendered
from ltray.analysis.wording import epoch, level
from ltray.experiment import Experiment, as_written
from ltray.files import write_whole
from ltray.lottery.pairs import Pair, pairs_of, with_copies
from ltray.lottery.tickets import key
from ltray.run import Run
from ltray.training.error_line import measured_line

APART = 0.05  # of the way from one reset point to the next in a figure
NUMBER = pa.float64()
SCHEMA = pa.schema(
    [
        ("replicate", pa.int64()),
        ("ticket", pa.string()),
        ("other", pa.string()),
        ("sparsity", NUMBER),
        ("reset_epoch", NUMBER),
        ("at", pa.list_(NUMBER)),
        *[
            (f"{split}_{what}", kind)
            for split in ("val", "test")
            for what, kind in (
                ("errors", pa.list_(NUMBER)),
                ("barrier", NUMBER),
                ("barrier_low", NUMBER),
                ("barrier_high", NUMBER),
            )
        ],
        ("device", pa.string()),
        ("node", pa.string()),
        ("seconds", NUMBER),
        ("finished_at", TIME),
    ]
)


Shown = Mapping[float, Sequence[Barrier]]
"""sparsity -> its barriers that were measured, by reset point"""


def write_stability(run: Run, pairs: Sequence[Pair], rows: Rows) -> int:
    """Write stability/barriers.parquet and stability/report.html.

    Args:
        pairs: that were asked for; others of the experiment that were measured before are shown
            beside them.
        rows: of the run.

    Returns:
        how many of the pairs should have a line, and have none: a copy that diverged has none.
    """
    records = {pair.name: measured_line(run, pair) for pair in _every(run.experiment, pairs)}
    found = {name: None if record is None else record["row"] for name, record in records.items()}
    asked = {pair.name for pair in pairs}
    shown = [
        pair for pair in _every(run.experiment, pairs) if pair.name in asked or found[pair.name]
    ]
    measured = [row for row in found.values() if row is not None]
    write_whole(run.folder.stability.table, _table(measured))
    page = rendered("stability.html.jinja", _content(run, shown, found, rows))
    write_whole(run.folder.stability.report, page.encode())
    return sum(found[pair.name] is None and not _diverged(pair, rows) for pair in pairs)


def _every(experiment: Experiment, asked: Sequence[Pair]) -> list[Pair]:
    """The pairs of all levels that can be asked for, and of those that were."""
    one_shot = experiment.prune.style == "one_shot"
    parts = with_copies(experiment, experiment.prune.sparsities if one_shot else ())
    every = [pair for part in parts for pair in pairs_of(part)]
    return list({pair.name: pair for pair in (*every, *asked)}.values())


def _diverged(pair: Pair, rows: Rows) -> bool:
    ended = [rows.tickets.get(key(ticket)) for ticket in (pair.one, pair.other)]
    return any(row is not None and row["status"] == "diverged" for row in ended)


def _table(measured: Sequence[Row]) -> bytes:
    columns = [
        pa.array([row[column.name] for row in measured], pa.string()).cast(TIME)
        if column.type == TIME
        else pa.array([row[column.name] for row in measured], column.type)
        for column in SCHEMA
    ]
    buffer = BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, schema=SCHEMA), buffer)
    return buffer.getvalue()


def _content(
    run: Run, pairs: Sequence[Pair], found: Mapping[str, Row | None], rows: Rows
) -> dict[str, Any]:
    every = barriers(pairs, found, rows)
    sparsities = sorted({one.sparsity for one in every})
    measured = {
        sparsity: [one for one in every if one.sparsity == sparsity and one.rows]
        for sparsity in sparsities
    }
    shown = {sparsity: line for sparsity, line in measured.items() if line}
    return {
        "run": run,
        "experiment": run.experiment,
        "barriers": every,
        "names": {sparsity: _name(sparsity) for sparsity in sparsities},
        "first_stable": {
            sparsity: first_stable([one for one in every if one.sparsity == sparsity])
            for sparsity in shown
        },
        "stable": STABLE,
        "glyphs": GLYPHS,
        "by_reset_point": _by_reset_point(shown) if shown else None,
        "accuracy": _accuracy(shown) if shown else None,
        "lines": [
            (_name(sparsity), _along(line, shown, number))
            for number, (sparsity, line) in enumerate(shown.items())
        ],
        "reset_points": _points(shown),
        "over": sorted({one.over for one in every if one.rows}),
        "command": _command(run, sparsities),
    }


def _name(sparsity: float) -> str:
    return f"tickets at {level(sparsity)}" if sparsity else "the dense network"


def _command(run: Run, sparsities: Sequence[float]) -> str:
    asked = " ".join(as_written(one) for one in sparsities if one)
    return f"python -m ltray.stability {run.folder.path}{' --sparsities ' + asked if asked else ''}"


def _by_reset_point(shown: Shown) -> str:
    """Barriers with their intervals over reset points, a line for each sparsity."""
    with styled():
        figure, axes = new_axes()
        for number, line in enumerate(shown.values()):
            # Beside each other, so that no interval hides another.
            places = [place + APART * number for place in _places(line, shown)]
            axes.plot(places, [one.height("val") for one in line], **look(number))
            for place, one in zip(places, line, strict=True):
                if (found := one.interval("val")) is not None:
                    color = look(number)["color"]
                    axes.vlines(place, found.low, found.high, color=color, alpha=0.5)
        axes.axhline(STABLE, linewidth=1, linestyle=":", color=INK)
        _reset_axis(axes, shown)
        axes.set_ylabel("error barrier, validation")
        axes.set_ylim(0, 1.05 * max(STABLE, axes.dataLim.y1))
        said = _in_words(shown, lambda one: one.height("val"))
        return svg_of(figure, "barriers", f"Error barrier by reset point. {said}.")


def _accuracy(shown: Shown) -> str:
    """The copies' mean validation accuracy over reset points."""
    with styled():
        figure, axes = new_axes()
        for number, line in enumerate(shown.values()):
            axes.plot(_places(line, shown), [fmean(one.top1) for one in line], **look(number))
        _reset_axis(axes, shown)
        axes.set_ylabel("validation top-1 of the copies")
        said = _in_words(shown, lambda one: fmean(one.top1))
        return svg_of(figure, "copies", f"Accuracy of the copies by reset point. {said}.")


def _in_words(shown: Shown, value: Callable[[Barrier], float]) -> str:
    """Every value that a figure shows, for those who do not see it."""
    return "; ".join(
        f"{_name(sparsity)}: "
        + ", ".join(f"{100 * value(one):.1f} % at {epoch(one.reset_epoch)}" for one in line)
        for sparsity, line in shown.items()
    )


def _along(line: Sequence[Barrier], shown: Shown, number: int) -> str:
    """The error along the line between the copies, for each reset point."""
    with styled():
        figure, axes = new_axes()
        for place, one in zip(_places(line, shown), line, strict=True):
            axes.plot(one.rows[0]["at"], one.errors, **look(place))
        percent_axis(axes)
        axes.set_xlabel("from the first copy (0) to the other (1)")
        axes.set_ylabel("error, validation")
        points = ", ".join(epoch(one.reset_epoch) for one in line)
        alt = f"Validation error along the line between copies reset to epochs {points}."
        return svg_of(figure, f"along-{number}", alt)


def _points(shown: Shown) -> list[float]:
    return sorted({one.reset_epoch for line in shown.values() for one in line})


def _places(line: Sequence[Barrier], shown: Shown) -> list[int]:
    """Reset points stand side by side at equal distances: most lie close to the beginning."""
    points = _points(shown)
    return [points.index(one.reset_epoch) for one in line]


def _reset_axis(axes: Any, shown: Shown) -> None:
    points = _points(shown)
    axes.set_xticks(range(len(points)), [epoch(point) for point in points])
    axes.set_xlim(-0.3, len(points) - 0.7)
    axes.set_xlabel("reset to epoch")
    percent_axis(axes)
