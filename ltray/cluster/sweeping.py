"""The jobs that commands start: prepare, the dense runs, the whole sweep. All idempotent."""

from collections.abc import Callable, Sequence
from functools import partial

from ltray.analysis.accounts import RETRAININGS
from ltray.analysis.card import write_card
from ltray.analysis.grid import in_words
from ltray.analysis.results import Rows, collect, write_tables
from ltray.cluster.ahead import say_ahead
from ltray.cluster.dense_runs import (
    make_all_masks,
    train_dense_runs,
    whole_trajectories,
    with_lost_masks,
)
from ltray.cluster.driver import cluster_line, launched, sole_driver
from ltray.cluster.launches import Launch
from ltray.cluster.lease import Lease
from ltray.cluster.metrics import SweepSeries
from ltray.cluster.preparing import check_archives, prepare, remove_copies
from ltray.cluster.progress import show
from ltray.cluster.resources import Cluster, trial_resources
from ltray.cluster.retraining import Retraining
from ltray.cluster.session import Connection, session
from ltray.cluster.slots import Slots
from ltray.cluster.tasks import CpuWork
from ltray.cluster.tracking import check_tracker
from ltray.contradictions import margin_warning, too_few_images
from ltray.data.manifest import Manifest, PartFile, read_manifest
from ltray.data.selection import image_counts
from ltray.data.verify import PartReading, verify
from ltray.errors import InvalidExperiment, LtrayError
from ltray.files import is_local, is_there
from ltray.lottery.ready import wanted
from ltray.lottery.tickets import TicketKey, key
from ltray.lottery.trajectory import Trajectory
from ltray.patience import patiently
from ltray.record import write_experiment
from ltray.run import Run
from ltray.say import Say


def prepare_run(run: Run, connection: Connection, say: Say, checksums: bool = False) -> Manifest:
    """Make the run's shards, if they are not made.

    Args:
        checksums: compare archives that were published with their MD5 first, prepared or not.

    Raises:
        LtrayError: the source is not what it should be.
        StageFailed: a part could not be written.
    """
    with sole_driver(run) as lease:
        say = lease.also(say)
        prepared = is_there(run.data.manifest)
        if prepared and not checksums:
            write_experiment(run)
            if not is_there(run.data.card):  # killed between manifest and card
                write_card(run.data)
            remove_copies(run, say)
            say(f"already prepared: {run.data.path}")
            return read_manifest(run.data)
        with launched(run, lease, connection, say) as (launch, cluster):
            cpu_work = CpuWork(cluster, say)
            if checksums:
                with launch.stage("checksums"):
                    check_archives(run, cpu_work, say)
            return _prepared(run, launch, cpu_work, say)


def verify_run(run: Run, connection: Connection, say: Say) -> list[str]:
    """Read the run's shards back on the cluster; what is wrong with them, empty = nothing.

    Raises:
        LtrayError: they are not prepared.
        StageFailed: a task was lost.
    """

    def spread(
        read: Callable[[PartFile], PartReading], parts: Sequence[PartFile]
    ) -> list[PartReading]:
        with session(connection, run.folder.path.name) as cluster:
            say(cluster_line(cluster))
            return CpuWork(cluster, say).on_each_part(read, parts, "verify")

    return verify(run.data, spread)


def dense_run(
    run: Run, connection: Connection, say: Say, track: str | None = None
) -> dict[int, Trajectory]:
    """Make the run's trajectories whole, and its shards where they are not made.

    Args:
        track: a tracker that trials' reports are handed on to.

    Raises:
        LtrayError: a person's mistake.
        StageFailed: a stage could not do its work.
    """
    check_tracker(track)
    with sole_driver(run) as lease:
        say = lease.also(say)
        whole = whole_trajectories(run)
        if len(whole) == run.experiment.replicates:
            if is_there(run.data.manifest):
                check_counts(run, read_manifest(run.data), say)
            write_experiment(run)
            say(f"already whole: {run.folder.replicate(0).trajectory.parent}")
            return whole
        with launched(run, lease, connection, say, track) as (launch, cluster):
            whole = _dense_stages(run, launch, cluster, say)
        patiently(partial(_write_tables, run), run.folder.path)
        return whole


def sweep_run(run: Run, connection: Connection, say: Say, track: str | None = None) -> int:
    """Finish the run's grid; returns how many of its tickets have failed.

    Args:
        track: a tracker that trials' reports are handed on to.

    Raises:
        LtrayError: a person's mistake.
        StageFailed: a stage could not do its work.
    """
    check_tracker(track)
    with sole_driver(run) as lease:
        say = lease.also(say)
        rows = patiently(partial(collect, run.folder), run.folder.path)
        keys = _keys(run, rows)
        ended = [one for one in keys if one in rows.tickets and not _failed(rows, one)]
        say(_grid_line(run, len(keys), len(ended)))
        if len(ended) < len(keys) or patiently(partial(_can_mend, run, rows, say), run.folder.path):
            _sweep(run, rows, lease, connection, say, track)
        else:
            write_experiment(run)
            if not _is_shown(run):
                patiently(partial(_show, run, rows, say), run.folder.path)
        say(f"report: {run.folder.report}")
        return sum(_failed(rows, one) for one in _keys(run, rows))


