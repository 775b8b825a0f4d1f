"""What a probe measures, on networks so small that it takes seconds."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from conftest import MakeRun

from ltray.analysis.planning.probed import alone_and_beside, training_of
from ltray.data.batches import open_data_set
from ltray.data.expected import ExpectedImages, expected_images
from ltray.data.made_up import PHOTOGRAPH, MadeUp, made_up_shards
from ltray.data.pixels import Pixels
from ltray.experiment import Data
from ltray.layout import DataFolder
from ltray.models.sizes import network_sizes
from ltray.training import probe as probing
from ltray.training import tried
from ltray.training.backends.backend import Backend, Seats
from ltray.training.backends.choice import open_backend
from ltray.training.place import this_place
from ltray.training.probe import Probe, probe
from ltray.training.tried import Tried

PIXEL_NET = """\
from torch import nn


def pixel(classes, channels, image_size):
    first = nn.Conv2d(channels, 8, image_size)
    return nn.Sequential(first, nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, classes))
"""
TRIED = Tried("loop", (0.010, 0.012, 0.011), evaluation_seconds=(0.001,), start_seconds=0.5)
FOUND = Probe(
    device="cpu",
    batch_size=60,
    dense=TRIED,
    tickets={0.5: TRIED, 0.9: replace(TRIED, backend="csr", step_seconds=(0.004,))},
    batch_seconds=(0.002,),
    image_seconds=0.001,
    mask_seconds=0.1,
    state_seconds=0.05,
)
IMAGES = ExpectedImages(
    train=600,
    validation=100,
    test=200,
    stored=900,
    classes=10,
    encoded=False,
    prepared=True,
    told_by="the test",
)


def test_made_up_photographs_are_stored_like_real_ones(tmp_path: Path) -> None:
    source = MadeUp((("train", 8), ("test", 4)), 3, PHOTOGRAPH, 3, encoded=True)
    folder = DataFolder(tmp_path)
    manifest = made_up_shards(folder, source, Pixels(227, "crop", "jpeg", 3))
    assert manifest.counts == {"train": 8, "test": 4}
    assert manifest.quarantined == 0
    stored = sum(part.bytes for parts in manifest.parts.values() for part in parts) / 12
    assert 10_000 < stored < 30_000  # ImageNet's are 18.7 kB
    data = Data(source="npz", path="x", image_size=227, crop_size=224, validation_fraction=0.3)
    opened = open_data_set(folder, manifest, data, torch.device("cpu"), threads=1)
    assert opened.classes == 3


def test_a_probe_tries_the_experiments_own_network_and_levels(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tried, "STRETCH_SECONDS", 0.02)
    run = make_run(prune__sparsities=[0.5, 0.9, 0.95], sweep__backend="auto")
    images = expected_images(run.experiment.data, run.data, None, None)
    found = probe(run.experiment, images, None, this_place())
    assert (found.device, found.batch_size) == ("cpu", 60)
    assert sorted(found.tickets) == [0.5, 0.9, 0.95]  # csr takes less time the sparser it is
    assert all(one.backend in {"loop", "fused", "csr"} for one in found.tickets.values())
    assert all(0 < seconds < 1 for seconds in found.dense.step_seconds)
    measured = (found.image_seconds, found.mask_seconds, found.state_seconds)
    assert all(0 < seconds < 1 for seconds in (*found.batch_seconds, *measured))


def test_steps_are_timed_with_denormals_as_zero_as_trials_take_them(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one batch, over and over, gradients fade until a CPU computes with denormal numbers."""
    taken, timed = [], []
    stretch, step = tried.stretch_of, tried.train_step

    def noted(*of: Any) -> None:
        taken.append(float(torch.tensor(1e-40) * 1) == 0)
        step(*of)

    def remembered(work: Callable[[], object]) -> float:
        before = len(taken)
        seconds = stretch(work)
        timed.extend(taken[before:])
        return seconds

    monkeypatch.setattr(tried, "STRETCH_SECONDS", 0.02)
    monkeypatch.setattr(tried, "train_step", noted)
    monkeypatch.setattr(tried, "stretch_of", remembered)
    run = make_run()
    probe(
        run.experiment,
        expected_images(run.experiment.data, run.data, None, None),
        None,
        this_place(),
    )
    assert timed
    assert all(timed)
    assert float(torch.tensor(1e-40) * 1) > 0


def test_what_a_pack_takes_is_told_of_each_of_its_networks(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tried, "STRETCH_SECONDS", 0.02)
    run = make_run(reset__epochs=[number / 10 for number in range(0, 24, 2)])
    images = expected_images(run.experiment.data, run.data, None, None)
    found = probe(run.experiment, images, None, this_place())
    (pack,) = found.tickets.values()
    # One network after the other: each takes what the dense one takes, all 12 of them far more.
    assert min(pack.step_seconds) < 4 * min(found.dense.step_seconds)
    assert fmean(pack.evaluation_seconds) < 4 * fmean(found.dense.evaluation_seconds)


