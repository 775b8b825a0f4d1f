"""The serial part of a sweep: dense runs as trials, then the masks in tasks."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

from ltray.analysis.results import Rows
from ltray.cluster.launches import Launch
from ltray.cluster.progress import SAID_EVERY_SECONDS
from ltray.cluster.resources import Cluster, groups_at_once, trial_resources
from ltray.cluster.slots import Slots
from ltray.cluster.tasks import CpuWork
from ltray.errors import StageFailed
from ltray.experiment import step_of
from ltray.files import names_below
from ltray.given import GivenExperiment
from ltray.headers import read_headers
from ltray.lottery.mask_names import masks_of
from ltray.lottery.tickets import grid, key
from ltray.lottery.trajectory import (
    Trajectory,
    prunable_tensors,
    read_trajectory,
    saved_steps,
)
from ltray.patience import patiently
from ltray.run import Run
from ltray.say import Say

MOST_TRIES = 10


def whole_trajectories(run: Run) -> dict[int, Trajectory]:
    """Replicate -> trajectory of the dense runs of which every step is there that can be needed.

    Of tickets that come from another run these are the reset points alone.

    Raises:
        LtrayError: prune.keep_dense does not fit the network.
    """
    found = {}
    for replicate in range(run.experiment.replicates):
        folder = run.folder.replicate(replicate)
        trajectory = read_trajectory(folder)
        if trajectory is None:
            continue
        prunable_tensors(run.experiment.prune, trajectory)
        points, steps_per_epoch = run.experiment.reset.epochs, trajectory.steps_per_epoch
        steps = saved_steps(points, steps_per_epoch, trajectory.total_steps)
        if isinstance(run.experiment, GivenExperiment):
            steps = [step_of(point, steps_per_epoch) for point in points]
        if all(trajectory.has_step(folder, step) for step in steps):
            found[replicate] = trajectory
    return found


def with_lost_masks(run: Run, rows: Rows) -> list[int]:
    """Replicates in which a mask is not there that a sweep leaves: of tickets that are done.

    In one shot those of all levels, also of such as a search has not looked at: others can use
    them.
    """
    in_turn = run.experiment.prune.style == "iterative"
    needed: dict[int, set[str]] = {}
    for ticket in grid(run.experiment):
        row = rows.tickets.get(key(ticket))
        if not in_turn or (row is not None and row["status"] == "done"):
            needed.setdefault(ticket.replicate, set()).add(ticket.mask)
    folders = {replicate: run.folder.replicate(replicate) for replicate in needed}
    return [
        replicate
        for replicate, names in needed.items()
        if not {folders[replicate].mask(name).name for name in names}
        <= set(names_below(folders[replicate].masks))
    ]


def train_dense_runs(
    run: Run, launch: Launch, cluster: Cluster, storage: Path, say: Say
) -> dict[int, Trajectory]:
    """Make every replicate's trajectory whole; one trial each. Replicate -> trajectory.

    On several GPUs the trial only waits for processes of its own, one on each GPU.

    Args:
        launch: what it asks of processes that train, what their reports are handed on to, and
            the GPUs that are given no work.

    Raises:
        StageFailed: a dense run diverged, its trial failed for good, or no GPU is left.
        LtrayError: the network cannot take the images, or prune.keep_dense does not fit it.
    """
    read = partial(patiently, partial(whole_trajectories, run), run.folder.path)
    whole = read()
    for number in range(MOST_TRIES):  # more than one only where a trial met a broken GPU
        left = [one for one in range(run.experiment.replicates) if one not in whole]
        if not left:
            break
        errors = _run_trials(run, launch, left, cluster, storage / f"dense-{number}", say)
        if errors:
            replicate, error = next(iter(errors.items()))
            raise StageFailed(f"dense run, replicate {replicate}", error, "mend that and try again")
        whole = read()
    else:
        raise StageFailed("dense run", "its trials end without a result", "see the tune folder")
    _say_prunable(run, whole[0], say)
    return whole


def _run_trials(  # noqa: PLR0913, PLR0917 (what a trial needs, and what it is told)
    run: Run,
    launch: Launch,
    replicates: Sequence[int],
    cluster: Cluster,
    storage: Path,
    say: Say,
) -> dict[int, str]:
    """Train, in one process or in a group of them. Replicate -> error of what failed for good."""
    from ltray.cluster.tuning import run_trials

    sweep = run.experiment.sweep
    trials = partial(
        run_trials,
        key="replicate",
        values=replicates,
        storage=storage,
        max_failures=sweep.max_failures,
        on_report=DenseProgress(say, run.experiment.train.epochs).see,
        make_tracker=launch.make_tracker,
    )
    gpus = sweep.gpus_per_trial if sweep.dense_gpus is None else sweep.dense_gpus
    if gpus == "auto" or gpus < 2:
        from ltray.cluster.trials import dense_trial

        resources = trial_resources(sweep, cluster, gpus)
        trial = partial(dense_trial, run=run, wanted=launch.demands)
        slots = Slots(resources, cluster, launch.broken, say)
        slots.keep_from_broken()
        return trials(trial, slots=slots)
    from ltray.cluster.dense_group import train_in_group

    at_once, cpus = groups_at_once(sweep, cluster, gpus)
    trainable = partial(
        train_in_group,
        run=run,
        wanted=launch.demands,
        workers=gpus,
        worker={"cpus": cpus, "gpus": 1},
        storage=storage / "groups",
    )
    # A CPU would be missing in the group. Tune wants a trial to have something: a byte of memory.
    resources = {"cpu": 0, "gpu": 0, "memory": 1}
    group = gpus, {"cpu": cpus, "gpu": 1}
    slots = Slots(resources, cluster, launch.broken, say, group=group)
    slots.keep_from_broken()
    return trials(trainable, slots=slots, at_once=at_once)


def make_all_masks(
    run: Run, rows: Rows, replicates: Sequence[int], cpu_work: CpuWork, say: Say
) -> None:
    """Make the missing masks of every replicate, and say which leave a layer with nothing.

    Chains of iterative pruning make theirs themselves, but for those that were lost since.

    Args:
        replicates: whose trajectories are whole.
    """
    if run.experiment.prune.style == "iterative":
        every = patiently(partial(with_lost_masks, run, rows), run.folder.path)
        lost = [replicate for replicate in every if replicate in replicates]
        list(cpu_work.on_each(partial(_make_lost_masks, run), lost, "masks"))
        return
    list(cpu_work.on_each(partial(_make_masks, run), replicates, "masks"))
    masks = [(number, one) for number in replicates for one in masks_of(run.experiment)]
    paths = [run.folder.replicate(number).mask(one.name) for number, one in masks]
    headers = patiently(lambda: list(read_headers(paths)), run.folder.path)
    for (replicate, mask), header in zip(masks, headers, strict=True):
        densities = {} if header is None else header["density"]  # damaged: its tickets will fail
        if dead := sorted(name for name, density in densities.items() if density == 0):
            say(f"replicate {replicate}, {mask}: nothing is left of {', '.join(dead)}")


def _make_masks(run: Run, replicate: int) -> None:
    from ltray.training.pruning import make_masks

    patiently(partial(make_masks, run, replicate), run.folder.path)


def _make_lost_masks(run: Run, replicate: int) -> None:
    from ltray.training.chain import make_lost_masks

    patiently(partial(make_lost_masks, run, replicate), run.folder.path)


class DenseProgress:
    """Says from time to time how far each dense run is, and how it ended.

    Args:
        epochs: of a whole one.
    """

    def __init__(self, say: Say, epochs: int) -> None:
        self._say = say
        self._epochs = epochs
        self._said: dict[int, float] = {}

    def see(self, report: Mapping[str, Any]) -> None:
        """Take in a report; says a line when the replicate's last one is some seconds old."""
        if not report["rows"]:
            return
        row = report["rows"][-1]
        replicate, ended = row["replicate"], row["epoch"] >= self._epochs
        now = time.monotonic()
        if not ended and now - self._said.get(replicate, -inf) < SAID_EVERY_SECONDS:
            return
        self._said[replicate] = now
        self._say(
            f"dense run, replicate {replicate}: epoch {row['epoch']:.4g}/{self._epochs},"
            f" validation {row['val_top1']:.4f}, test {row['test_top1']:.4f}"
        )


def _say_prunable(run: Run, trajectory: Trajectory, say: Say) -> None:
    sizes = prunable_tensors(run.experiment.prune, trajectory)
    total = sum(sizes.values())
    share = total / trajectory.parameters
    say(f"prunable: {total:,} weights in {len(sizes)} tensors, {share:.1%} of all parameters")
    shown = list(sizes.items())
    for name, size in shown[:8]:
        say(f"  {name}  {size:,}")
    if len(shown) > 8:
        say(f"  and {len(shown) - 8} more, all in trajectory.json")