def _can_mend(run: Run, rows: Rows, say: Say) -> bool:
    """Whether masks of a finished sweep are missing and what they are made from is there.

    Dense runs are not trained again unasked: a person may have made room.
    """
    if not with_lost_masks(run, rows):
        return False
    whole = len(whole_trajectories(run)) == run.experiment.replicates
    if whole:
        say("masks are missing: they are made, always to the same bits")
    else:
        say(
            "masks are missing, and steps of dense runs that they are made from: `python -m "
            "ltray.dense` makes these again, and then this command the masks"
        )
    return whole


def _sweep(  # noqa: PLR0913, PLR0917 (what a launch needs)
    run: Run, rows: Rows, lease: Lease, connection: Connection, say: Say, track: str | None
) -> None:
    opened = launched(run, lease, connection, say, track)
    with opened as (launch, cluster), SweepSeries(run) as series:
        show(_keys(run, rows), rows, run.experiment.report.margin, series)
        sweep = run.experiment.sweep
        resources = trial_resources(sweep, cluster, sweep.gpus_per_trial)
        say_ahead(run, launch, rows, cluster, say)
        trajectories = _dense_stages(run, launch, cluster, say)
        with launch.stage("masks"):
            make_all_masks(run, rows, list(trajectories), CpuWork(cluster, say), say)
        for replicate, trajectory in trajectories.items():
            rows.put_dense(replicate, trajectory.row, trajectory.epochs, trajectory.prunable)
        if not launch.is_planned:
            say_ahead(run, launch, rows, cluster, say)
        slots = Slots(resources, cluster, launch.broken, say, series.packs)
        storage = run.folder.tune(launch.name)
        with launch.stage(RETRAININGS):
            try:
                Retraining(run, launch, trajectories, rows, slots, storage, say, series).finish()
            finally:
                lease.check()  # they would be older than those of a driver that took over
                tables = partial(write_tables, run.folder, rows, run.experiment.report.margin)
                patiently(tables, run.folder.path)
        launch.reached_report = True
        patiently(launch.write, run.folder.path)  # the report shows it
        with launch.stage("report"):
            patiently(partial(_show, run, rows, say), run.folder.path)


def _dense_stages(run: Run, launch: Launch, cluster: Cluster, say: Say) -> dict[int, Trajectory]:
    manifest = _prepared(run, launch, CpuWork(cluster, say), say)
    check_counts(run, manifest, say)
    with launch.stage("dense run"):
        return train_dense_runs(run, launch, cluster, run.folder.tune(launch.name), say)


def _prepared(run: Run, launch: Launch, cpu_work: CpuWork, say: Say) -> Manifest:
    with launch.stage("prepare"):
        manifest = prepare(run, cpu_work, say)
    # Not before: experiment.yaml has the source's own size filled in, and a source whose images
    # turn out not to be alike must not be taken from there as if the size had been asked for.
    write_experiment(run)
    return manifest


def check_counts(run: Run, manifest: Manifest, say: Say) -> None:
    """Judge what depends on the number of images, before anything is trained.

    Raises:
        InvalidExperiment: some part has too few, or two reset points are one step.
    """
    counts = image_counts(manifest, run.experiment.data)
    problems = too_few_images(run.experiment, *counts)
    if problems:
        raise InvalidExperiment([LtrayError(*problem) for problem in problems])
    warning = margin_warning(run.experiment, counts[1])
    if warning:
        say(f"warning: {warning}")


def _write_tables(run: Run) -> None:
    write_tables(run.folder, collect(run.folder), run.experiment.report.margin)


def _show(run: Run, rows: Rows, say: Say) -> None:
    from ltray.analysis.page import write_report

    say("writing tables and report")
    write_tables(run.folder, rows, run.experiment.report.margin)
    write_report(run.folder, run.experiment)


def _is_shown(run: Run) -> bool:
    """Whether tables and page are there and younger than everything that they show."""
    folder = run.folder
    if not is_local(folder.path):
        return False  # a store tells seconds only
    shown = [folder.report, folder.tickets_table, folder.epochs_table]
    shows = [folder.experiment, *folder.path.glob("replicate-*/tickets/*/*.json")]
    if not all(is_there(path) for path in shown):
        return False
    oldest = min(path.stat().st_mtime_ns for path in shown)
    return all(path.stat().st_mtime_ns < oldest for path in shows)


def _keys(run: Run, rows: Rows) -> list[TicketKey]:
    """The tickets that are asked for by now."""
    return [key(ticket) for ticket in wanted(run.experiment, rows.tickets)]


def _failed(rows: Rows, one: tuple[int, str]) -> bool:
    return bool(rows.tickets[one]["status"] == "failed")


def _grid_line(run: Run, tickets: int, ended: int) -> str:
    line = f"{run.folder.path.name}: {in_words(run.experiment)}"
    if ended == tickets:
        return f"{line}, all done"
    now = " now" if run.experiment.prune.search == "matching" else ""
    return f"{line}, {ended} done, {tickets - ended} to train{now}"
