"""How far a sweep is, in lines that read the same on a terminal and in a log."""

import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ltray.analysis.columns import Row
from ltray.analysis.results import Rows, is_matching
from ltray.cluster.metrics import SweepSeries
from ltray.experiment import as_written
from ltray.lottery.tickets import Ticket, TicketKey, key
from ltray.lottery.trajectory import Trajectory
from ltray.say import Say

SAID_EVERY_SECONDS = 5.0


class Progress:
    """Counts a launch's tickets and steps, and says from time to time what there is to know.

    Args:
        tickets: of the current grid.
        rows: the run's, kept up to date by the sweep.
        trajectories: replicate -> its dense run.
        margin: of report.margin; None where the tickets are not judged by their dense run.
        series: where the same figures are kept for Prometheus.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (what there is to count, and who is told)
        self,
        tickets: Sequence[Ticket],
        rows: Rows,
        trajectories: Mapping[int, Trajectory],
        margin: float | None,
        say: Say,
        series: SweepSeries,
    ) -> None:
        self._keys = {key(ticket) for ticket in tickets}
        self._rows = rows
        self._margin = margin
        self._say = say
        self._series = series
        self._steps_left = {
            key(ticket): _steps(ticket, trajectories[ticket.replicate])
            for ticket in tickets
            if key(ticket) not in rows.tickets
        }
        self._ends = {number: one.total_steps for number, one in trajectories.items()}
        self._began: tuple[float, int] | None = None
        self._said = time.monotonic()

    def see(self, epoch_rows: Collection[Mapping[str, Any]], ended: Collection[TicketKey]) -> None:
        """Take in a report; says a line when the last one is some seconds old."""
        if self._began is None:
            # When the pack that reports first began to train: before, workers were starting. What
            # others have done since then is told by their first reports, soon after.
            seconds = {(row["replicate"], row["ticket"]): row["seconds"] for row in epoch_rows}
            then = time.monotonic() - sum(seconds.values())
            self._began = then, sum(self._steps_left.values())
        for row in epoch_rows:
            ticket = row["replicate"], row["ticket"]
            self._steps_left[ticket] = self._ends[row["replicate"]] - row["step"]
        for ticket in ended:
            self._steps_left[ticket] = 0
        all_ended = self._keys <= self._rows.tickets.keys()
        if all_ended or time.monotonic() - self._said > SAID_EVERY_SECONDS:
            self._said = time.monotonic()
            self._say(self._line())
            self.show()

    def show(self) -> None:
        """Put the figures where Prometheus finds them."""
        show(self._keys, self._rows, self._margin, self._series)
        self._series.time_left(self._seconds_left())

    def _line(self) -> str:
        ended, matching = _ended(self._keys, self._rows, self._margin)
        counts = f"{len(ended)}/{len(self._keys)} tickets"
        judged = "" if self._margin is None else f"{len(matching)} matching"
        seconds = self._seconds_left()
        left = f"about {duration(seconds)} left" if seconds else ""
        return ", ".join(part for part in (counts, judged, _sparsest(matching), left) if part)

    def _seconds_left(self) -> float | None:
        """As long as the steps that are left take at the pace so far; None before the first."""
        if self._began is None:
            return None
        then, left_then = self._began
        left = sum(self._steps_left.values())
        if not left or left == left_then:
            return None
        return (time.monotonic() - then) / (left_then - left) * left


def show(
    keys: Collection[TicketKey], rows: Rows, margin: float | None, series: SweepSeries
) -> None:
    """Put the tickets of a grid, counted, where Prometheus finds them."""
    ended, matching = _ended(keys, rows, margin)
    statuses = Counter(row["status"] for row in ended)
    counts = {status: statuses[status] for status in ("done", "diverged", "failed")}
    series.tickets({**counts, "left": len(keys) - len(ended)}, len(matching))


def _ended(
    keys: Collection[TicketKey], rows: Rows, margin: float | None
) -> tuple[list[Row], list[Row]]:
    """The rows of the tickets that have ended, and of those of them that match, no controls."""
    ended = [rows.tickets[one] for one in keys if one in rows.tickets]
    if margin is None:
        return ended, []
    tickets = (row for row in ended if row["control"] == "none")
    return ended, [row for row in tickets if is_matching(row, margin)]


def _steps(ticket: Ticket, trajectory: Trajectory) -> int:
    """Steps that a ticket needs from its beginning."""
    if ticket.reset_schedule == "restart":
        return trajectory.total_steps
    return trajectory.total_steps - round(ticket.reset_epoch * trajectory.steps_per_epoch)


def _sparsest(matching: Sequence[Mapping[str, Any]]) -> str:
    if not matching:
        return ""
    best = max(matching, key=lambda row: (row["sparsity"], row["val_top1"]))
    point = f"{as_written(best['sparsity'])} at reset point {as_written(best['reset_epoch'])}"
    return (
        f"sparsest {point} (validation {best['val_top1']:.4f}, dense {best['dense_val_top1']:.4f})"
    )


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
