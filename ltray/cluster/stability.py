"""How far two copies of a ticket come apart: their training, then the line between them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ltray.analysis.results import Rows, collect, write_tables
from ltray.analysis.stability import write_stability
from ltray.cluster.dense_runs import MOST_TRIES, make_all_masks, whole_trajectories
from ltray.cluster.driver import launched, sole_driver
from ltray.cluster.launches import Launch
from ltray.cluster.lease import Lease
from ltray.cluster.metrics import SweepSeries
from ltray.cluster.resources import Cluster, trial_resources
from ltray.cluster.retraining import Retraining
from ltray.cluster.session import Connection
from ltray.cluster.slots import Slots
from ltray.cluster.sweeping import check_counts, dense_run, prepare_run
from ltray.cluster.tasks import CpuWork
from ltray.cluster.tracking import check_tracker
from ltray.experiment import as_written
from ltray.lottery.pairs import Pair, pairs_of, with_copies
from ltray.lottery.tickets import grid, key
from ltray.lottery.trajectory import Trajectory
from ltray.patience import patiently
from ltray.run import Run
from ltray.say import Say
from ltray.training.error_line import measured_line


def stability_run(
    run: Run, sparsities: Sequence[float], connection: Connection, say: Say, track: str | None
) -> int:
    """Measure the barrier of every reset point, and write table and page.

    Args:
        sparsities: of tickets that are to be measured beside the dense network.
        track: a tracker that trials' reports are handed on to.

    Returns:
        how many pairs have no line, since a copy or the line itself failed.

    Raises:
        LtrayError: a person's mistake.
        StageFailed: a stage could not do its work.
    """
    check_tracker(track)
    parts = [replace(run, experiment=one) for one in with_copies(run.experiment, sparsities)]
    if len(whole_trajectories(run)) < run.experiment.replicates:
        dense_run(run, connection, say, track)
    else:
        check_counts(run, prepare_run(run, connection, say), say)
    with sole_driver(run) as lease:
        say = lease.also(say)
        rows = patiently(partial(collect, run.folder), run.folder.path)
        if any(_left(part, rows) for part in parts):
            work = _Work(run, lease, rows, say)
            work.do(parts, connection, track)
        pairs = [pair for part in parts for pair in pairs_of(part.experiment)]
        write = partial(write_stability, run, pairs, rows)
        without = patiently(write, run.folder.path)
        say(f"report: {run.folder.stability.report}")
        return without


def _left(part: Run, rows: Rows) -> bool:
    """Whether something is to be trained, tried again or measured."""
    tickets = [rows.tickets.get(key(ticket)) for ticket in grid(part.experiment)]
    if any(row is None or row["status"] == "failed" for row in tickets):
        return True
    return bool(_measurable(part, rows))


def _measurable(part: Run, rows: Rows) -> dict[str, Pair]:
    """The pairs by name whose copies are both done, and whose line has not been measured."""
    return {
        pair.name: pair
        for pair in pairs_of(part.experiment)
        if all(_is_done(rows, key(ticket)) for ticket in (pair.one, pair.other))
        and measured_line(part, pair) is None
    }


def _is_done(rows: Rows, ticket: tuple[int, str]) -> bool:
    return ticket in rows.tickets and rows.tickets[ticket]["status"] == "done"


class _Work:
    """What a launch does.

    Args:
        rows: of the run; kept up to date.
    """

    def __init__(self, run: Run, lease: Lease, rows: Rows, say: Say) -> None:
        self.run = run
        self.lease = lease
        self.rows = rows
        self.say = say

    def do(self, parts: Sequence[Run], connection: Connection, track: str | None) -> None:
        """Train the copies that are not done, then measure what lies between them."""
        record = self.run.folder.stability.launches
        opened = launched(self.run, self.lease, connection, self.say, track, record)
        with opened as (launch, cluster), SweepSeries(self.run) as series:
            slots = self._slots(launch, cluster, series)
            trajectories = whole_trajectories(self.run)
            for replicate, one in trajectories.items():
                self.rows.put_dense(replicate, one.row, one.epochs, one.prunable)
            for number, part in enumerate(parts):
                storage = self.run.folder.stability.tune(launch.name) / f"part-{number}"
                with launch.stage("masks"):
                    cpu_work = CpuWork(cluster, self.say)
                    make_all_masks(part, self.rows, list(trajectories), cpu_work, self.say)
                with launch.stage("copies"):
                    self._copies(part, launch, trajectories, slots, storage, series)
                with launch.stage("lines"):
                    self._lines(part, launch, slots, storage)

    def _copies(  # noqa: PLR0913, PLR0917 (what a round needs)
        self,
        part: Run,
        launch: Launch,
        trajectories: Mapping[int, Trajectory],
        slots: Slots,
        storage: Path,
        series: SweepSeries,
    ) -> None:
        try:
            Retraining(
                part, launch, trajectories, self.rows, slots, storage, self.say, series
            ).finish()
        finally:
            self.lease.check()  # tables would be older than those of a driver that took over
            margin = self.run.experiment.report.margin
            tables = partial(write_tables, self.run.folder, self.rows, margin)
            patiently(tables, self.run.folder.path)

    def _slots(self, launch: Launch, cluster: Cluster, series: SweepSeries) -> Slots:
        sweep = self.run.experiment.sweep
        resources = trial_resources(sweep, cluster, sweep.gpus_per_trial)
        return Slots(resources, cluster, launch.broken, self.say, series.packs)

    def _lines(self, part: Run, launch: Launch, slots: Slots, storage: Path) -> None:
        from ltray.cluster.trials import line_trial
        from ltray.cluster.tuning import run_trials

        for number in range(MOST_TRIES):  # more than one only where a trial met a broken GPU
            pairs = _measurable(part, self.rows)
            if not pairs:
                return
            slots.keep_from_broken()
            errors = run_trials(
                partial(line_trial, run=part, wanted=launch.demands, pairs=pairs),
                "line",
                list(pairs),
                slots=slots,
                storage=storage / f"lines-{number}",
                max_failures=self.run.experiment.sweep.max_failures,
                on_report=self._on_report,
                make_tracker=launch.make_tracker,
            )
            for name, error in errors.items():
                self.say(f"failed: the line of {name}: {error}")
            if not slots.displaced:
                return

    def _on_report(self, report: Mapping[str, Any]) -> None:
        for record in report["records"]:
            row = record["row"]
            what = f"sparsity {as_written(row['sparsity'])}" if row["sparsity"] else "dense"
            self.say(
                f"{what}, reset to epoch {as_written(row['reset_epoch'])}, replicate "
                f"{row['replicate']}: barrier {100 * row['val_barrier']:.2f} points of validation"
            )
