"""Tickets of other experiments trained on a target, beside the target's own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from ltray.analysis.page import write_report
from ltray.analysis.results import Rows, collect, write_tables
from ltray.analysis.transfer import Moved, write_transfer
from ltray.cluster.dense_runs import whole_trajectories
from ltray.cluster.launches import Launch
from ltray.cluster.lease import Lease
from ltray.cluster.metrics import SweepSeries
from ltray.cluster.resources import Cluster, trial_resources
from ltray.cluster.retraining import Retraining
from ltray.cluster.session import Connection
from ltray.cluster.slots import Slots
from ltray.cluster.sweeping import launched, prepare_run, sole_driver, sweep_run
from ltray.cluster.tasks import CpuWork
from ltray.errors import LtrayError
from ltray.files import is_there
from ltray.locate import write_experiment
from ltray.lottery.mask_names import masks_of
from ltray.lottery.tickets import grid, key
from ltray.lottery.transferring import Transferred, transferred
from ltray.patience import patiently
from ltray.run import Run
from ltray.say import Say


@dataclass(frozen=True)
class Move:
    """One source's tickets on the target.

    Attributes:
        run: the folder that they lie in, of the target's data and network.
    """

    source: Run
    run: Run
    what: Transferred

    @property
    def parts(self) -> tuple[Run, Run]:
        """The dense network from the source's reset points, then its tickets."""
        return (
            replace(self.run, experiment=self.what.dense),
            replace(self.run, experiment=self.what.tickets),
        )


def transfer_run(
    sources: Sequence[Run], target: Run, connection: Connection, say: Say, track: str | None
) -> int:
    """Sweep the target, train the sources' tickets on it, write tables and pages.

    Returns:
        how many tickets have failed.

    Raises:
        LtrayError: a person's mistake: nothing has been trained then.
        StageFailed: a stage could not do its work.
    """
    moves = [move_of(source, target) for source in sources]
    failed = sweep_run(target, connection, say, track)
    if not is_there(target.data.manifest):  # swept before, and its shards are gone
        prepare_run(target, connection, say)
    with sole_driver(target) as lease:
        say = lease.also(say)
        for move in moves:
            failed += _trained(move, target, lease, connection, say, track)
        moved = [Moved(move.source, move.run, move.what) for move in moves]
        page = patiently(partial(write_transfer, target, moved), target.folder.path)
        say(f"report: {page}")
    return failed


def move_of(source: Run, target: Run) -> Move:
    """What a source gives to a target, before anything is trained.

    Raises:
        LtrayError: the two do not go together, or the source is not far enough.
    """
    if source.folder == target.folder:
        raise LtrayError("--to", f"{target.folder.path.name} is the source itself", "name another")
    _check_network(source, target)
    what = transferred(source.experiment, target.experiment)
    if len(whole_trajectories(source)) < target.experiment.replicates:
        found = f"the dense runs of {source.folder.path.name} are not whole"
        raise LtrayError("SOURCE", found, "sweep it first")
    for replicate in range(target.experiment.replicates):
        folder = source.folder.replicate(replicate)
        for mask in masks_of(what.tickets):
            if not is_there(folder.mask(mask.name)):
                found = f"{source.folder.path.name} has no mask for {mask} in replicate {replicate}"
                raise LtrayError("SOURCE", found, "sweep it first, with this sparsity")
    inside = target.folder.transfer(source.folder.path.name)
    run = replace(target, folder=inside, experiment=what.tickets, criterion=None)
    return Move(source, run, what)


def _check_network(source: Run, target: Run) -> None:
    ours, theirs = (
        run.experiment.model.arch if run.network is None else run.network.sha256
        for run in (source, target)
    )
    if ours != theirs:
        found = f"the target trains {theirs}, and {source.folder.path.name} {ours}"
        raise LtrayError("--to", found, "write the same model.arch")


def _trained(  # noqa: PLR0913, PLR0917 (what, where, and who is told)
    move: Move, target: Run, lease: Lease, connection: Connection, say: Say, track: str | None
) -> int:
    """Train what is not done of a source's tickets; how many have failed."""
    rows = patiently(partial(collect, move.run.folder), target.folder.path)
    keys = [key(ticket) for part in move.parts for ticket in grid(part.experiment)]
    left = [one for one in keys if one not in rows.tickets or _failed(rows, one)]
    say(f"{move.source.folder.path.name}: {len(keys) - len(left)} of {len(keys)} tickets done here")
    if left:
        write_experiment(move.run)
        opened = launched(target, lease, connection, say, track, move.run.folder.launches)
        with opened as (launch, cluster), SweepSeries(move.run) as series:
            _train(move, target, rows, launch, cluster, series, say)
    patiently(partial(_show, move, rows), target.folder.path)
    return sum(_failed(rows, one) for one in keys)


def _train(  # noqa: PLR0913, PLR0917 (what, where, and who is told)
    move: Move,
    target: Run,
    rows: Rows,
    launch: Launch,
    cluster: Cluster,
    series: SweepSeries,
    say: Say,
) -> None:
    with launch.stage("transplant"):
        work = partial(_transplant, move, target)
        list(CpuWork(cluster, say).on_each(work, list(whole_trajectories(target)), "transplant"))
    sweep = target.experiment.sweep
    resources = trial_resources(sweep, cluster, sweep.gpus_per_trial)
    slots = Slots(resources, cluster, launch.broken, say, series.packs)
    trajectories = whole_trajectories(move.run)
    for replicate, one in trajectories.items():
        rows.put_dense(replicate, one.row, one.epochs, one.prunable)
    storage = move.run.folder.tune(launch.name)
    with launch.stage("retrainings"):
        for number, part in enumerate(move.parts):
            folder = storage / f"part-{number}"
            Retraining(part, launch, trajectories, rows, slots, folder, say, series).finish()


def _transplant(move: Move, target: Run, replicate: int) -> None:
    from ltray.training.transplant import transplant

    folder = move.run.folder.replicate(replicate)
    work = partial(transplant, move.source, target, folder, move.what, replicate)
    patiently(work, target.folder.path)


def _show(move: Move, rows: Rows) -> None:
    write_tables(move.run.folder, rows, move.run.experiment.report.margin)
    write_report(move.run.folder, move.run.experiment, rows)


def _failed(rows: Rows, one: tuple[int, str]) -> bool:
    return one in rows.tickets and rows.tickets[one]["status"] == "failed"