@pytest.mark.parametrize(
    ("changes", "together"),
    [
        ({"reset__schedule": "restart"}, 3),
        ({}, 2),  # 1.5 on average: 3 epochs of the first, 1 and 0.5 of those that join it
        ({"prune__search": "matching"}, 1),
    ],
)
def test_a_pack_is_tried_with_as_many_tickets_as_train_together(
    changes: dict[str, Any], together: int, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def noted(name: str, networks: Seats) -> Backend:
        opened.append(len(networks))
        return open_backend(name, networks)

    monkeypatch.setattr(tried, "STRETCH_SECONDS", 0.02)
    monkeypatch.setattr(probing, "open_backend", noted)
    run = make_run(reset__epochs=[0, 2, 2.5], **changes)
    images = expected_images(run.experiment.data, run.data, None, None)
    probe(run.experiment, images, None, this_place())
    *_, pack, dense = opened
    assert (pack, dense) == (together, 1)


def test_a_step_that_takes_long_is_tried_with_fewer_images(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tried, "STRETCH_SECONDS", 0.02)
    monkeypatch.setattr(probing, "LONG_STEP_SECONDS", 1e-6)
    run = make_run()
    images = expected_images(run.experiment.data, run.data, None, None)
    found = probe(run.experiment, images, None, this_place())
    assert found.batch_size == 2
    # Two images take a good part of a millisecond, and the experiment's batch 30 times that.
    assert found.dense.step_seconds[0] > 0.006


def test_a_step_that_takes_long_leaves_batchnorm_more_than_one_image(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At a single pixel BatchNorm has one value for each image."""
    monkeypatch.setattr(tried, "STRETCH_SECONDS", 0.02)
    monkeypatch.setattr(probing, "LONG_STEP_SECONDS", 1e-6)
    (tmp_path / "nets.py").write_text(PIXEL_NET)
    run = make_run(model__arch=f"{tmp_path / 'nets.py'}:pixel", prune={"sparsities": [0.5]})
    images = expected_images(run.experiment.data, run.data, None, None)
    assert probe(run.experiment, images, run.network, this_place()).batch_size == 2


def test_an_epoch_is_its_steps_its_evaluations_and_its_reading(make_run: MakeRun) -> None:
    experiment = make_run().experiment
    training = training_of([FOUND], experiment, IMAGES)
    assert training.dense.likely == pytest.approx(10 * 0.011 + 300 * 0.001)
    assert training.ticket(0.9).likely == pytest.approx(10 * 0.004 + 300 * 0.001)
    assert training.shared.likely == pytest.approx(10 * 0.002)
    assert training.pack.likely == 0.5
    assert training.ticket_files.likely == 2 * 0.05  # its state once, and its weights
    assert training.backends == {0.5: "loop", 0.9: "csr"}
    assert training.dense.low < 10 * 0.010 + 0.3 < 10 * 0.012 + 0.3 < training.dense.high


def test_evaluating_more_often_costs_more(make_run: MakeRun) -> None:
    experiment = make_run(train__evaluate_every=5).experiment
    training = training_of([FOUND], experiment, IMAGES)
    assert training.dense.likely == pytest.approx(10 * 0.011 + 2 * 300 * 0.001)


def test_workers_that_hinder_each_other_widen_the_range(make_run: MakeRun) -> None:
    slow = replace(FOUND, dense=replace(TRIED, step_seconds=(0.03,)))
    alone = training_of([FOUND], make_run().experiment, IMAGES)
    both = training_of([FOUND, slow], make_run().experiment, IMAGES)
    assert both.dense.high > alone.dense.high


def test_no_worker_is_slower_for_being_alone(make_run: MakeRun) -> None:
    experiment = make_run().experiment
    slow = replace(FOUND, dense=replace(TRIED, step_seconds=(0.03,)), batch_seconds=(0.001,))
    alone, beside = alone_and_beside([FOUND], [slow, slow], experiment, IMAGES)
    assert alone == replace(training_of([FOUND], experiment, IMAGES), shared=beside.shared)
    assert beside.dense == training_of([slow], experiment, IMAGES).dense
    # Reading seemed slower alone, 0.002 s against 0.001 s: for both it is what all three found.
    assert beside.shared.likely == pytest.approx(10 * (0.002 + 0.001 + 0.001) / 3)
    assert beside.shared.low < 10 * 0.001 < 10 * 0.002 < beside.shared.high


def test_sizes_are_those_of_the_files_that_a_run_writes(make_run: MakeRun) -> None:
    sizes = network_sizes(make_run().experiment, classes=10)
    weights = 64 * 300 + 300 * 100 + 100 * 10
    assert sizes.prunable_weights == weights
    assert sizes.weights_bytes == 4 * (weights + 300 + 100 + 10)
    assert sizes.state_bytes == 2 * sizes.weights_bytes  # momentum
    adam = make_run(train__optimizer="adam", train__momentum=None).experiment
    assert network_sizes(adam, classes=10).state_bytes == 3 * sizes.weights_bytes
