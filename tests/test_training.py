"""Dense runs and retrainings on real digits, without Ray."""

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeRun
from safetensors.torch import load_file

from ltray.errors import LtrayError, StageFailed
from ltray.experiment import decimal
from ltray.files import read_json, sha256_of
from ltray.lottery.masks import load_mask, make_mask
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import Snapshot, load_snapshot, save_snapshot
from ltray.lottery.tickets import Pack, grid
from ltray.lottery.trajectory import Trajectory, read_trajectory
from ltray.run import Run
from ltray.training import dense, retrain, states
from ltray.training.dense import train_dense
from ltray.training.fit import fit
from ltray.training.place import Place, this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack
from ltray.training.start import begin


@pytest.fixture(scope="module")
def place() -> Place:
    return this_place()


def nobody(*_what: Any) -> None:
    pass


def finish(run: Run, place: Place, packs: Sequence[Pack] | None = None) -> Trajectory:
    """Everything of a run that is not done, in one process."""
    trajectory = train_dense(run, 0, place, nobody)
    make_masks(run, 0)
    for pack in ready(run.experiment, set()) if packs is None else packs:
        train_pack(run, pack, place, nobody)
    return trajectory


def final_bits(run: Run) -> dict[str, str]:
    """Ticket -> sha256 of its trained weights."""
    folder = run.folder.replicate(0)
    return {one.name: sha256_of(folder.ticket(one.name).weights) for one in grid(run.experiment)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    "recipe",
    [
        {},
        {"train__optimizer": "adamw", "train__momentum": None, "train__lr": 0.001},
        {"train__weight_decay": 1e-3, "train__nesterov": True},
        {"train__precision": "bfloat16"},
        {"data__augment": "random_crop"},
    ],
)
def test_an_all_ones_mask_at_reset_point_zero_gives_the_dense_runs_bits(
    make_run: MakeRun, place: Place, recipe: dict[str, Any]
) -> None:
    run = make_run(
        prune__sparsities=[0], prune__output_rate=None, reset__epochs=[0], train__epochs=2, **recipe
    )
    trajectory = finish(run, place)
    folder = run.folder.replicate(0)
    dense = load_snapshot(folder.step(trajectory.total_steps))
    (ticket,) = grid(run.experiment)
    assert same(load_file(folder.ticket(ticket.name).weights), dense.model)
    row = read_json(folder.ticket(ticket.name).done)["row"]
    assert row["val_loss"] == trajectory.row["val_loss"]
    assert row["density_kept"] == 1


@pytest.mark.parametrize(
    "recipe",
    [
        {"train__schedule": "cosine"},
        {"train__schedule": "step", "train__drops": [1.5], "train__warmup_epochs": 0.5},
        {"data__augment": "random_crop", "train__label_smoothing": 0.1},
    ],
)
def test_without_momentum_continuing_with_all_weights_gives_the_dense_runs_bits(
    make_run: MakeRun, place: Place, recipe: dict[str, Any]
) -> None:
    # There is no optimizer state to lose, so any other rate, order or weights would show.
    run = make_run(train__momentum=0, prune__sparsities=[0], prune__output_rate=None, **recipe)
    trajectory = finish(run, place)
    folder = run.folder.replicate(0)
    dense = load_snapshot(folder.step(trajectory.total_steps))
    for ticket in grid(run.experiment):
        assert same(load_file(folder.ticket(ticket.name).weights), dense.model)


def test_masks_are_cut_from_the_dense_runs_last_weights_without_what_is_kept_dense(
    make_run: MakeRun, place: Place
) -> None:
    run = make_run(prune__keep_dense=["fc1.weight"])
    trajectory = finish(run, place)
    folder = run.folder.replicate(0)
    last = load_snapshot(folder.step(trajectory.total_steps)).model
    scores = {name: last[name].abs() for name in ("fc2.weight", "fc3.weight")}
    for ticket in grid(run.experiment):
        expected = make_mask(
            scores, run.experiment.prune, 1 - decimal(ticket.sparsity), "fc3.weight"
        )
        assert same(load_mask(folder.mask(ticket.mask)), expected)
        row = read_json(folder.ticket(ticket.name).done)["row"]
        assert row["prunable_weights"] == 31000
        weights = load_file(folder.ticket(ticket.name).weights)
        assert bool(weights["fc1.weight"].all())


