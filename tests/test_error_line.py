"""The line between two copies: its points, its statistics, its barrier."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import MakeRun, train_without_ray
from torch import nn

from ltray.errors import LtrayError
from ltray.files import read_json, write_json
from ltray.lottery.pairs import Pair, pairs_of, with_copies
from ltray.lottery.tickets import grid
from ltray.run import Run
from ltray.tensors import read_tensors, write_tensors
from ltray.training.error_line import (
    POINTS,
    STATISTICS_BATCHES,
    barrier,
    barrier_interval,
    between,
    measure_line,
    reestimate,
)
from ltray.training.place import this_place
from ltray.training.start import open_batches


def copies_of(run: Run) -> tuple[Run, list[Pair]]:
    """A run whose grid is the dense network's copies, all of them trained."""
    (dense,) = with_copies(run.experiment, [])
    part = replace(run, experiment=dense)
    train_without_ray(part)
    return part, pairs_of(dense)


def test_a_barrier_is_the_highest_error_minus_the_mean_of_the_ends() -> None:
    assert barrier(np.array([0.10, 0.30, 0.25, 0.20])) == pytest.approx(0.15)
    assert barrier(np.array([0.10, 0.05, 0.20])) == pytest.approx(0.05)  # the higher end itself
    assert barrier(np.array([[0.1, 0.2], [0.5, 0.2], [0.1, 0.2]])) == pytest.approx([0.4, 0.0])


def test_both_ends_and_equal_tensors_are_met_to_the_bit() -> None:
    source = torch.Generator().manual_seed(1)
    one = {"w": torch.rand(100, generator=source), "n": torch.tensor(3)}
    other = {"w": torch.rand(100, generator=source), "n": torch.tensor(4)}
    assert torch.equal(between(one, other, 0.0)["w"], one["w"])
    assert torch.equal(between(one, other, 1.0)["w"], other["w"])
    assert all(torch.equal(between(one, one, at / 10)["w"], one["w"]) for at in range(11))
    half = between(one, other, 0.5)["w"]
    torch.testing.assert_close(half, (one["w"] + other["w"]) / 2)


def test_copies_that_are_equal_have_no_barrier_at_all(make_run: MakeRun) -> None:
    run, pairs = copies_of(make_run(reset__epochs=[0]))
    row = measure_line(run, replace(pairs[0], other=pairs[0].one), this_place())["row"]
    for split in ("val", "test"):
        assert row[f"{split}_barrier"] == 0.0
        assert (row[f"{split}_barrier_low"], row[f"{split}_barrier_high"]) == (0.0, 0.0)
        assert len(set(row[f"{split}_errors"])) == 1


def test_equal_copies_with_batchnorm_have_no_barrier_either(make_run: MakeRun) -> None:
    run, pairs = copies_of(make_run(model__arch="resnet20", reset__epochs=[0], train__epochs=1))
    row = measure_line(run, replace(pairs[0], other=pairs[0].one), this_place())["row"]
    assert row["val_barrier"] == row["test_barrier"] == 0.0


def test_the_ends_of_the_line_are_the_copies(make_run: MakeRun) -> None:
    run, pairs = copies_of(make_run(reset__epochs=[0, 1]))
    for pair in pairs:
        row = measure_line(run, pair, this_place())["row"]
        assert len(row["val_errors"]) == len(row["at"]) == POINTS
        for ticket, error in (
            (pair.one, row["val_errors"][0]),
            (pair.other, row["val_errors"][-1]),
        ):
            done = read_json(run.folder.replicate(0).ticket(ticket.name).done)["row"]
            assert error == pytest.approx(1 - done["val_top1"])
        assert row["val_barrier_low"] <= row["val_barrier_high"]


def test_copies_differ_in_the_order_of_images_alone(make_run: MakeRun) -> None:
    run, (pair,) = copies_of(make_run(reset__epochs=[1]))
    assert replace(pair.other, retraining=0, data_seed=pair.one.data_seed) == pair.one
    assert pair.one.sparsity == 0
    folder = run.folder.replicate(0)
    one, other = (read_tensors(folder.ticket(t.name).weights)[0] for t in (pair.one, pair.other))
    assert not torch.equal(one["fc1.weight"], other["fc1.weight"])


def test_a_line_is_measured_once_and_again_when_its_ends_are_others(make_run: MakeRun) -> None:
    run, (pair,) = copies_of(make_run(reset__epochs=[0]))
    first = measure_line(run, pair, this_place())
    assert measure_line(run, pair, this_place()) == first  # its time is in it
    folder = run.folder.replicate(0).ticket(pair.other.name)
    weights, _ = read_tensors(run.folder.replicate(0).ticket(pair.one.name).weights)
    done = read_json(folder.done)
    done["sha256"][folder.weights.name] = write_tensors(folder.weights, weights)
    write_json(folder.done, done)
    assert measure_line(run, pair, this_place())["row"]["val_barrier"] == 0.0


def test_statistics_are_the_means_over_the_first_training_batches(make_run: MakeRun) -> None:
    run = make_run(train__batch_size=16)
    batches = open_batches(run, this_place(), data_seed=0)
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(), nn.Flatten(), nn.Linear(64, 10))
    norm = model[0]
    assert isinstance(norm, nn.BatchNorm2d)
    norm(torch.randn(8, 1, 8, 8) * 100)  # what stood there before
    reestimate(model, batches)
    first = [images for images, _ in batches.epoch(0)][:STATISTICS_BATCHES]
    assert len(first) == STATISTICS_BATCHES
    torch.testing.assert_close(
        norm.running_mean, torch.stack([one.mean() for one in first]).mean()[None]
    )
    torch.testing.assert_close(
        norm.running_var, torch.stack([one.var() for one in first]).mean()[None]
    )
    assert norm.momentum == 0.1


def test_an_interval_over_images_holds_the_barrier_of_a_wide_valley() -> None:
    source = np.random.default_rng(0)
    correct = np.stack([source.random(2000) < share for share in (0.9, 0.6, 0.9)])
    low, high = barrier_interval(correct, seed=1)
    assert low < 0.3 < high
    assert high - low < 0.06
    assert barrier_interval(correct, seed=1) == (low, high)


def test_an_interval_over_images_reaches_down_to_a_barrier_of_zero() -> None:
    """Each end has other images wrong: in nearly every sample one of them is worse."""
    correct = np.ones((3, 200), dtype=bool)
    correct[0, :40] = correct[2, 40:80] = False
    assert float(barrier(1 - correct.mean(axis=1))) == 0.0
    low, high = barrier_interval(correct, seed=1)
    assert low == 0.0 < high


def test_only_levels_of_the_experiment_can_be_asked_for(make_run: MakeRun) -> None:
    experiment = make_run().experiment
    with pytest.raises(LtrayError, match=r"0\.7 is no sparsity of the experiment"):
        with_copies(experiment, [0.7])
    _, tickets = with_copies(experiment, [0.9])
    assert {ticket.sparsity for ticket in grid(tickets)} == {0.9}
    assert {ticket.name for ticket in grid(tickets) if not ticket.retraining} <= {
        ticket.name for ticket in grid(experiment)
    }
    chains = make_run(prune__style="iterative").experiment
    with pytest.raises(LtrayError, match="made by training"):
        with_copies(chains, [0.9])
    assert with_copies(chains, [])[0].prune.style == "one_shot"
