"""The parallel part of a sweep: packs as trials, in rounds, until every ticket has ended."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

from ltray.analysis.columns import TICKET_COLUMNS
from ltray.analysis.results import Rows, write_tables
from ltray.cluster.launches import Launch
from ltray.cluster.metrics import SweepSeries
from ltray.cluster.progress import Progress
from ltray.cluster.slots import Slots
from ltray.experiment import Experiment, as_written
from ltray.files import is_there, read_json, remove, write_json
from ltray.given import GivenExperiment, trains_chains
from ltray.lottery.ready import ready, searches, wanted
from ltray.lottery.tickets import (
    Pack,
    Ticket,
    TicketKey,
    cells_of,
    chains,
    grid,
    key,
    ticket_columns,
)
from ltray.lottery.trajectory import Trajectory
from ltray.patience import check_room, is_storage_error, patiently
from ltray.run import Run
from ltray.say import Say

TABLES_EVERY_SECONDS = 60.0
MOST_DISPLACED = 10


class Retraining:
    """Runs the packs that are ready, takes their rows in, asks again.

    A pack whose trial fails for good is run ticket by ticket, and a ticket whose own trial fails
    for good is recorded as failed.

    Args:
        launch: what it asks of processes that train, and what their reports are handed on to.
        trajectories: replicate -> its dense run.
        rows: the run's; kept up to date with every report.
        slots: what trials run on.
        storage: where Tune's files of this launch go.
        series: where Prometheus finds how far it is.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (what a round needs)
        self,
        run: Run,
        launch: Launch,
        trajectories: Mapping[int, Trajectory],
        rows: Rows,
        slots: Slots,
        storage: Path,
        say: Say,
        series: SweepSeries,
    ) -> None:
        self.run = run
        self.launch = launch
        self.trajectories = trajectories
        self.rows = rows
        self.slots = slots
        self.storage = storage
        self.tables_written = time.monotonic()
        self._say = say
        self._series = series
        self._said_cpu = self._said_unread = False
        self._said_backends: set[tuple[str, str]] = set()

    def finish(self) -> None:
        """Train until every ticket of the grid is done, diverged or failed."""
        self._forget_failures()
        self._end_chains()  # of a grid that grew, or a driver that was killed before it did so
        self.progress = self._new_progress()
        alone: set[TicketKey] = set()
        numbers = count()
        displaced: Counter[str] = Counter()  # how often a pack met a broken GPU
        while packs := ready(self.run.experiment, self.rows.tickets, alone):
            self.slots.keep_from_broken()
            errors = self._round(packs, next(numbers))
            for pack in packs:
                patiently(partial(self._collect, pack), self.run.folder.path)
                if pack.name in self.slots.displaced and displaced[pack.name] < MOST_DISPLACED:
                    displaced[pack.name] += 1
                    continue
                left = [ticket for ticket in pack.tickets if key(ticket) not in self.rows.tickets]
                reason = errors.get(pack.name, "its trial ended without a result")
                if left and len(pack.tickets) == 1:
                    self._fail(left[0], pack.name, "failed", reason)
                alone |= {key(ticket) for ticket in left}
            self._end_chains()
            if self.run.experiment.prune.search == "matching":
                self._say_search()
                self.progress = self._new_progress()  # of what is asked for now
            else:
                self.progress.show()

    def _say_search(self) -> None:
        """Say what the searches have come to, and what they ask for next."""
        for one in searches(self.run.experiment, self.rows.tickets):
            levels = ", ".join(map(as_written, one.to_come))
            found = "none matches" if one.found is None else f"{as_written(one.found)} matches"
            now = f"{found}, the answer" if one.ended else f"{found} so far; next {levels}"
            self._say(f"search, reset point {as_written(one.reset_epoch)}: {now}")

    def _new_progress(self) -> Progress:
        progress = Progress(
            wanted(self.run.experiment, self.rows.tickets),
            self.rows,
            self.trajectories,
            _margin(self.run.experiment),
            self._say,
            self._series,
        )
        progress.show()
        return progress

    def _round(self, packs: list[Pack], number: int) -> dict[str, str]:
        from ltray.cluster.trials import pack_trial
        from ltray.cluster.tuning import run_trials

        by_name = {pack.name: pack for pack in packs}
        return run_trials(
            partial(pack_trial, run=self.run, wanted=self.launch.demands, packs=by_name),
            "pack",
            list(by_name),
            slots=self.slots,
            storage=self.storage / f"round-{number}",
            max_failures=self.run.experiment.sweep.max_failures,
            on_report=self._on_report,
            make_tracker=self.launch.make_tracker,
        )

    def _on_report(self, report: Mapping[str, Any]) -> None:
        for record in report["records"]:
            self.rows.put(record["row"], record["epochs"])
            self._check_device(record["row"])
            self._say_dead_layers(record["row"])
            self._say_backend(record["row"])
        ended = [(one["row"]["replicate"], one["row"]["ticket"]) for one in report["records"]]
        self.progress.see(report["rows"], ended)
        if time.monotonic() - self.tables_written > TABLES_EVERY_SECONDS:
            self.tables_written = time.monotonic()
            self._write_tables()

    def _write_tables(self) -> None:
        """A storage that fails now is written to the next time."""
        try:
            write_tables(self.run.folder, self.rows, self.run.experiment.report.margin)
        except Exception as error:
            check_room(error, self.run.folder.path)
            if not is_storage_error(error):
                raise
            self._say(f"warning: the tables could not be written this time: {error}")

    def _check_device(self, row: Mapping[str, Any]) -> None:
        """Say once that torch does not see the GPUs that trials are given, or NVML does not."""
        if self.slots.resources["gpu"] and row["device"] == "cpu" and not self._said_cpu:
            self._said_cpu = True
            self._say("warning: torch sees no GPU in the trials, so they compute on the CPU")
        if row["device"] != "cpu" and row["gpu_utilisation"] is None and not self._said_unread:
            self._said_unread = True
            self._say(
                f"warning: NVML could not read the GPU of a trial on {row['node']}, so "
                "gpu_utilisation and gpu_memory_bytes stay empty; the trial's log says why"
            )

    def _say_dead_layers(self, row: Mapping[str, Any]) -> None:
        """Of a chain, whose trial makes its masks; others are told before they are trained."""
        by_chain = trains_chains(self.run.experiment) and row["control"] == "none"
        if by_chain and row["dead_layers"]:
            self._say(f"{row['ticket']}: nothing is left of {', '.join(row['dead_layers'])}")

    def _say_backend(self, row: Mapping[str, Any]) -> None:
        """Say what `auto` measured where it first took a backend."""
        found = row["device"], row["backend"]
        if row["backend_ms"] and found not in self._said_backends:
            self._said_backends.add(found)
            self._say(
                f"backend auto: {row['backend']} at sparsity {as_written(row['sparsity'])} on"
                f" {row['device']}; ms per step and ticket: {row['backend_ms']}"
            )

    def _collect(self, pack: Pack) -> None:
        """Read what ended on disk but whose report was lost with its worker."""
        for ticket in pack.tickets:
            done = self.run.folder.replicate(ticket.replicate).ticket(ticket.name).done
            if key(ticket) not in self.rows.tickets and is_there(done):
                record = read_json(done)
                self.rows.put(record["row"], record["epochs"])

    def _forget_failures(self) -> None:
        """Failed tickets are tried again: their old failure goes."""
        for ticket in grid(self.run.experiment):
            row = self.rows.tickets.get(key(ticket))
            if row is not None and row["status"] == "failed":
                folder = self.run.folder.replicate(ticket.replicate).ticket(ticket.name)
                remove(folder.failed)
                del self.rows.tickets[key(ticket)]

    def _end_chains(self) -> None:
        """Record the levels of iterative pruning that have no trained ticket to be pruned from."""
        if not trains_chains(self.run.experiment):
            return
        for chain in chains(cells_of(self.run.experiment)):
            for before, ticket in pairwise(chain):
                row = self.rows.tickets.get(key(before))
                if key(ticket) not in self.rows.tickets and row and row["status"] != "done":
                    reason = f"the level before it, {before.name}, {row['status']}"
                    self._fail(ticket, row["pack"], row["status"], reason)
            self._end_those_beside(chain)

    def _end_those_beside(self, chain: Sequence[Ticket]) -> None:
        """Record the controls and retrainings of levels that ended before their masks were made."""
        for cell in chain:
            row = self.rows.tickets.get(key(cell))
            mask = self.run.folder.replicate(cell.replicate).mask(cell.mask)
            if row is None or row["status"] == "done" or is_there(mask):
                continue
            for ticket in grid(self.run.experiment):
                same = (ticket.replicate, ticket.mask) == (cell.replicate, cell.mask)
                if same and key(ticket) not in self.rows.tickets:
                    reason = f"its mask was not made: {cell.name} {row['status']}"
                    self._fail(ticket, row["pack"], row["status"], reason)

    def _fail(self, ticket: Ticket, pack: str, status: str, error: str) -> None:
        """Record a ticket that no trial could bring to an end."""
        patiently(partial(self._write_failure, ticket, pack, status, error), self.run.folder.path)
        self._say(f"{status}: {ticket.name}: {error}")

    def _write_failure(self, ticket: Ticket, pack: str, status: str, error: str) -> None:
        folder = self.run.folder.replicate(ticket.replicate).ticket(ticket.name)
        attempts = read_json(folder.attempts)["attempts"] if is_there(folder.attempts) else 0
        row = {
            **dict.fromkeys(TICKET_COLUMNS),
            **ticket_columns(ticket, self.trajectories[ticket.replicate]),
            "status": status,
            "error": error,
            "pack": pack,
            "attempts": attempts,
        }
        write_json(folder.failed, {"row": row, "epochs": []})
        self.rows.put(row, [])


def _margin(experiment: Experiment) -> float | None:
    """By which tickets match; None of copies of the dense network, and of tickets that came from
    another experiment, which are judged by the dense network from the same point.
    """
    given = isinstance(experiment, GivenExperiment)
    return experiment.report.margin if any(experiment.prune.sparsities) and not given else None