def test_label_smoothing_is_in_the_loss(make_run: MakeRun, place: Place) -> None:
    rows: list[dict[str, Any]] = []
    for smoothing in (0.0, 0.2):
        run = make_run(train__label_smoothing=smoothing, train__epochs=1, reset__epochs=[0])
        rows.append(train_dense(run, 0, place, nobody).epochs[0])
    assert rows[0]["train_loss"] != rows[1]["train_loss"]
    # A model that is right and sure pays 0.2 x 0.9 x (its margin) more: here, by hand, at least
    # the smoothed loss's own minimum, the entropy of (0.82, 9 x 0.02).
    least = -(0.82 * math.log(0.82) + 9 * 0.02 * math.log(0.02))
    assert rows[1]["train_loss"] > least


def test_dropout_comes_from_the_step_and_not_from_the_process(
    make_run: MakeRun, place: Place
) -> None:
    run = make_run(
        model__arch="mobilenet_v2",
        data__image_size=32,
        data__train_limit=60,
        data__encoding="raw",
        prune__sparsities=[0],
        prune__output_rate=None,
        reset__epochs=[0],
        train__batch_size=20,
        train__lr=0.01,
        train__epochs=1,
    )
    trajectory = train_dense(run, 0, place, nobody)
    torch.manual_seed(4711)  # another history
    finish(run, place)
    folder = run.folder.replicate(0)
    (ticket,) = grid(run.experiment)
    dense = load_snapshot(folder.step(trajectory.total_steps))
    assert same(load_file(folder.ticket(ticket.name).weights), dense.model)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_masked_weights_and_their_optimizer_state_are_exactly_zero(
    make_run: MakeRun, place: Place, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    momentum = 0.9 if optimizer == "sgd" else None
    run = make_run(
        train__optimizer=optimizer,
        train__momentum=momentum,
        train__lr=0.01,
        train__weight_decay=0.01,
    )
    monkeypatch.setattr(states, "LARGEST_SHARE", math.inf)  # a state after every epoch
    written: list[Path] = []

    def save_and_note(path: Path, state: Snapshot) -> None:
        save_snapshot(path, state)
        written.append(path)

    monkeypatch.setattr(retrain, "save_snapshot", save_and_note)
    folder = run.folder.replicate(0)

    def check_states(rows: Sequence[Any], records: Sequence[Any]) -> None:
        for path in {path for path in written if path.is_file()}:
            mask = load_mask(folder.mask(path.parent.name.partition("-reset-")[0]))
            state = load_snapshot(path)
            for name, kept in mask.items():
                parts = [state.model[name], *_of_shape(state.optimizer[name], kept)]
                assert len(parts) > 1
                assert all(not bool(part[~kept].any()) for part in parts)

    train_dense(run, 0, place, nobody)
    make_masks(run, 0)
    for pack in ready(run.experiment, set()):
        train_pack(run, pack, place, check_states)
    assert written
    for ticket in grid(run.experiment):
        weights = load_file(folder.ticket(ticket.name).weights)
        for name, kept in load_mask(folder.mask(ticket.mask)).items():
            assert not bool(weights[name][~kept].any())
            assert bool(weights[name][kept].any())


def _of_shape(state: dict[str, torch.Tensor], like: torch.Tensor) -> list[torch.Tensor]:
    return [part for part in state.values() if part.shape == like.shape]


@pytest.mark.long
def test_tickets_do_not_depend_on_how_they_are_packed(make_run: MakeRun, place: Place) -> None:
    bits = []
    for size in (1, 2, 6):
        run = make_run(sweep__tickets_per_trial=size)
        packs = ready(run.experiment, set())
        assert max(len(pack.tickets) for pack in packs) == size
        finish(run, place, packs[::-1] if size == 2 else packs)
        bits.append(final_bits(run))
    assert bits[0] == bits[1] == bits[2]
    assert len(set(bits[0].values())) == 6


class Killed(Exception):
    pass


@pytest.mark.long
@pytest.mark.parametrize("backend", ["loop", "fused", "csr"])
@pytest.mark.parametrize("evaluate_every", ["epoch", 7])
def test_a_pack_stopped_anywhere_ends_with_the_same_bits(
    make_run: MakeRun,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
    backend: str,
    evaluate_every: str | int,
) -> None:
    keys = {
        "train__evaluate_every": evaluate_every,
        "sweep__tickets_per_trial": 3,
        "sweep__backend": backend,
    }
    undisturbed, run = make_run(**keys), make_run(**keys)
    finish(undisturbed, place)
    train_dense(run, 0, place, nobody)
    make_masks(run, 0)
    die_while_states_are_written(monkeypatch, random.Random(f"{backend} {evaluate_every}"))
    for pack in ready(run.experiment, set()):
        live_until_it_ends(run, pack, place)
    assert final_bits(run) == final_bits(undisturbed)
    for ticket in grid(run.experiment):
        of, other = (r.folder.replicate(0).ticket(ticket.name) for r in (run, undisturbed))
        epochs, expected = (read_json(folder.done)["epochs"] for folder in (of, other))
        for row in [*epochs, *expected]:
            del row["seconds"]
        assert epochs == expected
        assert not of.state.exists()
        assert read_json(of.attempts)["attempts"] > 1


def die_while_states_are_written(monkeypatch: pytest.MonkeyPatch, lots: random.Random) -> None:
    """From here a state is due after every step, and one of the next few is the last of a life.

    So tickets of one pack go on from different steps.
    """
    monkeypatch.setattr(states, "LONGEST_LOSS_SECONDS", -1.0)
    monkeypatch.setattr(states, "LARGEST_SHARE", math.inf)
    left = lots.randrange(1, 40)

    def save_and_perhaps_die(path: Path, state: Snapshot) -> None:
        nonlocal left
        save_snapshot(path, state)
        left -= 1
        if left == 0:
            left = lots.randrange(1, 40)
            raise Killed

    monkeypatch.setattr(retrain, "save_snapshot", save_and_perhaps_die)


def live_until_it_ends(run: Run, pack: Pack, place: Place) -> None:
    for _life in range(100):
        try:
            train_pack(run, pack, place, nobody)
        except Killed:
            continue
        return
    pytest.fail("it never ended")


def test_a_finished_ticket_is_never_begun_again(make_run: MakeRun, place: Place) -> None:
    run = make_run()
    finish(run, place)
    before = {
        path: path.stat().st_mtime_ns for path in run.folder.path.rglob("*") if path.is_file()
    }
    records: list[Any] = []
    for pack in ready(run.experiment, set()):
        train_pack(run, pack, place, lambda _rows, ended: records.extend(ended))
    assert [record["row"]["attempts"] for record in records] == [1] * 6
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_a_dense_run_stopped_anywhere_ends_with_the_same_bits(
    make_run: MakeRun, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed, run = make_run(), make_run()
    train_dense(undisturbed, 0, place, nobody)
    monkeypatch.setattr(states, "LARGEST_SHARE", math.inf)

    def die(row: dict[str, Any]) -> None:
        raise Killed

    for _life in range(3):
        with pytest.raises(Killed):
            train_dense(run, 0, place, die)
        # The row came before the state was written, so this life's epoch is lost and made again.
        step_files = list(run.folder.replicate(0).trajectory.parent.glob("step-*"))
        assert step_files
    trajectory = train_dense(run, 0, place, nobody)
    for step in (0, 6, 20, trajectory.total_steps):
        one, other = (load_snapshot(r.folder.replicate(0).step(step)) for r in (run, undisturbed))
        assert same(one.model, other.model)
        assert {n: same(s, other.optimizer[n]) for n, s in one.optimizer.items()} == dict.fromkeys(
            one.optimizer, True
        )
    assert trajectory.row["attempts"] == 4
    epochs, expected = (read_trajectory(r.folder.replicate(0)).epochs for r in (run, undisturbed))  # type: ignore[union-attr]
    for row in [*epochs, *expected]:
        del row["seconds"]
    assert epochs == expected


def test_a_new_reset_point_is_made_from_the_trajectory_with_the_same_bits(
    make_run: MakeRun, place: Place
) -> None:
    whole, run = make_run(reset__epochs=[0, 0.3, 1, 1.5]), make_run(reset__epochs=[0, 1])
    train_dense(whole, 0, place, nobody)
    train_dense(run, 0, place, nobody)
    grown = run.experiment.model_copy(update={"reset": whole.experiment.reset})
    folder = run.folder.replicate(0)
    kept = {path: path.read_bytes() for path in folder.trajectory.parent.glob("step-*")}
    record = train_dense(
        Run(grown, run.fingerprint, run.pixels, run.folder, run.data), 0, place, nobody
    )
    assert all(path.read_bytes() == content for path, content in kept.items())
    for step in (6, 30):
        assert record.has_step(folder, step)
        other = load_snapshot(whole.folder.replicate(0).step(step))
        assert same(load_snapshot(folder.step(step)).model, other.model)
    assert record.row == read_trajectory(folder).row  # type: ignore[union-attr]


def test_numbers_that_a_cpu_is_slow_with_are_zero(make_run: MakeRun, place: Place) -> None:
    adam = {"train__optimizer": "adam", "train__momentum": None, "train__lr": 0.001}
    run = make_run(reset__epochs=[0, 1], **adam)
    trajectory = train_dense(run, 0, place, nobody)
    folder = run.folder.replicate(0)
    state = load_snapshot(folder.step(trajectory.steps_per_epoch))
    means = state.optimizer["fc1.weight"]["exp_avg"]
    never_lit = (means == 0).all(dim=0)  # pixels that are dark in every image
    assert bool(never_lit.any())
    means[:, never_lit] = 1e-39
    save_snapshot(folder.step(trajectory.steps_per_epoch), state)
    grown = make_run(reset__epochs=[0, 1, 1.5], **adam).experiment
    train_dense(replace(run, experiment=grown), 0, place, nobody)
    after = load_snapshot(folder.step(round(1.5 * trajectory.steps_per_epoch)))
    assert not bool(after.optimizer["fc1.weight"]["exp_avg"][:, never_lit].any())
    assert bool((torch.tensor([1e-39]) * 1.0).any())  # elsewhere in the process they are none


def test_a_dense_run_goes_on_as_it_was_begun_whatever_is_asked_for_later(
    make_run: MakeRun, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(reset__epochs=[0, 1], train__epochs=2)
    monkeypatch.setattr(dense, "check_covers", nobody)  # there may be no compiler here
    began_with: list[str] = []

    def fit_and_see(pack: Any, *rest: Any, **more: Any) -> None:
        began_with.extend(one.backend for one in pack)
        fit(pack, *rest, **more)

    def die(row: dict[str, Any]) -> None:
        raise Killed

    monkeypatch.setattr(dense, "fit", fit_and_see)
    with pytest.raises(Killed):
        train_dense(run, 0, place, die)
    sweep = run.experiment.sweep.model_copy(update={"backend": "compiled_loop"})
    reset = run.experiment.reset.model_copy(update={"epochs": [0, 0.5, 1]})
    for update in ({"sweep": sweep}, {"sweep": sweep, "reset": reset}):
        asked = run.experiment.model_copy(update=update)
        train_dense(Run(asked, run.fingerprint, run.pixels, run.folder, run.data), 0, place, nobody)
    assert set(began_with) == {"loop"}
    assert run.folder.replicate(0).step(10).is_file()


def test_a_dense_run_killed_before_its_first_step_begins_as_it_is_asked_to(
    make_run: MakeRun, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(sweep__backend="compiled_loop")
    monkeypatch.setattr(dense, "check_covers", nobody)
    begin(run.folder.replicate(0).dense_attempts)  # it was killed before it had chosen
    began_with: list[str] = []

    def see_and_die(pack: Any, *_rest: Any, **_more: Any) -> None:
        began_with.extend(one.backend for one in pack)
        raise Killed

    monkeypatch.setattr(dense, "fit", see_and_die)
    for _life in range(2):
        with pytest.raises(Killed):
            train_dense(run, 0, place, nobody)
    assert began_with == ["compiled_loop"] * 2


def test_restart_runs_the_whole_recipe_from_step_zero(make_run: MakeRun, place: Place) -> None:
    run = make_run(reset__schedule="restart", reset__epochs=[1], prune__sparsities=[0.5])
    trajectory = finish(run, place)
    (ticket,) = grid(run.experiment)
    record = read_json(run.folder.replicate(0).ticket(ticket.name).done)
    assert record["row"]["steps_trained"] == trajectory.total_steps
    assert [row["epoch"] for row in record["epochs"]] == [1, 2, 3]
    other = make_run(reset__schedule="restart", reset__epochs=[0], prune__sparsities=[0.5])
    finish(other, place)
    assert set(final_bits(other).values()) != set(final_bits(run).values())


def test_continue_goes_on_to_the_dense_runs_end(make_run: MakeRun, place: Place) -> None:
    run = make_run(reset__epochs=[1], prune__sparsities=[0.5])
    trajectory = finish(run, place)
    (ticket,) = grid(run.experiment)
    record = read_json(run.folder.replicate(0).ticket(ticket.name).done)
    assert record["row"]["steps_trained"] == trajectory.total_steps * 2 // 3
    assert [row["epoch"] for row in record["epochs"]] == [2, 3]


def test_a_diverged_ticket_is_left_behind_and_its_pack_goes_on(
    make_run: MakeRun, place: Place
) -> None:
    run = make_run(train__batch_size=120)
    train_dense(run, 0, place, nobody)
    folder = run.folder.replicate(0)
    make_masks(run, 0)
    poisoned = load_snapshot(folder.step(0))
    poisoned.model["fc2.weight"].fill_(1e30)
    save_snapshot(folder.step(0), poisoned)
    for pack in ready(run.experiment, set()):
        train_pack(run, pack, place, nobody)
    status = {
        ticket.reset_epoch: read_json(folder.ticket(ticket.name).done)["row"]
        for ticket in grid(run.experiment)
    }
    assert {point: row["status"] for point, row in status.items()} == {
        0.0: "diverged",
        0.3: "done",
        1.0: "done",
    }
    assert status[0.0]["val_top1"] is None
    assert "finite" in status[0.0]["error"]


def test_a_diverged_dense_run_is_an_error(make_run: MakeRun, place: Place) -> None:
    with pytest.raises(StageFailed, match="not finite"):
        train_dense(make_run(train__lr=1e30), 0, place, nobody)


def test_keep_dense_is_judged_before_the_dense_run(make_run: MakeRun, place: Place) -> None:
    run = make_run(prune__keep_dense=["fc3.wieght"])
    with pytest.raises(LtrayError, match=r"fc3\.weight"):
        train_dense(run, 0, place, nobody)
    assert not list(run.folder.path.rglob("step-*"))


def test_ticket_files_hold_what_the_contract_says(make_run: MakeRun, place: Place) -> None:
    run = make_run()
    trajectory = finish(run, place)
    for ticket in grid(run.experiment):
        folder = run.folder.replicate(0).ticket(ticket.name)
        record = read_json(folder.done)
        for name, expected in record["sha256"].items():
            assert sha256_of(folder.path / name) == expected
        assert set(record["sha256"]) == {"weights.safetensors", "correct.safetensors"}
        row = record["row"]
        assert row["dense_val_top1"] == trajectory.row["val_top1"]
        assert row["steps_trained"] + row["reset_step"] == trajectory.total_steps
        assert _right(folder.correct, "validation") == round(row["val_top1"] * 216)
        assert _right(folder.correct, "test") == round(row["test_top1"] * 359)


def _right(path: Path, split: str) -> int:
    packed = load_file(path)[split]
    return int(sum(byte.bit_count() for byte in packed.tolist()))


def test_seeds_change_the_result_and_data_seed_only_the_order(
    make_run: MakeRun, place: Place
) -> None:
    first, other_order, other_seed = (
        make_run(train__epochs=2, reset__epochs=[0], **keys)
        for keys in ({}, {"train__data_seed": 7}, {"seed": 7})
    )
    runs = [first, other_order, other_seed]
    ends = [train_dense(run, 0, place, nobody).row["val_loss"] for run in runs]
    starts = [load_snapshot(run.folder.replicate(0).step(0)).model for run in runs]
    assert same(starts[0], starts[1])
    assert not same(starts[0], starts[2])
    assert len(set(ends)) == 3


def test_batchnorm_comes_from_the_reset_point(make_run: MakeRun, place: Place) -> None:
    run = make_run(
        model__arch="resnet20",
        data__train_limit=120,
        train__epochs=2,
        train__lr=0.01,
        prune__scope="global",
        prune__output_rate=None,
        prune__sparsities=[0.5],
        reset__epochs=[1],
    )
    finish(run, place)
    folder = run.folder.replicate(0)
    (ticket,) = grid(run.experiment)
    start = load_snapshot(folder.step(2)).model
    end = load_file(folder.ticket(ticket.name).weights)
    counts = [key for key in start if key.endswith("num_batches_tracked")]
    assert counts
    assert all(int(start[key]) == 2 and int(end[key]) == 4 for key in counts)


def test_records_are_plain_json(make_run: MakeRun, place: Place) -> None:
    run = make_run(prune__sparsities=[0.5], reset__epochs=[0])
    finish(run, place)
    for path in run.folder.path.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
