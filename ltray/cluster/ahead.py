"""What a sweep says of the time that lies ahead of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from ltray.analysis.planning.costs import Costs, Training, given, starting
from ltray.analysis.planning.estimate import NOTHING
from ltray.analysis.planning.planned import OnWorkers, Plan, planned
from ltray.analysis.planning.run_costs import from_dense_run, from_packs
from ltray.analysis.planning.wording import about
from ltray.analysis.planning.work import epochs_of
from ltray.analysis.results import DENSE, Rows
from ltray.analysis.wording import quantity
from ltray.cluster.launches import Launch
from ltray.cluster.resources import Cluster, trial_resources
from ltray.data.manifest import read_manifest
from ltray.data.selection import chosen_classes, image_counts
from ltray.experiment import Experiment, as_written, steps_per_epoch
from ltray.files import is_there
from ltray.run import Run
from ltray.say import Say
from ltray.training.backends.choice import may_be_csr
from ltray.training.start import untrained


@dataclass(frozen=True)
class Ahead:
    """A line of text, and the plan on one worker and on all; None where nothing was measured yet.

    Attributes:
        one, on: `whole` is from now to the report.
    """

    text: str
    one: OnWorkers | None = None
    on: OnWorkers | None = None


def say_ahead(run: Run, launch: Launch, rows: Rows, cluster: Cluster, say: Say) -> None:
    """Say what is left to do on a cluster, and write it down for the report where it has a time."""
    experiment, sweep = run.experiment, run.experiment.sweep
    resources = trial_resources(sweep, cluster, sweep.gpus_per_trial)
    workers = max(1, cluster.room(resources["cpu"], resources["gpu"]))
    images, kept_alone = None, False
    if rows.dense and is_there(run.data.manifest):
        manifest = read_manifest(run.data)
        images = image_counts(manifest, experiment.data)
        if resources["gpu"] == 0:
            classes = chosen_classes(experiment.data, len(manifest.class_names))
            model = untrained(run, len(classes), 0, torch.device("cpu"))
            kept_alone = may_be_csr(sweep.backend, model)
    found = ahead(experiment, rows, images, workers, kept_alone=kept_alone)
    say(found.text)
    if found.one and found.on:
        launch.plan(found.one, found.on)


def ahead(
    experiment: Experiment,
    rows: Rows,
    images: tuple[int, int, int] | None,
    workers: int,
    *,
    kept_alone: bool,
) -> Ahead:
    """What is left to do, and how long that takes by what this run has measured.

    Args:
        experiment: resolved.
        rows: the run's; tickets that have failed are to be tried again.
        images: to train on, for validation, to test; None where no dense run is done.
        workers: trials at a time.
        kept_alone: whether a backend may compute a ticket's kept weights alone.
    """
    done = {key: row for key, row in rows.tickets.items() if row["status"] != "failed"}
    whole = [number for number in rows.dense if number < experiment.replicates]
    training = _training(experiment, rows, images, kept_alone)
    plan = planned(experiment, _costs(training or given(0.0)), {1, workers}, done, len(whole))
    what = _what(plan)
    if training is None:
        return Ahead(f"plan: {what}; `python -m ltray.plan` tells how long that takes")
    one, on = plan.on[0], plan.on[-1]
    line = f"plan: {what} on {quantity(workers, 'worker')}: {about(on.whole)} to the report"
    return Ahead(line, one, on)


def _training(
    experiment: Experiment, rows: Rows, images: tuple[int, int, int] | None, kept_alone: bool
) -> Training | None:
    training = None
    if rows.dense and images is not None:
        evaluated = _evaluated(experiment, *images)
        epochs: Sequence[dict[str, float]] = rows.epochs[min(rows.dense), DENSE]
        training = from_dense_run(epochs, evaluated, kept_alone=kept_alone)
    return from_packs(training, list(rows.tickets.values()))


def _evaluated(experiment: Experiment, train: int, validation: int, test: int) -> float:
    """Images that are evaluated, over those that are trained on."""
    every = experiment.train.evaluate_every
    steps = steps_per_epoch(train, experiment.train.batch_size)
    evaluations = 1.0 if every == "epoch" else steps / every
    return evaluations * (validation + test) / train


def _costs(training: Training) -> Costs:
    return Costs(
        alone=training,
        beside=training,
        apart=1,
        starting=replace(starting(), command=NOTHING, ray=NOTHING),  # they have passed
        prepare=NOTHING,
        masks=NOTHING,
        state_seconds=0.0,
        told_by="as this run has measured",
    )


def _what(plan: Plan) -> str:
    experiment = plan.experiment
    tickets = [ticket for pack in plan.packs for ticket in pack.tickets]
    epochs = [epochs_of(ticket, experiment) for ticket in tickets]
    said = (
        f"{quantity(len(tickets), 'retraining')}, {as_written(round(sum(epochs), 3))} epochs in all"
    )
    if plan.dense_runs:
        runs = quantity(plan.dense_runs, "dense run")
        return f"{runs} of {quantity(experiment.train.epochs, 'epoch')}, then {said}"
    return said
