"""What goes wrong with memory, processes and disks, and what a sweep makes of it.

docs/failures.md says the same in words; tests/test_commands.py kills workers and drivers.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import own_network
import pytest
from commands import final_bits, only_run, pretended_gpus, rows, run, write_experiment
from conftest import MakeRun, prepare_without_ray, small_document, train_without_ray

from ltray.analysis.results import collect
from ltray.experiment_file import read_experiment
from ltray.files import read_json
from ltray.locate import locate_experiment
from ltray.record import write_experiment as write_run
from ltray.run import Run

# Has memory for so many pruned networks.
HUNGRY = """\
import weakref

import torch
from torch import nn

THERE = weakref.WeakSet()


class Hungry(nn.Module):
    def __init__(self, classes, channels, image_size):
        super().__init__()
        self.fc = nn.Linear(channels * image_size**2, classes)
        THERE.add(self)

    def forward(self, images):
        pruned = [one for one in THERE if (one.fc.weight == 0).float().mean() > 0.4]
        if self.training and len(pruned) > {room}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return self.fc(images.flatten(1))


def hungry(classes, channels, image_size):
    return Hungry(classes, channels, image_size)
"""
# Takes its process with it where nine tenths of its weights are gone.
POISONED = """\
import ctypes

from torch import nn


class Poisoned(nn.Linear):
    def forward(self, images):
        if self.training and (self.weight == 0).float().mean() > 0.85:
            ctypes.string_at(0)
        return super().forward(images.flatten(1))


def poisoned(classes, channels, image_size):
    return Poisoned(channels * image_size**2, classes)
"""
# On GPU 0 a pruned network meets a hardware error.
ON_A_BROKEN_GPU = """\
import os

from torch import nn


class Unlucky(nn.Linear):
    def forward(self, images):
        pruned = (self.weight == 0).float().mean() > 0.4
        if self.training and pruned and os.environ["CUDA_VISIBLE_DEVICES"] == "0":
            raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
        return super().forward(images.flatten(1))


def unlucky(classes, channels, image_size):
    return Unlucky(channels * image_size**2, classes)
