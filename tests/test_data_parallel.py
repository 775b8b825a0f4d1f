"""Two processes that train one network together, against one process: gloo, on CPUs."""

import copy
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import own_network
import pytest
import torch
from commands import (
    finish,
    group_workers,
    only_run,
    pretended_gpus,
    start,
    wait_until,
    write_experiment,
)
from commands import run as run_command
from conftest import MakeRun, small_document
from processes import Crew, crew
from safetensors.torch import load_file
from torch import nn

from ltray.cluster.resources import Cluster, groups_at_once
from ltray.errors import LtrayError, MachineLeaves, StageFailed
from ltray.experiment import Sweep, Train
from ltray.files import sha256_of
from ltray.group import ALONE, Group, Processes
from ltray.layout import RunFolder
from ltray.lottery.snapshot import Snapshot, load_snapshot
from ltray.lottery.trajectory import EpochRow, Trajectory, read_trajectory
from ltray.models.networks import build
from ltray.run import Run
from ltray.training import states
from ltray.training.backends.loop import Loop
from ltray.training.batch_norm import synchronise
from ltray.training.dense import train_dense
from ltray.training.evaluation import Scores, evaluate
from ltray.training.network import Network
from ltray.training.place import this_place
from ltray.training.recipe import Recipe
from ltray.training.shared_network import SharedNetwork
from ltray.training.start import open_batches, untrained

pytestmark = pytest.mark.long

ODD_BATCH = 7  # the two processes have 3 and 4 images of it


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crew]:
    with crew(2, tmp_path_factory.mktemp("store") / "store") as two:
        yield two


def recipe_of(train: dict[str, Any]) -> Recipe:
    usual: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
    return Recipe(Train(**{"epochs": 9, "batch_size": ODD_BATCH, **usual, **train}), 4)


