"""The dense run: one network without a mask, saved at the reset points and at the end."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from ltray.errors import StageFailed
from ltray.experiment import replicate_seeds
from ltray.files import is_there, remove, sha256_of
from ltray.group import ALONE, Group
from ltray.lottery.snapshot import Snapshot, load_snapshot, save_snapshot
from ltray.lottery.trajectory import (
    EpochRow,
    Trajectory,
    read_trajectory,
    saved_steps,
    write_trajectory,
)
from ltray.models.prunable import output_layer, prunable
from ltray.run import Run
from ltray.training.backends.choice import COMPILED, check_covers
from ltray.training.backends.loop import Loop
from ltray.training.backends.trial import Choice, choose
from ltray.training.evaluation import evaluate
from ltray.training.fit import Member, fit
from ltray.training.gpu_use import GpuUse
from ltray.training.network import Network
from ltray.training.place import Place, memory_for_pack
from ltray.training.recipe import Recipe
from ltray.training.shared_network import SharedNetwork
from ltray.training.start import (
    begin,
    chosen,
    conditions,
    images_per_second,
    measured,
    note,
    now,
    open_batches,
    save_correct,
    untrained,
)
from ltray.training.states import States

BY_LOOP = Choice("loop", fits=1)
OnRow = Callable[[EpochRow], None]


def train_dense(
    run: Run, replicate: int, place: Place, on_row: OnRow, group: Group = ALONE
) -> Trajectory:
    """Make a replicate's trajectory whole, or add the reset points that it lacks.

    Goes on from the nearest earlier step that was saved, with the bits of never having stopped.
    Of a group, every process calls this; only the first reads and writes the replicate's folder.

    Args:
        on_row: called with each epoch row as it comes, in every process of a group; it also has
            images_per_second, gpu_utilisation and gpu_memory_bytes.
        group: the processes that train it together.

    Raises:
        StageFailed: the loss is no longer finite. There is no grid without a dense network.
    """
    return _DenseRun(run, replicate, place, on_row, group).make_whole()


class _DenseRun:
    def __init__(self, run: Run, replicate: int, place: Place, on_row: OnRow, group: Group) -> None:
        self.run = run
        self.replicate = replicate
        self.place = place
        self.on_row = on_row
        self.group = group
        self.seed, self.data_seed = replicate_seeds(run.experiment, replicate)
        self.folder = run.folder.replicate(replicate)
        self.batches = open_batches(run, place, self.data_seed, group)
        self.recipe = Recipe(run.experiment.train, self.batches.steps_per_epoch)
        self.states = States(self._write_state, group.heard(place.leaves))
        self.gpu_use = GpuUse(place.gpu_uuids)

    def make_whole(self) -> Trajectory:
        record, missing = self.group.first(self._left)
        if record is not None and not missing:
            return record
        self._check_experiment()
        started_at = now()
        attempts = self.group.first(partial(begin, self.folder.dense_attempts))
        self.choice = self.group.first(partial(self._choice, record))
        network: Network | None = None
        for step in missing:
            network = self._trained_to(step, network)
            self._save(self.folder.step(step), network)
        if record is None:
            network = self._trained_to(self.recipe.total_steps, network)
            if not network.correct:  # it stood at the end already when it was loaded
                network.correct = evaluate([Loop((network,))], self.batches)[0].correct
            record = self.group.first(partial(self._new_record, network, started_at, attempts))
        return self.group.first(partial(self._written, record, missing))

    def _left(self) -> tuple[Trajectory | None, list[int]]:
        """The record, if there is one, and the steps that are not saved."""
        record = read_trajectory(self.folder)
        return record, [step for step in self._wanted() if not self._has(record, step)]

    def _written(self, record: Trajectory, missing: Sequence[int]) -> Trajectory:
        """Write trajectory.json, with the steps that were missing."""
        hashes = {path.name: sha256_of(path) for path in map(self.folder.step, missing)}
        record = record.model_copy(update={"sha256": {**record.sha256, **hashes}})
        write_trajectory(self.folder, record)
        remove(self.folder.dense_state)
        return record

    def _check_experiment(self) -> None:
        """What the retrainings could not do is an error now, before the dense run is paid for."""
        experiment = self.run.experiment
        packs_without_gpus = experiment.sweep.gpus_per_trial == 0
        device = torch.device("cpu") if packs_without_gpus else self.place.device
        model = untrained(self.run, self.batches.classes, self.seed, device)
        prunable(model, experiment.prune.keep_dense)
        check_covers(experiment.sweep.backend, model)

    def _choice(self, record: Trajectory | None) -> Choice:
        """As the run was begun: all of a trajectory lies on one way. Written before a new one."""
        if record is not None:
            return Choice(record.row["backend"], fits=1)
        before = chosen(self.folder.dense_attempts, self.place.device_name)
        begun = any(self.folder.trajectory.parent.glob("step-*.safetensors"))
        choice = before or (BY_LOOP if begun else self._new_choice())
        note(self.folder.dense_attempts, self.place.device_name, choice)
        return choice

    def _new_choice(self) -> Choice:
        """By `loop`, and with compiled steps where they are asked for, or pay on one GPU."""
        wanted = self.run.experiment.sweep.backend
        if self.group.size > 1:
            return BY_LOOP
        if wanted in COMPILED.values():
            return Choice(COMPILED["loop"], fits=1)
        if wanted != "auto" or self.place.device.type == "cpu":
            return BY_LOOP
        batch = next(self.batches.epoch(0, 0, 1))
        memory, steps = memory_for_pack(self.place.device), self.recipe.total_steps
        return choose("auto", [partial(self._network, None)], batch, memory, steps)

    def _wanted(self) -> list[int]:
        points = self.run.experiment.reset.epochs
        return saved_steps(points, self.recipe.steps_per_epoch, self.recipe.total_steps)

    def _has(self, record: Trajectory | None, step: int) -> bool:
        return record is not None and record.has_step(self.folder, step)

    def _trained_to(self, step: int, network: Network | None) -> Network:
        """The network after `step` steps, from where it stands or was saved nearest before."""
        stands_at = -1 if network is None else network.step
        snapshot = self.group.first(partial(self._saved_between, stands_at, step))
        if network is None or snapshot is not None:
            network = self._network(snapshot)
        alone = [Member(0, self.choice.backend, 0, network)]
        with self.gpu_use:
            fit(alone, self.batches, self.recipe, self._on_epoch, self.states, until=step)
        return network

    def _saved_between(self, after: int, until: int) -> Snapshot | None:
        """The last step that was saved later than `after` and not later than `until`."""
        files = [*self.folder.trajectory.parent.glob("step-*.safetensors")]
        steps = {int(path.stem.removeprefix("step-")): path for path in files}
        if is_there(self.folder.dense_state):
            steps[load_snapshot(self.folder.dense_state).step] = self.folder.dense_state
        saved = [step for step in steps if after < step <= until]
        return load_snapshot(steps[max(saved)]) if saved else None

    def _network(self, snapshot: Snapshot | None) -> Network:
        model = untrained(self.run, self.batches.classes, self.seed, self.place.device)
        start = snapshot or Snapshot(step=0, model=dict(model.state_dict()))
        if self.group.size > 1:
            return SharedNetwork(
                "dense", model, start, {}, self.recipe, self.data_seed, group=self.group
            )
        return Network("dense", model, start, {}, self.recipe, self.data_seed)

    def _save(self, path: Path, network: Network) -> None:
        if self.group.rank == 0:
            save_snapshot(path, network.snapshot())

    def _on_epoch(self, networks: Sequence[Network]) -> None:
        (network,) = networks
        if network.diverged:
            raise StageFailed(
                f"dense run, replicate {self.replicate}",
                f"its loss is not finite after step {network.step}",
                "lower train.lr or add train.warmup_epochs",
            )
        self.on_row(
            {
                **network.epochs[-1],
                "replicate": self.replicate,
                "images_per_second": images_per_second(network, self.recipe),
                **self.gpu_use.columns(),
            }
        )

    def _write_state(self, network: Network) -> None:
        self._save(self.folder.dense_state, network)

    def _new_record(self, network: Network, started_at: str, attempts: int) -> Trajectory:
        row = {
            "ticket": network.name,
            "replicate": self.replicate,
            "seed": self.seed,
            "data_seed": self.data_seed,
            **measured(network, self.recipe),
            **self.gpu_use.columns(),
            **conditions(self.place, self.choice, started_at, attempts),
            "gpus": self.place.gpus * self.group.size,
        }
        names = prunable(network.model)
        sizes = {name: tensor.numel() for name, tensor in network.model.named_parameters()}
        return Trajectory(
            row=row,
            epochs=[{**epoch, "replicate": self.replicate} for epoch in network.epochs],
            prunable={name: sizes[name] for name in names},
            output_layer=output_layer(network.model),
            parameters=sum(sizes.values()),
            steps_per_epoch=self.recipe.steps_per_epoch,
            total_steps=self.recipe.total_steps,
            sha256={
                self.folder.dense_correct.name: save_correct(
                    self.folder.dense_correct, network.correct
                )
            },
        )
