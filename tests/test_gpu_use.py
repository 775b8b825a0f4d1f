"""GPU figures from NVML's readings; a stand-in takes the place of NVML's own bindings."""

import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import MakeRun

from ltray.files import read_json
from ltray.lottery.ready import ready
from ltray.training import gpu_use
from ltray.training.dense import train_dense
from ltray.training.gpu_use import GpuUse
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack

OURS = "GPU-0000-1111"
NOTHING = {"gpu_utilisation": None, "gpu_memory_bytes": None}


class Nvml(ModuleType):
    """Two GPUs, of which ours is the second; its readings are 20, 100 and 60 percent in turn."""

    class NVMLError(Exception):
        pass

    def __init__(self, known: str = OURS) -> None:
        super().__init__("pynvml")
        self.known = known
        self.open = 0
        self.lost = False
        self.next = itertools.cycle([(20, 500), (100, 900), (60, 700)])
        self.given: list[tuple[int, int]] = []

    def has_given(self, readings: int) -> bool:
        return len(self.given) >= readings

    def nvmlInit(self) -> None:  # noqa: N802 (its own name, as the others')
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        if uuid != self.known:
            raise self.NVMLError("Not Found")
        return 1

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        assert handle == 1
        if self.lost:
            raise self.NVMLError("GPU is lost")
        self.given.append(next(self.next))
        return SimpleNamespace(gpu=self.given[-1][0], memory=77)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        assert handle == 1
        return SimpleNamespace(used=self.given[-1][1], total=10**6)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    """A stand-in, read every hundredth of a second."""
    made = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.setattr(gpu_use, "READ_EVERY_SECONDS", 0.01)
    return made


def wait_until(happened: Callable[[], object]) -> None:
    end = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def test_figures_are_the_mean_and_the_most_of_all_readings_also_when_opened_again(
    nvml: Nvml,
) -> None:
    use = GpuUse((OURS,))
    for wanted in (1, 4):
        with use:
            assert nvml.open == 1
            wait_until(partial(nvml.has_given, wanted))
    assert nvml.open == 0
    busy = [percent / 100 for percent, _ in nvml.given]
    assert use.columns() == {
        "gpu_utilisation": pytest.approx(sum(busy) / len(busy)),
        "gpu_memory_bytes": 900,
    }


def test_training_of_less_than_a_second_has_one_reading(
    nvml: Nvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_use, "READ_EVERY_SECONDS", 60.0)
    with GpuUse((OURS,)) as use:
        assert use.columns() == {"gpu_utilisation": 0.2, "gpu_memory_bytes": 500}
        assert use.columns() == {"gpu_utilisation": 0.2, "gpu_memory_bytes": 500}


def test_on_a_cpu_nvml_is_not_even_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it is an error
    with GpuUse(this_place().gpu_uuids) as use:
        assert use.columns() == NOTHING


def test_a_gpu_that_nvml_does_not_know_is_said_once_and_has_no_figures(nvml: Nvml) -> None:
    nvml.known = "another"
    use = GpuUse((OURS,))
    with pytest.warns(RuntimeWarning, match=f"{OURS}: NVMLError: Not Found"), use:
        assert nvml.open == 0
    with use:  # a second warning would be an error here
        assert use.columns() == NOTHING


def test_without_nvmls_bindings_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.warns(RuntimeWarning, match="pynvml"), GpuUse((OURS,)) as use:
        assert use.columns() == NOTHING


def test_a_gpu_that_is_lost_on_the_way_has_no_figures_any_more(nvml: Nvml) -> None:
    with GpuUse((OURS,)) as use:
        wait_until(lambda: nvml.given)
        assert use.columns()["gpu_memory_bytes"] is not None
        nvml.lost = True
        with pytest.warns(RuntimeWarning, match="GPU is lost"):
            wait_until(lambda: use.columns() == NOTHING)
        assert use.columns() == NOTHING  # a second warning would be an error here


def test_rows_and_what_is_told_meanwhile_have_the_columns(make_run: MakeRun) -> None:
    run, place = make_run(reset__epochs=[0], prune__sparsities=[0.5]), this_place()
    live: list[Any] = []
    trajectory = train_dense(run, 0, place, live.append)
    make_masks(run, 0)
    for pack in ready(run.experiment, set()):
        train_pack(run, pack, place, lambda rows, _records: live.extend(rows))
    (path,) = run.folder.path.rglob("ticket.json")
    assert NOTHING.items() <= read_json(path)["row"].items()
    assert NOTHING.items() <= trajectory.row.items()
    assert len(live) == 6
    for row in live:
        assert NOTHING.items() <= row.items()
        assert row["images_per_second"] > 0
    assert not NOTHING.keys() & read_json(path)["epochs"][0].keys()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpu_is_found_by_its_uuid_and_seen_at_work() -> None:
    pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    matrix = torch.rand(4096, 4096, device="cuda")
    with GpuUse(this_place(gpus=1).gpu_uuids) as use:
        end = time.monotonic() + 3
        while time.monotonic() < end:
            (matrix @ matrix).sum().item()
    found = use.columns()
    assert 0.2 < found["gpu_utilisation"] <= 1  # type: ignore[operator]
    assert found["gpu_memory_bytes"] >= matrix.nbytes  # type: ignore[operator]
