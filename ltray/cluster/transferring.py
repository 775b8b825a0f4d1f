"""Tickets of other experiments trained on a target, beside the target's own."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ltray.analysis.accounts import RETRAININGS
from ltray.analysis.page import write_report
from ltray.analysis.results import Rows, collect, write_tables
from ltray.analysis.transfer import Moved
from ltray.analysis.transfer_answers import judge
from ltray.analysis.transfer_page import write_transfer
from ltray.cluster.dense_runs import whole_trajectories
from ltray.cluster.driver import launched, sole_driver
from ltray.cluster.launches import Launch
from ltray.cluster.lease import Lease
from ltray.cluster.metrics import SweepSeries
from ltray.cluster.resources import Cluster, trial_resources
from ltray.cluster.retraining import Retraining
from ltray.cluster.session import Connection
from ltray.cluster.slots import Slots
from ltray.cluster.sweeping import prepare_run, sweep_run
from ltray.cluster.tasks import CpuWork
from ltray.cluster.tracking import check_tracker
from ltray.errors import InvalidExperiment, LtrayError
from ltray.files import is_there
from ltray.lottery.mask_names import MaskOf, masks_of
from ltray.lottery.tickets import TicketKey, cells_of, grid, key
from ltray.lottery.trajectory import read_trajectory
from ltray.lottery.transferring import transferred
from ltray.patience import patiently
from ltray.record import write_experiment
from ltray.run import Run
from ltray.say import Say


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
    check_tracker(track)
    moves = _moves(sources, target)
    left = any(_left(move, collect(move.run.folder)) for move in moves)
    if left and not is_there(target.data.manifest):
        prepare_run(target, connection, say)
        moves = _moves(sources, target)  # by now it is known how many classes there are
    failed = sweep_run(target, connection, say, track)
    _check_dense_runs(target)
    with sole_driver(target) as lease:
        say = lease.also(say)
        for move in moves:
            failed += _trained(move, target, lease, connection, say, track)
        judged = patiently(partial(judge, target, moves), target.folder.path)
        for one in judged.findings:
            say(one.line)
        page = patiently(partial(write_transfer, judged), target.folder.path)
        say(f"report: {page}")
    return failed


def _moves(sources: Sequence[Run], target: Run) -> list[Moved]:
    """What each source gives.

    Raises:
        InvalidExperiment: all that is wrong with them.
    """
    moves, problems = [], []
    for number, source in enumerate(sources):
        try:
            name = source.folder.path.name
            if name in (one.folder.path.name for one in sources[:number]):
                found = f"{name} is named twice"
                raise LtrayError("SOURCE", found, "transfer from each run once at a time")
            moves.append(move_of(source, target))
        except LtrayError as error:
            problems.append(error)
    if problems:
        raise InvalidExperiment(problems)
    return moves


def move_of(source: Run, target: Run) -> Moved:
    """What a source gives to a target, before anything is trained.

    Raises:
        LtrayError: the two do not go together, or the source is not far enough.
    """
    from ltray.training.transplant import check_fits, check_is_the_source_there

    if source.folder == target.folder:
        raise LtrayError("--to", f"{target.folder.path.name} is the source itself", "name another")
    _check_network(source, target)
    what = transferred(source.experiment, source.folder.path.name, target.experiment)
    replicates = range(target.experiment.replicates)
    whole = whole_trajectories(replace(source, experiment=what.tickets))
    for replicate in replicates:
        if replicate not in whole:
            found = f"dense run {replicate} of {source.folder.path.name} is not whole"
            begun = read_trajectory(source.folder.replicate(replicate)) is not None
            mend = "give `python -m ltray.dense` for it" if begun else "sweep it first"
            raise LtrayError("SOURCE", found, mend)
    check_fits(source, target)
    for replicate in replicates:
        folder = source.folder.replicate(replicate)
        for mask in masks_of(what.tickets):
            if not is_there(folder.mask(mask.name)):
                raise _no_mask(source, replicate, mask)
    inside = target.folder.transfer(source.folder.path.name)
    check_is_the_source_there(source, inside, what)
    run = replace(target, folder=inside, experiment=what.tickets, criterion=None)
    return Moved(source, run, what)


def _no_mask(source: Run, replicate: int, mask: MaskOf) -> LtrayError:
    """What is said of a mask that is wanting; of a chain that diverged there will never be one."""
    found = f"{source.folder.path.name} has no mask for {mask} in replicate {replicate}"
    rows = collect(source.folder).tickets
    ended = [
        rows.get(key(cell))
        for cell in cells_of(source.experiment)
        if (cell.replicate, cell.reset_epoch) == (replicate, mask.reset_epoch)
    ]
    if any(row is not None and row["status"] == "diverged" for row in ended):
        found = f"{found}: its chain diverged before it"
        mend = "leave that sparsity out of the target's experiment, or the reset point out of the"
        return LtrayError("SOURCE", found, f"{mend} source's, and name the source by its file")
    return LtrayError("SOURCE", found, "sweep it first, with this sparsity")


def _check_network(source: Run, target: Run) -> None:
    ours, theirs = (_network(run) for run in (target, source))
    if ours != theirs:
        found = f"the target trains {ours[0]}, and {source.folder.path.name} {theirs[0]}"
        if ours[0] == theirs[0]:
            found = f"{source.folder.path.name} trains a {ours[0]} of another file"
        raise LtrayError("--to", found, "write the same model.arch")


def _check_dense_runs(target: Run) -> None:
    """Of a target that was swept the steps may have been removed: what is compared with is read."""
    for replicate in range(target.experiment.replicates):
        if read_trajectory(target.folder.replicate(replicate)) is None:
            found = f"dense run {replicate} of {target.folder.path.name} is not whole"
            raise LtrayError("--to", found, "give `python -m ltray.dense` for it")


def _network(run: Run) -> tuple[str, str]:
    """What a person calls it, and what it is made by."""
    if run.network is None:
        return run.experiment.model.arch, ""
    return run.network.function, run.network.sha256


def _trained(  # noqa: PLR0913, PLR0917 (what, where, and who is told)
    move: Moved, target: Run, lease: Lease, connection: Connection, say: Say, track: str | None
) -> int:
    """Train what is not done of a source's tickets; how many have failed."""
    rows = patiently(partial(collect, move.run.folder), target.folder.path)
    keys, left = _keys(move), _left(move, rows)
    say(f"{move.source.folder.path.name}: {len(keys) - len(left)} of {len(keys)} tickets done here")
    patiently(partial(write_experiment, move.run), target.folder.path)
    if left:
        opened = launched(target, lease, connection, say, track, move.run.folder.launches)
        with opened as (launch, cluster), SweepSeries(move.run) as series:
            try:
                _train(move, target, rows, launch, cluster, series, say)
            finally:
                lease.check()  # tables would be older than those of a driver that took over
                patiently(partial(_write_tables, move, rows), target.folder.path)
    patiently(partial(_show, move, rows), target.folder.path)
    return sum(_failed(rows, one) for one in keys)


