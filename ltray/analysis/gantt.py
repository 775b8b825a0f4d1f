"""The Gantt chart of a run: when each slot trained, and why it did not."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from math import ceil
from typing import TYPE_CHECKING

from ltray.analysis.drawing import INK, LINES, PAPER, RULE, new_axes, styled, svg_of
from ltray.analysis.measured import Reason, Retrainings
from ltray.analysis.speedup_figures import spread, time_axis
from ltray.analysis.trials import Slot, Trial
from ltray.analysis.wording import duration, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_SLOTS = 40
MOST_TRIALS = 2000
# Which of the page's line colours; those of replicates are not among those of reasons.
REPLICATE_LINES = (0, 2, 3, 5)
REASON_LINES: dict[Reason, int] = {"start-up": 4, "waiting": 6, "failures": 7, "straggler": 1}
IDLE_ALPHA = 0.45

_WIDE_INCHES = 9.6
_BINS = 120
_LONGEST_HOST = 20


@dataclass(frozen=True)
class _Bar:
    """From `left` to `right` seconds in a row, filled from its foot to a share of its height."""

    row: int
    left: float
    right: float
    share: float = 1.0


@dataclass(frozen=True)
class _Places:
    """Where slots and moments lie in a figure: launches stand one after the other.

    Attributes:
        slots: from the top; one of each name.
        rows: slot name -> row.
        offsets: seconds from the left at which each launch begins; one more, the end.
    """

    slots: list[Slot]
    rows: dict[str, int]
    offsets: list[float]

    def seconds(self, launch: int, found: Retrainings, moment: datetime) -> float:
        return self.offsets[launch] + (moment - found.spans[launch].start).total_seconds()


def is_grouped(found: Retrainings) -> bool:
    """Whether there is too much for a bar a trial, so that `gantt` shows shares of slots."""
    slots = {slot.name for span in found.spans for slot in span.slots}
    trials = sum(len(span.trials) for span in found.spans)
    return len(slots) > MOST_SLOTS or trials > MOST_TRIALS


def gantt(found: Retrainings) -> str:
    """When each slot trained, and why it did not, launches one after the other.

    Of more than 40 slots or 2,000 trials, groups of slots and the share of each that trained.
    """
    places = _places(found)
    grouped = is_grouped(found)
    size = max(1, ceil(len(places.rows) / MOST_SLOTS)) if grouped else 1
    names = _row_names(places.slots, size)
    with styled():
        tall = 0.75 + len(names) * (0.42 if len(names) <= 8 else 0.23)
        figure, axes = new_axes((_WIDE_INCHES, tall))
        if grouped:
            _draw_shares(axes, found, places, size)
        else:
            _draw_trials(axes, found, places)
        for end in places.offsets[1:-1]:
            axes.axvline(end, color=INK, linewidth=1, linestyle=":")
        axes.grid(visible=False, axis="y")
        axes.set_axisbelow(True)
        axes.set_yticks(range(len(names)), names, parse_math=False)
        axes.set_ylim(len(names) - 0.45, -0.55)
        time_axis(axes, places.offsets[-1])
        return svg_of(figure, "gantt", _gantt_words(found, len(places.rows)))


def _places(found: Retrainings) -> _Places:
    slots = {slot.name: slot for span in found.spans for slot in span.slots}
    lengths = [span.makespan.total_seconds() for span in found.spans]
    rows = {name: row for row, name in enumerate(slots)}
    return _Places(list(slots.values()), rows, list(accumulate(lengths, initial=0.0)))


def _row_names(slots: Sequence[Slot], size: int) -> list[str]:
    if size == 1:
        return [f"{_short(slot.node)} {slot.place}" for slot in slots]
    firsts = range(0, len(slots), size)
    return [f"slots {first + 1} to {min(first + size, len(slots))}" for first in firsts]


def _short(node: str) -> str:
    """A host without its domain; an address as it is."""
    host = node if node.replace(".", "").isdecimal() else node.partition(".")[0]
    return host if len(host) <= _LONGEST_HOST else f"…{host[1 - _LONGEST_HOST :]}"


def _draw_trials(axes: "Axes", found: Retrainings, places: _Places) -> None:
    for reason, line in REASON_LINES.items():
        bars = list(_idle_bars(found, places, reason))
        _draw_bars(axes, bars, LINES[line], alpha=IDLE_ALPHA)
    by_line = defaultdict(list)
    for bar, trial in _trial_bars(found, places):
        by_line[REPLICATE_LINES[trial.replicate % len(REPLICATE_LINES)]].append(bar)
    for line, bars in sorted(by_line.items()):
        _draw_bars(axes, bars, LINES[line])


def _draw_shares(axes: "Axes", found: Retrainings, places: _Places, size: int) -> None:
    """A row's filled height is the share of its slots that trained, in each of 120 times."""
    width = places.offsets[-1] / _BINS or 1.0
    rows = ceil(len(places.rows) / size)
    filled = [[0.0] * _BINS for _ in range(rows)]
    for bar, _ in _trial_bars(found, places):
        for number, part in spread(bar.left, bar.right, width, _BINS):
            filled[bar.row // size][number] += part / width
    for number, row in enumerate(filled):
        slots = min(size, len(places.rows) - number * size)
        back = [_Bar(number, 0.0, places.offsets[-1])]
        _draw_bars(axes, back, RULE, alpha=0.5)
        bars = [
            _Bar(number, place * width, (place + 1) * width, share / slots)
            for place, share in enumerate(row)
            if share
        ]
        _draw_bars(axes, bars, LINES[0], edge=0.0)


def _trial_bars(found: Retrainings, places: _Places) -> Iterator[tuple[_Bar, Trial]]:
    for launch, span in enumerate(found.spans):
        for slot in span.slots:
            for trial in slot.trials:
                ends = (places.seconds(launch, found, at) for at in (trial.start, trial.end))
                yield _Bar(places.rows[slot.name], *ends), trial


def _idle_bars(found: Retrainings, places: _Places, reason: Reason) -> Iterator[_Bar]:
    for launch, uses in enumerate(found.uses):
        for use in uses:
            for one in use.idle:
                if one.reason == reason:
                    ends = (places.seconds(launch, found, at) for at in (one.start, one.end))
                    yield _Bar(places.rows[use.slot.name], *ends)


def _draw_bars(
    axes: "Axes", bars: Sequence[_Bar], colour: str, alpha: float = 1.0, edge: float = 0.5
) -> None:
    """All bars as one path: a path each would make the page several times as large."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    if not bars:
        return
    corners = [corner for bar in bars for corner in _corners(bar)]
    codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY] * len(bars)
    look_of = {"facecolor": colour, "edgecolor": PAPER if edge else "none", "linewidth": edge}
    axes.add_patch(PathPatch(Path(corners, codes), alpha=alpha, **look_of))


def _corners(bar: _Bar) -> list[tuple[float, float]]:
    foot, head = bar.row + 0.38, bar.row + 0.38 - 0.76 * bar.share
    around = [(bar.left, foot), (bar.left, head), (bar.right, head), (bar.right, foot)]
    return [*around, around[0]]


def _gantt_words(found: Retrainings, slots: int) -> str:
    trials = quantity(sum(len(span.trials) for span in found.spans), "trial")
    return (
        f"When each of {quantity(slots, 'slot')} trained: {trials} in "
        f"{duration(found.makespan.total_seconds())}, {100 * found.efficiency:.1f} % of the "
        "slots' time busy."
    )