"""
PACK_OF_FOUR = {
    "train__epochs": 2,
    "prune": {"sparsities": [0.5, 0.9], "scope": "global"},
    "reset__epochs": [0, 1],
    "sweep": {"backend": "loop", "tickets_per_trial": 4, "max_failures": 1},
}


def own(folder: Path, text: str, function: str) -> Path:
    return own_network.written(folder, text, **PACK_OF_FOUR, model__arch=f"nets.py:{function}")


def trained_in_one_pack(path: Path) -> Run:
    of = locate_experiment(read_experiment(path), path.parent / "root")
    prepare_without_ray(of)
    write_run(of)
    train_without_ray(of)
    return of


@pytest.mark.parametrize("room", [3, 1])
def test_a_pack_that_memory_does_not_suffice_for_is_halved(room: int, tmp_path: Path) -> None:
    ample, scarce = tmp_path / "ample", tmp_path / "scarce"
    for folder in (ample, scarce):
        folder.mkdir()
    expected = trained_in_one_pack(own(ample, HUNGRY.format(room=99), "hungry"))
    found = trained_in_one_pack(own(scarce, HUNGRY.format(room=room), "hungry"))
    assert final_bits(found.folder.path) != {}
    assert [*final_bits(found.folder.path).values()] == [*final_bits(expected.folder.path).values()]
    told = {row["backend_ms"] for row in collect(found.folder).tickets.values()}
    assert told == {f"no memory for {2 if room == 1 else 4} together"}


def test_one_ticket_that_memory_does_not_suffice_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        trained_in_one_pack(own(tmp_path, HUNGRY.format(room=0), "hungry"))


@pytest.mark.ray
def test_a_ticket_that_takes_its_process_with_it_fails_and_the_rest_is_done(
    tmp_path: Path,
) -> None:
    path = own(tmp_path, POISONED, "poisoned")
    ended = run("sweep", path, folder=tmp_path)
    assert ended.status == 1, ended
    found = rows(only_run(tmp_path / "runs", "small"))
    assert {(row["sparsity"], row["status"]) for row in found} == {(0.5, "done"), (0.9, "failed")}
    failed = [row for row in found if row["status"] == "failed"]
    assert len(failed) == 2
    for row in failed:
        assert "worker process has died" in row["error"], row["error"]
        assert row["attempts"] == 2, "once with its pack and once alone"


@pytest.mark.ray
@pytest.mark.slow
def test_a_chain_goes_no_further_than_the_level_that_fails(tmp_path: Path) -> None:
    levels = {"style": "iterative", "sparsities": [0.5, 0.9, 0.95], "scope": "global"}
    path = own_network.written(
        tmp_path, POISONED, **{**PACK_OF_FOUR, "prune": levels}, model__arch="nets.py:poisoned"
    )
    ended = run("sweep", path, folder=tmp_path)
    assert ended.status == 1, ended
    found = rows(only_run(tmp_path / "runs", "small"))
    assert {(row["sparsity"], row["status"]) for row in found} == {
        (0.5, "done"),
        (0.9, "failed"),
        (0.95, "failed"),
    }
    for row in found:
        if row["sparsity"] == 0.95:
            assert row["error"].endswith("failed")
            assert row["error"].startswith("the level before it, magnitude-0.9-")
            assert row["attempts"] == 0


@pytest.mark.ray
@pytest.mark.slow
def test_a_broken_gpu_is_given_no_more_work_and_its_pack_goes_on_elsewhere(tmp_path: Path) -> None:
    path = own_network.written(
        tmp_path,
        ON_A_BROKEN_GPU,
        **{**PACK_OF_FOUR, "sweep": {"backend": "loop", "tickets_per_trial": 1}},
        model__arch="nets.py:unlucky",
    )
    with pretended_gpus(2) as (address, _):
        ended = run("sweep", path, "--address", address, folder=tmp_path)
    assert ended.status == 0, ended
    assert ended.out.count("given no more work") == 1
    assert "GPU 0 on" in ended.out
    assert "uncorrectable ECC error" in ended.out
    found = rows(only_run(tmp_path / "runs", "small"))
    assert [row["status"] for row in found] == ["done"] * 4
    assert {row["cuda_visible_devices"] for row in found} == {"1"}


@pytest.mark.ray
@pytest.mark.slow
def test_when_no_gpu_is_left_the_sweep_says_so(tmp_path: Path) -> None:
    path = own_network.written(
        tmp_path, ON_A_BROKEN_GPU, **PACK_OF_FOUR, model__arch="nets.py:unlucky"
    )
    with pretended_gpus(1) as (address, _):
        ended = run("sweep", path, "--address", address, folder=tmp_path)
    assert ended.status == 1, ended
    assert "GPUs: not enough are left: GPU 0 on" in ended.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with room for a few tickets."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_full_disk_ends_a_sweep_clearly_and_with_room_it_goes_on(
    tmp_path: Path, make_run: MakeRun, small_disk: Path
) -> None:
    changes: dict[str, Any] = {"prune__sparsities": [0.5, 0.8, 0.9, 0.95]}
    undisturbed = make_run(**changes)
    train_without_ray(undisturbed)
    path = write_experiment(tmp_path / "small.yaml", small_document(changes))
    ended = run("sweep", path, "--root", small_disk, folder=tmp_path)
    assert ended.status == 1, ended
    assert "No space left on device" in ended.err
    assert "make room" in ended.err
    assert "Traceback" not in ended.err
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    mended = run("sweep", path, "--root", small_disk, folder=tmp_path)
    assert mended.status == 0, mended
    folder = only_run(small_disk, "small")
    assert [row["status"] for row in rows(folder)] == ["done"] * 12
    assert final_bits(folder) == final_bits(undisturbed.folder.path)
    assert {read_json(path)["attempts"] for path in folder.rglob("attempts.json")} <= {1, 2}