def trained(group: Group, arch: str, steps: int, train: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights, statistics, optimizer and loss in float64 after some steps of odd batches."""
    model = build(arch, 10, 3, 16, seed=1).double().to(memory_format=torch.channels_last)
    start = Snapshot(step=0, model=copy.deepcopy(model.state_dict()))
    arguments: Any = ("dense", model, start, {}, recipe_of(train), 7)
    network = SharedNetwork(*arguments, group=group) if group.size > 1 else Network(*arguments)
    source = torch.Generator().manual_seed(11)
    for _ in range(steps):
        images = torch.randn(ODD_BATCH, 3, 16, 16, generator=source, dtype=torch.float64)
        labels = torch.randint(10, (ODD_BATCH,), generator=source)
        part = group.part(range(ODD_BATCH))
        own = slice(part.start, part.stop)
        network.train_step(images[own].to(memory_format=torch.channels_last), labels[own])
    snapshot = network.snapshot()
    state = {**snapshot.model, "loss": snapshot.loss_sum}
    for name, parts in snapshot.optimizer.items():
        state |= {f"{kind} of {name}": part for kind, part in parts.items()}
    return state


@pytest.mark.parametrize(
    ("arch", "train"),
    [
        ("resnet20", {}),
        ("resnet20", {"label_smoothing": 0.1, "nesterov": True}),
        ("lenet_300_100", {"optimizer": "adam", "lr": 1e-3, "momentum": 0.0}),
    ],
)
def test_twenty_steps_of_two_processes_are_those_of_one(
    pair: Crew, arch: str, train: dict[str, Any]
) -> None:
    one, other = pair.do(trained, arch, 20, train)
    alone = trained(ALONE, arch, 20, train)
    assert one.keys() == other.keys() == alone.keys()
    for name, tensor in alone.items():
        assert torch.equal(one[name], other[name]), f"{name}: the copies have drifted apart"
        # Only the order of sums differs; 20 steps carry that from 1e-16 to about 1e-13.
        torch.testing.assert_close(one[name], tensor, rtol=0, atol=1e-10)
    assert not torch.equal(alone["loss"], torch.zeros(()))


def dropped(group: Group) -> list[torch.Tensor]:
    """Which features one step lets through, for steps 0 and 0 again and 1."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 64), nn.Dropout(0.5))
    start = Snapshot(step=0, model=dict(model.state_dict()))
    network = SharedNetwork("dense", model, start, {}, recipe_of({}), 7, group=group)
    seen = []
    for step in (0, 0, 1):
        network.step = step
        network.prepare_step(network.optimizer)
        seen.append(model(torch.ones(2, 3, 2, 2)) == 0)
    return seen


def test_dropout_is_of_the_step_and_the_process_alone(pair: Crew) -> None:
    one, other = pair.do(dropped)
    for first, again, later in (one, other):
        assert torch.equal(first, again)
        assert not torch.equal(first, later)
    assert not torch.equal(one[0], other[0])


BATCH_NORMS = {
    "images": (nn.BatchNorm2d(4), (ODD_BATCH, 4, 3, 5)),
    "features": (nn.BatchNorm1d(4), (ODD_BATCH, 4)),
    "without weights": (nn.BatchNorm2d(4, affine=False), (ODD_BATCH, 4, 3, 5)),
    "over all batches": (nn.BatchNorm2d(4, momentum=None), (ODD_BATCH, 4, 3, 5)),
    "without statistics": (nn.BatchNorm2d(4, track_running_stats=False), (ODD_BATCH, 4, 3, 5)),
}


def normalised(group: Group, kind: str, dtype: torch.dtype, shift: float) -> dict[str, Any]:
    """Outputs and gradients of this process's rows in two steps, then running statistics."""
    module, shape = BATCH_NORMS[kind]
    model = nn.Sequential(copy.deepcopy(module))
    if group.size > 1:
        synchronise(model, group)
    source = torch.Generator().manual_seed(5)
    weights = torch.randn(shape, generator=source)
    found: dict[str, Any] = {"made": [], "gradients": []}
    part = group.part(range(ODD_BATCH))
    for _ in range(2):
        images = (torch.randn(shape, generator=source) + shift).to(dtype)[part.start : part.stop]
        images.requires_grad_()
        made = model(images)
        (made * weights[part.start : part.stop]).sum().backward()
        found["made"].append(made.detach())
        found["gradients"].append(images.grad)
    own = {name: one.grad for name, one in model.named_parameters()}
    found["names"] = list(model.state_dict())
    model.eval()
    statistics = dict(model.named_buffers())
    found["evaluated"] = model(torch.ones(shape, dtype=dtype)).detach() if statistics else None
    return {**found, "parameters": own, "statistics": statistics}


@pytest.mark.parametrize("kind", BATCH_NORMS)
def test_batch_norm_is_that_of_the_whole_batch(pair: Crew, kind: str) -> None:
    # A mean of 1000 deviations: sums of squares in float32 would lose the variance.
    one, other = pair.do(normalised, kind, torch.float32, 1000.0)
    alone = normalised(ALONE, kind, torch.float32, 1000.0)
    close: Any = {"rtol": 1e-4, "atol": 1e-3}  # float32 rounds 1000 by up to 3e-5 of a deviation
    assert one["names"] == alone["names"]
    for step in range(2):
        for what in ("made", "gradients"):
            joined = torch.cat([one[what][step], other[what][step]])
            torch.testing.assert_close(joined, alone[what][step], **close)
    for name, gradient in alone["parameters"].items():
        sums = one["parameters"][name] + other["parameters"][name]
        torch.testing.assert_close(sums, gradient, **close)
    for name, buffer in alone["statistics"].items():
        torch.testing.assert_close(one["statistics"][name], buffer, **close)
        assert torch.equal(one["statistics"][name], other["statistics"][name])
    torch.testing.assert_close(one["evaluated"], alone["evaluated"], **close)


def test_batch_norm_keeps_the_precision_of_its_input(pair: Crew) -> None:
    one, _ = pair.do(normalised, "images", torch.bfloat16, 0.0)
    assert one["made"][0].dtype == one["gradients"][0].dtype == torch.bfloat16
    assert one["statistics"]["0.running_var"].dtype == torch.float32


def scores(group: Group, run: Run) -> Scores:
    place = this_place()
    batches = open_batches(run, place, 0, group)
    model = untrained(run, batches.classes, 0, place.device)
    start = Snapshot(step=0, model=dict(model.state_dict()))
    network = Network("dense", model, start, {}, recipe_of({}), 0)
    return evaluate([Loop((network,))], batches)[0]


def test_evaluation_has_every_image_once_in_the_fixed_order(pair: Crew, make_run: MakeRun) -> None:
    run = make_run(model__arch="resnet20")
    alone = scores(ALONE, run)
    for together in pair.do(scores, run):
        assert together.figures == pytest.approx(alone.figures, rel=1e-6)  # float32, other batches
        for split, hits in alone.correct.items():
            assert torch.equal(together.correct[split], hits)


def dense_run(group: Group, run: Run, killed_after: int | None = None) -> list[EpochRow]:
    """Train; all processes are killed when so many rows have come. Saves its state each time."""
    rows: list[EpochRow] = []

    def on_row(row: EpochRow) -> None:
        if len(rows) == killed_after:
            os.kill(os.getpid(), signal.SIGKILL)
        rows.append(row)

    with patch.object(states, "LARGEST_SHARE", math.inf):
        train_dense(run, 0, this_place(), on_row, group)
    return rows


def trajectory_bits(run: Run) -> dict[str, str]:
    folder = run.folder.replicate(0).trajectory.parent
    return {path.name: sha256_of(path) for path in folder.glob("*.safetensors")}


def trajectory_of(folder: RunFolder) -> Trajectory:
    trajectory = read_trajectory(folder.replicate(0))
    assert trajectory is not None
    return trajectory


RESNET = {"model__arch": "resnet20", "data__train_limit": 150, "train__batch_size": 25}


def test_a_dense_run_of_two_is_that_of_one_and_written_once(pair: Crew, make_run: MakeRun) -> None:
    together, alone = make_run(), make_run()  # without BatchNorm, which blows rounding up
    one, other = pair.do(dense_run, together)
    rows = dense_run(ALONE, alone)
    assert len(one) == len(other) == len(rows) == 3
    for row, peer, by_one in zip(one, other, rows, strict=True):
        assert row["train_loss"] == peer["train_loss"] == pytest.approx(by_one["train_loss"], 1e-4)
        assert row["val_top1"] == peer["val_top1"]
    record = trajectory_of(together.folder)
    assert record.row["gpus"] == 0
    assert record.row["attempts"] == 1
    assert record.sha256.keys() == trajectory_of(alone.folder).sha256.keys()
    assert record.sha256 == trajectory_bits(together)
    weights = [load_file(run.folder.replicate(0).step(0)) for run in (together, alone)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_killed_dense_run_of_two_gives_the_bits_of_the_undisturbed_one(
    pair: Crew, make_run: MakeRun, tmp_path: Path
) -> None:
    undisturbed, killed = make_run(**RESNET), make_run(**RESNET)
    pair.do(dense_run, undisturbed)
    with crew(2, tmp_path / "store") as victims, pytest.raises((EOFError, ConnectionError)):
        victims.do(dense_run, killed, 2)
    folder = killed.folder.replicate(0)
    assert not folder.trajectory.exists()
    assert folder.dense_state.is_file()
    rows, _ = pair.do(dense_run, killed)
    assert [row["epoch"] for row in rows] == [3.0]
    assert trajectory_of(killed.folder).row["attempts"] == 2
    step = trajectory_of(killed.folder).total_steps
    assert weights_at(killed.folder, step) == weights_at(undisturbed.folder, step)
    correct = "correct.safetensors"
    assert trajectory_bits(killed)[correct] == trajectory_bits(undisturbed)[correct]


def leaving_dense_run(group: Group, run: Run) -> None:
    """Train, where the second process's machine is to be taken away."""
    notices = iter([""])
    leaves = (lambda: next(notices, "it ends")) if group.rank else None
    train_dense(run, 0, replace(this_place(), leaves=leaves), lambda _row: None, group)


def test_a_notice_to_one_machine_has_the_state_written_and_all_leave(
    pair: Crew, make_run: MakeRun
) -> None:
    undisturbed, left = make_run(), make_run()
    pair.do(dense_run, undisturbed)
    for error in pair.do(leaving_dense_run, left):
        assert isinstance(error, MachineLeaves)
        assert str(error) == "it ends"
    assert not left.folder.replicate(0).trajectory.exists()
    state = load_snapshot(left.folder.replicate(0).dense_state)
    assert 20 < state.step < 60
    pair.do(dense_run, left)
    assert trajectory_of(left.folder).row["attempts"] == 2
    assert weights_at(left.folder, 60) == weights_at(undisturbed.folder, 60)


def weights_at(folder: RunFolder, step: int) -> dict[str, bytes]:
    """Everything in a step's file but its header, which has the seconds that training took."""
    tensors = load_file(folder.replicate(0).step(step))
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


def test_divergence_stops_all_processes(pair: Crew, make_run: MakeRun) -> None:
    run = make_run(**RESNET, train__lr=1e30)
    for error in pair.do(dense_run, run):
        assert isinstance(error, StageFailed)
        assert "not finite" in str(error)
    assert not run.folder.replicate(0).trajectory.exists()


def on_other_devices(group: Group) -> None:
    Processes(torch.device("cuda" if group.rank else "cpu"))


def test_a_gpu_that_only_some_processes_see_is_an_error(pair: Crew) -> None:
    for error in pair.do(on_other_devices):
        assert isinstance(error, LtrayError)
        assert "torch sees no GPU in 1 of its 2 processes" in str(error)


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[tuple[str, int]]:
    """The address and the session of a cluster with two pretended ones."""
    with pretended_gpus(2) as cluster:
        yield cluster


TWO_GPUS = {"sweep": {"dense_gpus": 2}}


@pytest.mark.ray
def test_ray_trains_on_two_gpus_what_two_bare_processes_train(
    two_gpus: tuple[str, int], pair: Crew, make_run: MakeRun, tmp_path: Path
) -> None:
    path = write_experiment(tmp_path / "small.yaml", small_document(TWO_GPUS))
    ended = run_command("dense", path, "--address", two_gpus[0], folder=tmp_path)
    assert ended.status == 0, ended
    assert "dense run, replicate 0: epoch 3/3" in ended.out
    folder = RunFolder(only_run(tmp_path / "runs", "small"))
    row = trajectory_of(folder).row
    assert (row["gpus"], row["device"], row["cuda_visible_devices"]) == (2, "cpu", "0,1")
    bare = make_run(**TWO_GPUS)
    pair.do(dense_run, bare)
    assert weights_at(folder, 60) == weights_at(bare.folder, 60)


@pytest.mark.ray
def test_what_stops_a_group_is_the_text_that_stops_one_process(
    two_gpus: tuple[str, int], tmp_path: Path
) -> None:
    document = small_document({**TWO_GPUS, "train__lr": 1e30})
    path = write_experiment(tmp_path / "small.yaml", document)
    ended = run_command("dense", path, "--address", two_gpus[0], folder=tmp_path)
    assert ended.status == 1
    assert ended.err.startswith("dense run, replicate 0: its loss is not finite after step 20\n")
    assert ended.err.count("\n") == 2, "nothing but the text"


@pytest.mark.ray
@pytest.mark.slow
def test_a_group_of_which_one_process_is_killed_gives_the_bits_of_an_undisturbed_one(
    two_gpus: tuple[str, int], pair: Crew, make_run: MakeRun, tmp_path: Path
) -> None:
    changes = {**TWO_GPUS, "train__epochs": 80}
    path = write_experiment(tmp_path / "small.yaml", small_document(changes))
    address, session = two_gpus
    process = start("dense", path, "--address", address, folder=tmp_path)
    begun = "small-*/replicate-0/trajectory/step-0000020.safetensors"
    wait_until(lambda: bool(list((tmp_path / "runs").glob(begun))), process)
    os.kill(group_workers(session)[-1], signal.SIGKILL)
    ended = finish(process)
    assert ended.status == 0, ended
    folder = RunFolder(only_run(tmp_path / "runs", "small"))
    assert trajectory_of(folder).row["attempts"] == 2
    bare = make_run(**changes)
    pair.do(dense_run, bare)
    assert weights_at(folder, 80 * 20) == weights_at(bare.folder, 80 * 20)


# On GPU 0 the fourth step meets a hardware error.
ON_A_BROKEN_GPU = """\
import os

from torch import nn


class Unlucky(nn.Linear):
    steps = 0

    def forward(self, images):
        self.steps += self.training
        if self.steps == 4 and "0" in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        return super().forward(images.flatten(1))


def unlucky(classes, channels, image_size):
    return Unlucky(channels * image_size**2, classes)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_group_goes_on_without_a_broken_gpu(tmp_path: Path) -> None:
    path = own_network.written(tmp_path, ON_A_BROKEN_GPU, **TWO_GPUS, model__arch="nets.py:unlucky")
    with pretended_gpus(3, cpus=4) as (address, _):
        ended = run_command("dense", path, "--address", address, folder=tmp_path)
    assert ended.status == 0, ended
    assert ended.out.count("given no more work: GPU 0 on") == 1
    row = trajectory_of(RunFolder(only_run(tmp_path / "runs", "small"))).row
    assert row["cuda_visible_devices"] == "1,2"


HOLDS_A_GPU = """
import sys
import time

import ray

from ltray.cluster.session import Connection, session

class Holder:
    def hold(self):
        pass

with session(Connection(sys.argv[1])):
    holder = ray.remote(num_gpus=1, num_cpus=0)(Holder).remote()
    ray.get(holder.hold.remote())
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_group_says_what_it_waits_for(two_gpus: tuple[str, int], tmp_path: Path) -> None:
    path = write_experiment(tmp_path / "small.yaml", small_document(TWO_GPUS))
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS_A_GPU, two_gpus[0]], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    ended = run_command("dense", path, "--address", two_gpus[0], folder=tmp_path)
    holder.communicate()
    assert ended.status == 0, ended
    assert "waiting: not each of 2 processes of a dense run has 1 CPU and 1 GPU; " in ended.out


def test_a_group_may_lie_on_several_nodes_but_needs_a_gpu_for_each_process() -> None:
    cluster = Cluster(nodes=((4, 2), (4, 1), (64, 0)), gpu_names=(), dashboard="", joined=False)
    assert groups_at_once(Sweep(), cluster, 3) == (1, 2)
    assert groups_at_once(Sweep(cpus_per_trial=1), cluster, 1) == (3, 1)
    with pytest.raises(LtrayError, match=r"sweep.dense_gpus.*there is room for 3"):
        groups_at_once(Sweep(), cluster, 4)
    with pytest.raises(LtrayError, match="there is room for 1;"):
        groups_at_once(Sweep(cpus_per_trial=3), Cluster(((4, 2),), (), "", joined=False), 2)
