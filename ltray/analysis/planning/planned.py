"""A whole plan: what there is to do, and when it is done on 1, 2, ... P workers."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ltray.analysis.planning.costs import Costs, Training
from ltray.analysis.planning.estimate import NOTHING, Estimate, total
from ltray.analysis.planning.scaling_laws import amdahl, gustafson
from ltray.analysis.planning.schedule import makespan
from ltray.analysis.planning.work import Done, dense_seconds, pack_seconds, packs_left
from ltray.experiment import Experiment
from ltray.lottery.tickets import Pack

WORTH = 0.05  # of the time that is left: workers who save less are not worth having


@dataclass(frozen=True)
class OnWorkers:
    """Seconds on so many workers.

    Attributes:
        retrainings: their training alone, from the first to the last.
        training: the dense runs, then the retrainings.
        whole: from the command to the report.
    """

    workers: int
    retrainings: Estimate
    training: Estimate
    whole: Estimate

    @property
    def worker_hours(self) -> float:
        """For which all of them are held, together."""
        return self.workers * self.whole.likely / 3600


@dataclass(frozen=True)
class Work:
    """Seconds of one worker.

    Attributes:
        prepare: None where nothing is known of the images.
        starts: all the rest: Ray, processes, masks, tables and page.
    """

    dense: Estimate
    retrainings: Estimate
    prepare: Estimate | None
    starts: Estimate

    @property
    def training(self) -> Estimate:
        return self.dense + self.retrainings


@dataclass(frozen=True)
class Plan:
    """What an experiment will cost.

    Attributes:
        done: tickets that have ended before.
        packs: trials that are to come.
        dense_runs: that are to come.
        work: on one worker.
        serial: the share of the training on one worker that more workers do not share: the
            longest dense run, which all its tickets wait for.
        beside: the share of the other dense runs, which can train beside the longest.
        on: in order of workers.
    """

    experiment: Experiment
    costs: Costs
    done: Done
    packs: Sequence[Pack]
    dense_runs: int
    work: Work
    serial: float
    beside: float
    on: Sequence[OnWorkers]

    @property
    def tickets(self) -> int:
        """That are to come."""
        return sum(len(pack.tickets) for pack in self.packs)

    def amdahl(self, workers: float) -> float:
        """The law's speed-up of the training."""
        return amdahl(workers, self.serial, self.beside)

    def gustafson(self, on: OnWorkers) -> float:
        """The law's speed-up of a training that grows with workers, as long as that on so many."""
        serial = self.serial * self.work.training.likely
        share = min(1.0, serial / on.training.likely) if on.training.likely else 0.0
        return gustafson(on.workers, share)

    @property
    def whole_on_one(self) -> Estimate:
        """Seconds from the command to the report on one worker."""
        return self.work.training + (self.work.prepare or NOTHING) + self.work.starts

    def gpu_hours(self, on: OnWorkers) -> float:
        """For which GPUs are held; with `gpus_per_trial: auto` as if each worker had one."""
        each = self.experiment.sweep.gpus_per_trial
        return on.worker_hours * (1 if each == "auto" else each)


@dataclass(frozen=True)
class _ToDo:
    """What is left of an experiment."""

    experiment: Experiment
    packs: Sequence[Pack]
    dense_runs: int
    costs: Costs

    def on(self, workers: int) -> OnWorkers:
        training = self.costs.training(workers)
        dense = self._dense(training, workers)
        retrainings = self._retrainings(training, workers, NOTHING, NOTHING)
        return OnWorkers(
            workers=workers,
            retrainings=retrainings,
            training=dense + retrainings,
            whole=self._whole(training, workers, dense),
        )

    def _whole(self, training: Training, workers: int, dense: Estimate) -> Estimate:
        starting = self.costs.starting
        prepare = self.costs.prepare
        stages = [starting.command, starting.ray, starting.report]
        if prepare is None or prepare.high:
            stages += [starting.tasks, (prepare or NOTHING) * (1 / workers)]
        if self.dense_runs:
            stages += [starting.trials, dense, starting.tasks, self._masks(workers)]
        stages.append(self._retrainings(training, workers, starting.trials, starting.next_trial))
        return total(stages)

    def _masks(self, workers: int) -> Estimate:
        return _schedule([self.costs.masks] * self.dense_runs, workers)

    def _dense(self, training: Training, workers: int) -> Estimate:
        each = dense_seconds(self.experiment, training)
        return _schedule([each] * self.dense_runs, workers)

    def _retrainings(
        self, training: Training, workers: int, first: Estimate, between: Estimate
    ) -> Estimate:
        return total(
            _schedule(
                [pack_seconds(pack, self.experiment, training) for pack in packs],
                workers,
                first,
                between,
            )
            for packs in self._rounds()
        )

    def _rounds(self) -> list[list[Pack]]:
        """Packs that may run at the same time: the others wait until these are done.

        Chains of iterative pruning come before what needs their masks; a search asks for a level
        of each reset point when it knows how the one before did.
        """
        found: dict[int, list[Pack]] = {}
        turns: Counter[tuple[object, ...]] = Counter()
        for pack in self.packs:
            first = pack.tickets[0]
            turn = int(not pack.in_turn)
            if self.experiment.prune.search == "matching":
                beside = first.replicate, first.reset_epoch, first.control, first.retraining
                turns[beside] += 1
                turn = turns[beside]
            found.setdefault(turn, []).append(pack)
        return [found[turn] for turn in sorted(found)]


