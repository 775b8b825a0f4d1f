"""What must hold on every kind of device: a CPU and, where there is one, a GPU."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeRun
from packs import (
    CLASSES,
    NETWORKS,
    OPTIMIZERS,
    assert_zero_outside,
    batches_for,
    pack_of,
    recipe_of,
    state_of,
    train,
)

from ltray.data import batches as batches_module
from ltray.data.batches import Batches, open_data_set
from ltray.data.manifest import read_manifest
from ltray.lottery.snapshot import load_snapshot, save_snapshot
from ltray.run import Run
from ltray.training.backends import trial
from ltray.training.backends.choice import COMPILED, UNCOMPILED, open_backend
from ltray.training.backends.trial import choose
from ltray.training.network import Network
from ltray.training.place import memory_for_pack, this_place

pytestmark = pytest.mark.long

ON_A_GPU = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)
ARCHS = ("lenet_300_100", "resnet20")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=ON_A_GPU)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set up as a trial's is."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    yield this_place(gpus=int(request.param == "cuda")).device.type
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = benchmark


@pytest.mark.parametrize("optimizer", ["nesterov", "adam"])
@pytest.mark.parametrize("arch", ARCHS)
def test_fused_equals_the_loop(device: str, arch: str, optimizer: str) -> None:
    recipe = recipe_of(**OPTIMIZERS[optimizer])
    packs = {name: pack_of(arch, 3, recipe, torch.float64, device) for name in ("loop", "fused")}
    for name, pack in packs.items():
        train(name, pack, arch, 20)
    for one, other in zip(packs["loop"], packs["fused"], strict=True):
        assert_near(other, one)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("backend", UNCOMPILED)
def test_a_ticket_may_join_others_whose_optimizer_has_a_state(
    device: str, backend: str, optimizer: str
) -> None:
    if device == "cuda" and backend == "csr":
        pytest.skip("csr is for CPUs")
    recipe = recipe_of(**OPTIMIZERS[optimizer])
    alone, pack = (pack_of("lenet_300_100", 3, recipe, torch.float64, device) for _ in range(2))
    for network in alone:
        network.step = 10 if network is alone[2] else 0
        train("loop", [network], "lenet_300_100", 10)
    train(backend, pack[:2], "lenet_300_100", 10)
    pack[2].step = 10  # its reset point
    train(backend, pack, "lenet_300_100", 10)
    for network in alone[:2]:
        train("loop", [network], "lenet_300_100", 10)
    for one, other in zip(alone, pack, strict=True):
        assert_near(other, one)
        assert_masked(other)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("backend", ["loop", "fused"])
@pytest.mark.parametrize("arch", ARCHS)
def test_what_is_masked_is_exactly_zero_after_50_steps_in_bfloat16(
    device: str, arch: str, backend: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(**OPTIMIZERS[optimizer], precision="bfloat16")
    pack = pack_of(arch, 2, recipe, torch.float32, device)
    train(backend, pack, arch, 50)
    assert pack[0].factors
    for network in pack:
        assert_masked(network)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("backend", ["loop", "fused"])
def test_going_on_from_a_saved_state_gives_the_bits_of_never_having_stopped(
    device: str, backend: str, optimizer: str, tmp_path: Path
) -> None:
    check_going_on(device, backend, optimizer, tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # the compiler would use them
@pytest.mark.parametrize("backend", COMPILED.values())
def test_going_on_with_compiled_steps_gives_the_bits_of_never_having_stopped(
    backend: str, tmp_path: Path
) -> None:
    check_going_on(this_place(gpus=1).device.type, backend, "sgd", tmp_path)


def check_going_on(device: str, backend: str, optimizer: str, tmp_path: Path) -> None:
    recipe = recipe_of(**OPTIMIZERS[optimizer])
    whole, begun, resumed = (
        pack_of("resnet20", 2, recipe, torch.float32, device) for _ in range(3)
    )
    train(backend, whole, "resnet20", 15)
    train(backend, whole, "resnet20", 15)
    train(backend, begun, "resnet20", 15)
    for place, network in enumerate(begun):
        save_snapshot(tmp_path / "state", network.snapshot())
        resumed[place] = reopened(resumed[place], tmp_path / "state")
    train(backend, resumed, "resnet20", 15)
    for one, other in zip(whole, resumed, strict=True):
        expected, found = state_of(one), state_of(other)
        assert expected.keys() == found.keys()
        assert [key for key in expected if not torch.equal(expected[key], found[key])] == []


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", COMPILED.values())
def test_compiled_steps_equal_those_of_the_loop(backend: str) -> None:
    device = this_place(gpus=1).device.type
    recipe = recipe_of(**OPTIMIZERS["nesterov"])
    packs = {
        name: pack_of("resnet20", 3, recipe, torch.float64, device) for name in ("loop", backend)
    }
    for name, pack in packs.items():
        train(name, pack, "resnet20", 20)
    for one, other in zip(packs["loop"], packs[backend], strict=True):
        assert_near(other, one)
        assert_masked(other)


BITS = """
import hashlib, sys, torch
from packs import OPTIMIZERS, pack_of, recipe_of, state_of, train
from ltray.training.place import this_place
device = this_place(gpus=1).device.type
recipe = recipe_of(**OPTIMIZERS["sgd"], precision="bfloat16")
pack = pack_of("resnet20", 2, recipe, torch.float32, device)
train(sys.argv[1], pack, "resnet20", 10)
whole = hashlib.sha256()
for network in pack:
    for name, part in sorted(state_of(network).items()):
        whole.update(part.cpu().contiguous().numpy().tobytes())
