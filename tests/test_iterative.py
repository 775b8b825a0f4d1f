"""Iterative pruning, from the grid to the trained chains, without Ray."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import MakeRun, train_without_ray
from safetensors.torch import load_file

from ltray.analysis.results import collect
from ltray.cluster.metrics import SweepSeries
from ltray.cluster.retraining import Retraining
from ltray.experiment import decimal
from ltray.files import read_json, sha256_of
from ltray.lottery.masks import load_mask, make_mask
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import load_weights
from ltray.lottery.tickets import Pack, cells_of, chains, control_of, grid, key
from ltray.lottery.trajectory import read_trajectory
from ltray.run import Run
from ltray.training import retrain, states
from ltray.training.chain import train_chain
from ltray.training.dense import train_dense
from ltray.training.first_weights import first_weights
from ltray.training.fit import fit
from ltray.training.place import this_place
from ltray.training.pruning import make_next_mask

KEYS: dict[str, Any] = {"prune__style": "iterative", "prune__sparsities": [0.5, 0.8, 0.95]}
NAMES = ("fc1.weight", "fc2.weight", "fc3.weight")


def nobody(*_what: Any) -> None:
    pass


def bits(run: Run) -> dict[str, str]:
    folder = run.folder.replicate(0)
    return {one.name: sha256_of(folder.ticket(one.name).weights) for one in grid(run.experiment)}


def test_each_level_is_pruned_from_what_the_one_before_was_trained_to(make_run: MakeRun) -> None:
    run = make_run(**KEYS)
    train_without_ray(run)
    folder = run.folder.replicate(0)
    trajectory = read_trajectory(folder)
    assert trajectory is not None
    dense = load_weights(folder.step(trajectory.total_steps))
    found = chains(cells_of(run.experiment))
    assert [len(chain) for chain in found] == [3, 3, 3]
    for chain in found:
        assert len({ticket.reset_epoch for ticket in chain}) == 1
        scores = {name: dense[name].abs() for name in NAMES}
        for ticket in chain:
            mask = load_mask(folder.mask(ticket.mask))
            density = 1 - decimal(ticket.sparsity)
            expected = make_mask(scores, run.experiment.prune, density, "fc3.weight")
            assert all(torch.equal(mask[name], expected[name]) for name in NAMES)
            trained = load_file(folder.ticket(ticket.name).weights)
            assert not any(bool(trained[name][~mask[name]].any()) for name in NAMES)
            scores = {name: trained[name].abs() for name in NAMES}
        for denser, sparser in pairwise(load_mask(folder.mask(one.mask)) for one in chain):
            assert not any(bool((sparser[name] & ~denser[name]).any()) for name in NAMES)
        rows = [read_json(folder.ticket(one.name).done)["row"] for one in chain]
        assert {row["style"] for row in rows} == {"iterative"}
        # Each from the reset point anew, and not on from the level before.
        assert len({row["steps_trained"] for row in rows}) == 1


def test_a_chain_that_is_cut_off_anywhere_ends_with_the_same_bits(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = make_run(**KEYS, reset__epochs=[0.3]), make_run(**KEYS, reset__epochs=[0.3])
    train_without_ray(whole)
    train_dense(cut, 0, this_place(), nobody)
    (chain,) = ready(cut.experiment, ())
    assert chain.in_turn
    said = 0

    def stop(_rows: Any, _records: Any) -> None:
        nonlocal said
        said += 1
        if said in {1, 5}:  # within the first level and within the second
            raise KeyboardInterrupt

    monkeypatch.setattr(states.States, "due", lambda _self, epoch_ended: epoch_ended)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_chain(cut, chain, this_place(), stop)
    ended = collect(cut.folder).tickets
    assert len(ended) == 1
    (left,) = ready(cut.experiment, ended)
    assert [len(left.tickets), len(left.seats)] == [2, 3]
    train_chain(cut, left, this_place(), nobody)
    assert bits(cut) == bits(whole)
    assert not ready(cut.experiment, collect(cut.folder).tickets)


def test_a_sparser_level_keeps_the_chain_and_one_between_does_not(make_run: MakeRun) -> None:
    names = [
        {
            ticket.name
            for ticket in grid(make_run(**{**KEYS, "prune__sparsities": levels}).experiment)
        }
        for levels in ([0.5, 0.8], [0.5, 0.8, 0.95], [0.5, 0.7, 0.8])
    ]
    assert names[0] < names[1]
    both = names[0] & names[2]
    assert len(both) == 3  # the first level at each of three reset points
    assert all("-0.5-" in name for name in both)
    methods = [make_run(**KEYS, reset__method=method) for method in ("weights", "learning_rate")]
    masks = [{ticket.mask for ticket in grid(run.experiment)} for run in methods]
    assert len(masks[0] & masks[1]) == 3  # made from the dense run, whatever comes after


def test_controls_wait_for_the_masks_of_their_chains(make_run: MakeRun) -> None:
    experiment = make_run(**KEYS, controls=["shuffled_mask", "random_init"]).experiment
    packs = ready(experiment, ())
    assert all(pack.in_turn for pack in packs)
    first = [chain[0] for chain in chains(cells_of(experiment))]
    packs = ready(experiment, {key(ticket) for ticket in first})
    of_controls = [pack for pack in packs if not pack.in_turn]
    assert {one.mask for pack in of_controls for one in pack.tickets} == {one.mask for one in first}
    everything = {key(ticket) for ticket in cells_of(experiment)}
    left = [one for pack in ready(experiment, everything) for one in pack.tickets]
    assert len(left) == 9 + 9  # a mask for each cell, and so a fresh control
    assert {one.control for one in left} == {"shuffled_mask", "random_init"}


def test_controls_take_the_chains_masks_and_are_no_part_of_it(make_run: MakeRun) -> None:
    alone, controlled = make_run(**KEYS), make_run(**KEYS, controls=["random_init"])
    train_without_ray(alone)
    train_without_ray(controlled)
    assert bits(alone).items() <= bits(controlled).items()
    rows = collect(controlled.folder).tickets.values()
    kept = {row["mask"]: row["kept_weights"] for row in rows if row["control"] == "none"}
    fresh = {row["mask"]: row["kept_weights"] for row in rows if row["control"] == "random_init"}
    assert fresh == kept


def test_a_rewound_rate_goes_on_from_the_weights_that_were_pruned(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_with: dict[str, dict[str, torch.Tensor]] = {}

    def fit_and_see(pack: Any, *rest: Any, **more: Any) -> None:
        for network in (one.network for one in pack):
            state = {name: part.clone() for name, part in network.model.state_dict().items()}
            began_with[network.name] = state
        fit(pack, *rest, **more)

    monkeypatch.setattr(retrain, "fit", fit_and_see)
    run = make_run(**KEYS, reset__method="learning_rate", reset__epochs=[1])
    train_without_ray(run)
    folder = run.folder.replicate(0)
    trajectory = read_trajectory(folder)
    assert trajectory is not None
    before = load_weights(folder.step(trajectory.total_steps))
    for ticket in grid(run.experiment):
        for name, kept in load_mask(folder.mask(ticket.mask)).items():
            assert torch.equal(began_with[ticket.name][name], before[name] * kept)
        before = load_file(folder.ticket(ticket.name).weights)


def test_a_one_shot_ticket_starts_as_it_did_after_its_run_was_made_iterative(
    make_run: MakeRun,
) -> None:
    keys: dict[str, Any] = {"prune__sparsities": [0.5, 0.8], "reset__method": "learning_rate"}
    one_shot = make_run(**keys)
    train_dense(one_shot, 0, this_place(), nobody)
    trajectory = read_trajectory(one_shot.folder.replicate(0))
    assert trajectory is not None
    ticket = max(grid(one_shot.experiment), key=lambda one: one.sparsity)
    expected = first_weights(one_shot, ticket, trajectory, 10)
    for points in ([0, 1], [0]):
        keys |= {"prune__style": "iterative", "reset__epochs": points}
        later = make_run(**keys).experiment
        found = first_weights(replace(one_shot, experiment=later), ticket, trajectory, 10)
        assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_chain_ends_where_a_level_diverges(make_run: MakeRun) -> None:
    run = make_run(**KEYS, reset__epochs=[0])
    train_dense(run, 0, this_place(), nobody)
    (chain,) = ready(run.experiment, ())
    only_first = Pack(chain.seats[:1], chain.seats, in_turn=True)
    train_chain(run, only_first, this_place(), nobody)
    done = run.folder.replicate(0).ticket(chain.seats[0].name).done
    record = read_json(done)
    done.write_text(done.read_text().replace('"status": "done"', '"status": "diverged"'))
    assert read_json(done) != record
    train_chain(run, Pack(chain.seats[1:], chain.seats, in_turn=True), this_place(), nobody)
    assert len(collect(run.folder).tickets) == 1


def test_what_a_level_that_ended_leaves_without_a_mask_is_recorded_with_its_reason(
    make_run: MakeRun,
) -> None:
    run = make_run(**KEYS, reset__epochs=[0], controls=["shuffled_mask", "random_init"])
    trajectory = train_dense(run, 0, this_place(), nobody)
    (chain,) = ready(run.experiment, ())
    first, second, third = chain.seats
    train_chain(run, Pack((first,), chain.seats, in_turn=True), this_place(), nobody)
    make_next_mask(run, second, first)  # which then diverges
    rows = collect(run.folder)
    done = rows.tickets[key(first)]
    rows.tickets[key(second)] = {**done, "ticket": second.name, "status": "diverged"}
    said: list[str] = []
    series: Any = None
    retraining = Retraining(
        run, series, {0: trajectory}, rows, series, run.folder.path, said.append, series
    )
    retraining._end_chains()
    ended = {one: row["status"] for one, row in rows.tickets.items()}
    for kind in ("none", "shuffled_mask", "random_init"):
        assert ended[key(control_of(third, kind))] == "diverged"
    assert rows.tickets[key(third)]["error"] == f"the level before it, {second.name}, diverged"
    assert len(said) == 3
    left = [ticket for pack in ready(run.experiment, rows.tickets) for ticket in pack.tickets]
    assert {ticket.mask for ticket in left} == {first.mask, second.mask}  # which are there
    assert len(left) == 4


def test_the_one_level_left_behind_a_diverged_one_ends_as_it_did(make_run: MakeRun) -> None:
    run = make_run(**KEYS, reset__epochs=[0])
    trajectory = train_dense(run, 0, this_place(), nobody)
    (chain,) = ready(run.experiment, ())
    first, second, third = chain.seats
    train_chain(run, Pack((first,), chain.seats, in_turn=True), this_place(), nobody)
    rows = collect(run.folder)
    done = rows.tickets[key(first)]
    rows.tickets[key(second)] = {**done, "ticket": second.name, "status": "diverged"}
    rows.put_dense(0, trajectory.row, trajectory.epochs, trajectory.prunable)
    unasked: Any = None  # nothing is left that a trial could do
    series = SweepSeries(run)
    Retraining(
        run, unasked, {0: trajectory}, rows, unasked, run.folder.path, nobody, series
    ).finish()
    assert rows.tickets[key(third)]["status"] == "diverged"
