"""How far a sweep is, in lines that read the same on a terminal and in a log."""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ltray.analysis.results import Rows, is_matching
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
        margin: of report.margin.
    """

    def __init__(
        self,
        tickets: Sequence[Ticket],
        rows: Rows,
        trajectories: Mapping[int, Trajectory],
        margin: float,
        say: Say,
    ) -> None:
        self._keys = {key(ticket) for ticket in tickets}
        self._rows = rows
        self._margin = margin
        self._say = say
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
        for row in epoch_rows:
            ticket = row["replicate"], row["ticket"]
            self._steps_left[ticket] = self._ends[row["replicate"]] - row["step"]
        for ticket in ended:
            self._steps_left[ticket] = 0
        if self._began is None:  # from here: before, workers were starting, not training
            self._began = time.monotonic(), sum(self._steps_left.values())
        all_ended = self._keys <= self._rows.tickets.keys()
        if all_ended or time.monotonic() - self._said > SAID_EVERY_SECONDS:
            self._said = time.monotonic()
            self._say(self._line())

    def _line(self) -> str:
        ended = [self._rows.tickets[one] for one in self._keys if one in self._rows.tickets]
        matching = [row for row in ended if is_matching(row, self._margin)]
        counts = f"{len(ended)}/{len(self._keys)} tickets, {len(matching)} matching"
        return ", ".join(part for part in (counts, _sparsest(matching), self._time_left()) if part)

    def _time_left(self) -> str:
        assert self._began is not None, "a line is said only about reports"
        then, left_then = self._began
        left = sum(self._steps_left.values())
        if not left or left == left_then:
            return ""
        seconds = (time.monotonic() - then) / (left_then - left) * left
        return f"about {duration(seconds)} left"


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