print(whole.hexdigest())
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", COMPILED.values())
def test_what_each_process_compiles_for_itself_gives_the_same_bits(backend: str) -> None:
    paths = os.pathsep.join(map(str, (Path(__file__).parents[1], Path(__file__).parent)))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{paths}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    environment["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    command = [sys.executable, "-c", BITS, backend]
    running = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    one, other = (process.communicate(timeout=300)[0] for process in running)
    assert [process.returncode for process in running] == [0, 0]
    assert one == other


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # the compiler would use them
def test_compiled_steps_are_tried_where_training_takes_long_and_what_fails_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = this_place(gpus=1).device
    recipe = recipe_of(**OPTIMIZERS["sgd"])
    tickets = [
        partial(
            lambda number: pack_of("conv2", 2, recipe, torch.float32, device.type)[number], number
        )
        for number in range(2)
    ]
    images, labels = next(batches_for("conv2", 1, torch.float32))
    batch, memory = (images.to(device), labels.to(device)), memory_for_pack(device)
    assert choose("auto", tickets, batch, memory, 100).milliseconds.keys() == {"loop", "fused"}
    long = choose("auto", tickets, batch, memory, 10**9)
    assert len(long.milliseconds.keys() - {"loop", "fused"}) == 1
    assert long.milliseconds.keys() <= {"loop", "fused", *COMPILED.values()}
    assert long.left_out is None

    def without_a_compiler(name: str, seats: Any) -> Any:
        if name in COMPILED.values():
            raise RuntimeError("no C compiler\nsecond line")
        return open_backend(name, seats)

    monkeypatch.setattr(trial, "open_backend", without_a_compiler)
    choice = choose("auto", tickets, batch, memory, 10**9)
    assert choice.backend in {"loop", "fused"}
    told = choice.told()
    assert told is not None
    assert told.endswith("left out: RuntimeError: no C compiler")


@pytest.mark.parametrize("augment", ["none", "random_crop", "random_resized_crop"])
@pytest.mark.parametrize("budget", [0, 2**40], ids=["streamed", "resident"])
def test_batches_are_those_of_a_cpu_bit_for_bit(
    device: str, augment: str, budget: int, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(data__augment=augment, data__encoding="jpeg")
    expected = list(batches_on("cpu", run).epoch(1))
    monkeypatch.setattr(batches_module, "resident_budget", lambda _device: budget)
    found = list(batches_on(device, run).epoch(1))
    assert len(found) == len(expected) == 20
    for (images, labels), (its_images, its_labels) in zip(expected, found, strict=True):
        assert its_images.device.type == its_labels.device.type == device
        assert torch.equal(its_images.cpu(), images)
        assert torch.equal(its_labels.cpu(), labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("arch", "backend"),
    [
        *product(("lenet_300_100", "resnet20", "alexnet"), ("loop", "fused")),  # the last drops out
        *(("conv2", backend) for backend in COMPILED.values()),
    ],
)
@pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation")
def test_training_steps_wait_for_nothing_that_the_gpu_has_to_do(
    arch: str, backend: str, optimizer: str
) -> None:
    device = this_place(gpus=1).device.type
    recipe = recipe_of(**OPTIMIZERS[optimizer], precision="bfloat16", label_smoothing=0.1)
    together = open_backend(backend, tuple(pack_of(arch, 3, recipe, torch.float32, device)))
    channels, size = NETWORKS[arch]
    images = torch.randn(8, channels, size, size, device=device)
    labels = torch.randint(CLASSES, (8,), device=device)
    together.train_step(images, labels)
    with no_waiting():
        for _ in range(3):
            together.train_step(images, labels)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("augment", ["none", "random_crop", "random_resized_crop"])
@pytest.mark.parametrize("budget", [0, 2**40], ids=["streamed", "resident"])
def test_batches_wait_for_nothing_that_the_gpu_has_to_do(
    augment: str, budget: int, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(data__augment=augment, data__encoding="jpeg")
    monkeypatch.setattr(batches_module, "resident_budget", lambda _device: budget)
    batches = batches_on(this_place(gpus=1).device.type, run)
    with no_waiting():
        assert len(list(batches.epoch(0))) == 20


class no_waiting:  # noqa: N801 (reads as what it is)
    """Whatever waits for the GPU in here is an error."""

    def __enter__(self) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
            torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *_error: object) -> None:
        torch.cuda.set_sync_debug_mode("default")


def batches_on(device: str, run: Run) -> Batches:
    manifest = read_manifest(run.data)
    data_set = open_data_set(run.data, manifest, run.experiment.data, torch.device(device), 2)
    return Batches(data_set, batch_size=60, data_seed=0)


def reopened(fresh: Network, state: Path) -> Network:
    """The network of a new process, from its state file."""
    mask = {name: factor.bool() for name, factor in fresh.factors.items()}
    return Network(fresh.name, fresh.model, load_snapshot(state), mask, fresh.recipe, 7)


def assert_near(found: Network, expected: Network) -> None:
    """Equal but for rounding, which 20 steps in float64 let grow to 1e-12 on a CPU."""
    values = state_of(expected)
    assert state_of(found).keys() == values.keys()
    for key, value in state_of(found).items():
        torch.testing.assert_close(value, values[key], rtol=1e-9, atol=1e-9, msg=key)


def assert_masked(network: Network) -> None:
    for name, kept in network.factors.items():
        assert_zero_outside(network, name, kept.bool())
