"""How far a run is, from its files alone: from any machine that sees the root, without Ray."""

import time
from collections import Counter
from collections.abc import Iterator

from ltray.analysis.results import Rows, collect
from ltray.cluster.lease import LAPSES_AFTER_SECONDS, holder
from ltray.cluster.progress import duration
from ltray.files import is_there, names_below
from ltray.lottery.ready import wanted
from ltray.lottery.tickets import TicketKey, key
from ltray.run import Run


def status(run: Run) -> tuple[list[str], int]:
    """Lines to read, and how many tickets of the grid have failed.

    Raises:
        LtrayError: a file of the run is damaged.
    """
    rows = collect(run.folder)
    keys = [key(ticket) for ticket in wanted(run.experiment, rows.tickets)]
    rows_of_grid = [rows.tickets[one] for one in keys if one in rows.tickets]
    counts = Counter(row["status"] for row in rows_of_grid)
    said = [f"{counts[status]} {status}" for status in ("done", "diverged", "failed")]
    left = [one for one in keys if one not in rows.tickets]
    lines = [
        f"{run.folder.path.name}: {len(keys)} tickets{_by_now(run)}: {', '.join(said)},"
        f" {len(left)} to train, {len(_begun(run, left))} of them begun",
        *_dense_lines(run, rows),
        _driver_line(run),
    ]
    failed = [row for row in rows_of_grid if row["status"] == "failed"]
    return [*lines, *(f"failed: {row['ticket']}: {row['error']}" for row in failed)], len(failed)


def _by_now(run: Run) -> str:
    return " by now" if run.experiment.prune.search == "matching" else ""


def _begun(run: Run, left: list[TicketKey]) -> set[TicketKey]:
    """Those of some tickets whose training has begun at least once."""
    found = set()
    for number in {replicate for replicate, _ in left}:
        folder = run.folder.replicate(number)
        there = set(names_below(folder.tickets))
        for one in left:
            attempts = f"{one[1]}/{folder.ticket(one[1]).attempts.name}"
            if one[0] == number and attempts in there:
                found.add(one)
    return found


def _dense_lines(run: Run, rows: Rows) -> Iterator[str]:
    for number in range(run.experiment.replicates):
        row = rows.dense.get(number)
        if row is not None:
            accuracy = f"validation {row['val_top1']:.4f}, test {row['test_top1']:.4f}"
            yield f"dense run, replicate {number}: done, {accuracy}"
        elif is_there(run.folder.replicate(number).dense_attempts):
            yield f"dense run, replicate {number}: begun"
        else:
            yield f"dense run, replicate {number}: not begun"


def _driver_line(run: Run) -> str:
    driver = holder(run.folder)
    if driver is None:
        return "no driver is at work"
    silent = max(0.0, time.time() - driver["renewed_at"])
    who = f"process {driver['pid']} on {driver['host']}"
    if silent < LAPSES_AFTER_SECONDS:
        return f"driver: {who}, {duration(silent)} ago: {driver['said']}"
    return (
        f"driver: {who}, silent for {duration(silent)}: the same command takes over if it is dead"
    )