def _keys(move: Moved) -> list[TicketKey]:
    return [key(ticket) for part in move.parts for ticket in grid(part.experiment)]


def _left(move: Moved, rows: Rows) -> list[TicketKey]:
    """The tickets that are to be trained, or tried again."""
    return [one for one in _keys(move) if one not in rows.tickets or _failed(rows, one)]


def _train(  # noqa: PLR0913, PLR0917 (what, where, and who is told)
    move: Moved,
    target: Run,
    rows: Rows,
    launch: Launch,
    cluster: Cluster,
    series: SweepSeries,
    say: Say,
) -> None:
    with launch.stage("transplant"):
        work = partial(_transplant, move, target)
        every = range(target.experiment.replicates)
        list(CpuWork(cluster, say).on_each(work, list(every), "transplant"))
    sweep = target.experiment.sweep
    resources = trial_resources(sweep, cluster, sweep.gpus_per_trial)
    slots = Slots(resources, cluster, launch.broken, say, series.packs)
    trajectories = whole_trajectories(move.run)
    for replicate, one in trajectories.items():
        rows.put_dense(replicate, one.row, one.epochs, one.prunable)
    storage = move.run.folder.tune(launch.name)
    with launch.stage(RETRAININGS):
        for number, part in enumerate(move.parts):
            folder = storage / f"part-{number}"
            Retraining(part, launch, trajectories, rows, slots, folder, say, series).finish()


def _transplant(move: Moved, target: Run, replicate: int) -> None:
    from ltray.training.transplant import transplant

    folder = move.run.folder.replicate(replicate)
    work = partial(transplant, move.source, target, folder, move.what, replicate)
    patiently(work, target.folder.path)


def _write_tables(move: Moved, rows: Rows) -> None:
    write_tables(move.run.folder, rows, move.run.experiment.report.margin)


def _show(move: Moved, rows: Rows) -> None:
    _write_tables(move, rows)
    write_report(move.run.folder, move.run.experiment, rows)


def _failed(rows: Rows, one: TicketKey) -> bool:
    return one in rows.tickets and rows.tickets[one]["status"] == "failed"
