"""What a sweep says of the time that lies ahead of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ltray.analysis.planning.costs import Costs, Training, given, starting
from ltray.analysis.planning.estimate import NOTHING
from ltray.analysis.planning.planned import OnWorkers, Plan, planned
from ltray.analysis.planning.run_costs import from_dense_run, from_packs
from ltray.analysis.planning.wording import about
from ltray.analysis.planning.work import epochs_of
from ltray.analysis.results import DENSE, Rows
from ltray.analysis.wording import quantity
from ltray.experiment import Experiment, as_written, steps_per_epoch


@dataclass(frozen=True)
class Ahead:
    """A line of text, and the plan on one worker and on all; None where nothing was measured yet.

    Attributes:
        one, on: `whole` is from now to the report.
    """

    text: str
    one: OnWorkers | None = None
    on: OnWorkers | None = None


def ahead(
    experiment: Experiment, rows: Rows, images: tuple[int, int, int] | None, workers: int
) -> Ahead:
    """What is left to do, and how long that takes by what this run has measured.

    Args:
        experiment: resolved.
        rows: the run's; tickets that have failed are to be tried again.
        images: to train on, for validation, to test; None before they are prepared.
        workers: trials at a time.
    """
    done = {key: row for key, row in rows.tickets.items() if row["status"] != "failed"}
    whole = [number for number in rows.dense if number < experiment.replicates]
    training = _training(experiment, rows, images)
    plan = planned(experiment, _costs(training or given(0.0)), {1, workers}, done, len(whole))
    what = _what(plan)
    if training is None:
        return Ahead(f"plan: {what}; `python -m ltray.plan` tells how long that takes")
    one, on = plan.on[0], plan.on[-1]
    line = f"plan: {what} on {quantity(workers, 'worker')}: {about(on.whole)} to the report"
    return Ahead(line, one, on)


def _training(
    experiment: Experiment, rows: Rows, images: tuple[int, int, int] | None
) -> Training | None:
    training = None
    if rows.dense and images is not None:
        evaluated = _evaluated(experiment, *images)
        epochs: Sequence[dict[str, float]] = rows.epochs[min(rows.dense), DENSE]
        training = from_dense_run(epochs, evaluated)
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
