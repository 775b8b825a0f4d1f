"""Mask files of a trained run against scores that are taken here."""

from decimal import Decimal
from typing import Any

import pytest
import torch
from conftest import MakeRun, train_without_ray

from ltray.experiment import decimal, step_of
from ltray.files import read_json
from ltray.lottery import criteria
from ltray.lottery.mask_names import masks_of
from ltray.lottery.masks import Mask, load_mask, make_mask
from ltray.lottery.snapshot import load_weights
from ltray.lottery.tickets import grid
from ltray.lottery.trajectory import read_trajectory
from ltray.run import Run
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.start import open_batches, untrained

NAMES = ["fc1.weight", "fc2.weight", "fc3.weight"]
WEIGHTS = 64 * 300 + 300 * 100 + 100 * 10


def pruned(run: Run) -> Run:
    """A run with its dense runs and all its masks."""
    for replicate in range(run.experiment.replicates):
        train_dense(run, replicate, this_place(), lambda _row: None)
        make_masks(run, replicate)
    return run


def initial(run: Run, replicate: int = 0) -> torch.nn.Module:
    batches = open_batches(run, this_place(), data_seed=replicate)
    return untrained(run, batches.classes, run.experiment.seed + replicate, torch.device("cpu"))


def assert_masks(run: Run, scores: dict[str, torch.Tensor], replicate: int = 0) -> None:
    """All masks of a replicate are those of these scores."""
    for one in masks_of(run.experiment):
        found = load_mask(run.folder.replicate(replicate).mask(one.name))
        density = 1 - decimal(one.sparsity)
        assert_same(found, make_mask(scores, run.experiment.prune, density, "fc3.weight"))


def assert_same(one: Mask, other: Mask) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "prune",
    [
        {"criterion": "random", "scope": "erk"},
        {"criterion": "snip", "scope": "balanced"},
        {"criterion": "grasp", "scope": "global"},
        {"criterion": "synflow", "scope": "global", "sparsities": [0.9]},
    ],
    ids=lambda prune: prune["criterion"],
)
def test_every_criterion_makes_tickets_that_are_trained(
    prune: dict[str, Any], make_run: MakeRun
) -> None:
    run = make_run(prune={"sparsities": [0.5, 0.9], **prune})
    train_without_ray(run)
    tickets = grid(run.experiment)
    assert len(tickets) == 3 * len(run.experiment.prune.sparsities)
    for ticket in tickets:
        row = read_json(run.folder.replicate(0).ticket(ticket.name).done)["row"]
        assert row["status"] == "done"
        assert row["criterion"] == prune["criterion"]
        kept = (1 - Decimal(repr(ticket.sparsity))) * WEIGHTS
        assert abs(row["kept_weights"] - kept) <= (0 if prune["scope"] == "global" else 1.5)


def test_snip_takes_the_initial_weights_and_the_first_batches(make_run: MakeRun) -> None:
    run = pruned(make_run(prune__criterion="snip", replicates=2))
    for replicate in range(2):
        batches = open_batches(run, this_place(), data_seed=replicate)
        two = list(batches.epoch(0, 0, 2))  # of 60 images, for ten classes of ten
        assert_masks(
            run, criteria.snip(initial(run, replicate), NAMES, two, seed=replicate), replicate
        )


def test_grasp_takes_the_initial_weights_and_the_first_batches_in_parts(make_run: MakeRun) -> None:
    run = pruned(make_run(prune__criterion="grasp", train__batch_size=130))
    (images, labels), *_ = open_batches(run, this_place(), data_seed=0).epoch(0, 0, 1)
    parts = list(zip(images.tensor_split(9), labels.tensor_split(9), strict=True))
    assert {len(part) for part, _ in parts} == {14, 15}
    assert_masks(run, criteria.grasp(initial(run), NAMES, parts, seed=0))


def test_random_masks_are_of_the_replicates_seed(make_run: MakeRun) -> None:
    run = pruned(make_run(prune__criterion="random", replicates=2))
    for replicate in range(2):
        state = initial(run).state_dict()
        weights = {name: state[name] for name in NAMES}
        assert_masks(run, criteria.random(weights, seed=replicate), replicate)


def test_synflow_takes_the_initial_weights_and_no_images(make_run: MakeRun) -> None:
    run = pruned(make_run(prune={"criterion": "synflow", "sparsities": [0.9]}))
    (one,) = masks_of(run.experiment)
    image, density = torch.Size((1, 8, 8)), Decimal("0.1")
    expected = criteria.synflow_mask(
        initial(run), NAMES, image, run.experiment.prune, density, "fc3.weight"
    )
    assert_same(load_mask(run.folder.replicate(0).mask(one.name)), expected)


def test_scores_of_trained_weights_are_taken_where_the_experiment_says_so(
    make_run: MakeRun,
) -> None:
    run = pruned(make_run(prune__criterion="snip", prune__scores="final"))
    trajectory = read_trajectory(run.folder.replicate(0))
    assert trajectory is not None
    network = initial(run)
    network.load_state_dict(load_weights(run.folder.replicate(0).step(trajectory.total_steps)))
    batches = open_batches(run, this_place(), data_seed=0)
    assert_masks(run, criteria.snip(network, NAMES, list(batches.epoch(0, 0, 2)), seed=0))


def test_magnitude_of_initial_weights(make_run: MakeRun) -> None:
    run = pruned(make_run(prune__scores="init"))
    state = initial(run).state_dict()
    assert_masks(run, {name: state[name].abs() for name in NAMES})


def test_scored_at_its_reset_point_every_cell_has_a_mask_of_its_own(make_run: MakeRun) -> None:
    run = pruned(make_run(prune__scores="reset"))
    folder = run.folder.replicate(0)
    trajectory = read_trajectory(folder)
    assert trajectory is not None
    tickets = grid(run.experiment)
    assert len({ticket.mask for ticket in tickets}) == len(tickets) == 6
    for ticket in tickets:
        step = step_of(ticket.reset_epoch, trajectory.steps_per_epoch)
        weights = load_weights(folder.step(step))
        scores = {name: weights[name].abs() for name in NAMES}
        density = 1 - decimal(ticket.sparsity)
        expected = make_mask(scores, run.experiment.prune, density, "fc3.weight")
        assert_same(load_mask(folder.mask(ticket.mask)), expected)


def test_another_criterion_keeps_the_tickets_of_the_one_before(make_run: MakeRun) -> None:
    keys = {"prune__sparsities": [0.5], "reset__epochs": [0]}
    names = [
        {ticket.name for ticket in grid(make_run(**keys, prune__criterion=criterion).experiment)}
        for criterion in ("magnitude", "random", "snip", "grasp", "synflow")
    ]
    assert len(set.union(*names)) == 5