def planned(  # noqa: PLR0913, PLR0917 (what there is, and what of it is done)
    experiment: Experiment,
    costs: Costs,
    workers: Collection[int],
    done: Done = (),
    dense_done: int = 0,
    tickets_per_trial: int | None = None,
) -> Plan:
    """Plan what is left of an experiment.

    Args:
        experiment: resolved.
        workers: how many to plan for, each at least 1.
        done: tickets that have ended.
        dense_done: dense runs that are whole.
        tickets_per_trial: as if the experiment said this.
    """
    packs = packs_left(experiment, done, tickets_per_trial)
    to_do = _ToDo(experiment, packs, experiment.replicates - dense_done, costs)
    one = to_do.on(1)
    work = Work(
        dense=one.training - one.retrainings,
        retrainings=one.retrainings,
        prepare=costs.prepare,
        starts=one.whole - one.training - (costs.prepare or NOTHING),
    )
    longest_dense = dense_seconds(experiment, costs.training(1)).likely if to_do.dense_runs else 0.0
    training = one.training.likely
    return Plan(
        experiment=experiment,
        costs=costs,
        done=done,
        packs=packs,
        dense_runs=to_do.dense_runs,
        work=work,
        serial=longest_dense / training if training else 0.0,
        beside=(work.dense.likely - longest_dense) / training if training else 0.0,
        on=[to_do.on(number) for number in sorted(set(workers))],
    )


def workers_that_pay(plan: Plan) -> int:
    """The fewest workers whose whole time no greater number makes shorter by a twentieth."""
    most = max(1, len(plan.packs))
    to_do = _ToDo(plan.experiment, plan.packs, plan.dense_runs, plan.costs)
    bound = (1 + WORTH) * to_do.on(most).whole.likely
    low, high = 1, most
    while low < high:  # the whole time falls with workers, or nearly
        middle = (low + high) // 2
        if to_do.on(middle).whole.likely <= bound:
            high = middle
        else:
            low = middle + 1
    return low


def is_packed(plan: Plan) -> bool:
    """Whether `sweep.tickets_per_trial` has a say: not in a search, nor in chains of levels."""
    searched = plan.experiment.prune.search == "matching"
    return not searched and any(not pack.in_turn for pack in plan.packs)


def best_tickets_per_trial(plan: Plan, workers: int) -> tuple[int, float]:
    """(tickets per trial, whole seconds) of the pack size with which a sweep ends first.

    The plan's own size is among those that are compared, also where it leaves a smaller pack.
    Of sizes that end within a hundredth of each other the largest wins, which reads images least
    often.
    """
    experiment = plan.experiment
    points = len(experiment.reset.epochs)
    sized = [len(pack.seats) for pack in plan.packs if not pack.in_turn]
    planned_with = max(sized, default=points)
    sizes = {planned_with, *_sizes(points, len(experiment.prune.sparsities))}
    found = {
        size: _ToDo(
            experiment, packs_left(experiment, plan.done, size), plan.dense_runs, plan.costs
        )
        .on(workers)
        .whole.likely
        for size in sorted(sizes)
    }
    best = min(found.values())
    return next((size, took) for size, took in reversed(found.items()) if took <= 1.01 * best)


def _sizes(points: int, masks: int) -> list[int]:
    """Parts of a mask's tickets, and several masks' together, that leave no smaller pack."""
    parts = [size for size in range(1, points) if points % size == 0]
    several = [points * number for number in range(1, masks + 1) if masks % number == 0]
    return [*parts, *several]


def _schedule(
    trials: Sequence[Estimate],
    workers: int,
    first: Estimate = NOTHING,
    between: Estimate = NOTHING,
) -> Estimate:
    ends = zip(*(one.ends for one in trials), strict=True) if trials else [(), (), ()]
    low, likely, high = (
        makespan(seconds, workers, start, pause)
        for seconds, start, pause in zip(ends, first.ends, between.ends, strict=True)
    )
    return Estimate(low, likely, high)
