"""How a backend is chosen and a pack split, on real digits without Ray."""

import math
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import MakeRun
from packs import batches_for, pack_of, recipe_of

from ltray.errors import LtrayError
from ltray.files import read_json, sha256_of
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import Snapshot
from ltray.lottery.tickets import Pack
from ltray.models.networks import build
from ltray.run import Run
from ltray.training import fit as fit_module
from ltray.training import retrain
from ltray.training.backends import trial
from ltray.training.backends.choice import open_backend
from ltray.training.backends.loop import Loop
from ltray.training.backends.together import Together
from ltray.training.backends.trial import Choice, choose
from ltray.training.dense import train_dense
from ltray.training.fit import fit
from ltray.training.network import Network
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack
from ltray.training.start import note

PLENTY = 10**12


def nobody(*_what: Any) -> None:
    pass


def made(arch: str, count: int) -> list[Callable[[], Network]]:
    """Functions that make a pack's networks."""
    recipe = recipe_of(lr=0.01)

    def one(number: int) -> Network:
        return pack_of(arch, count, recipe, torch.float32)[number]

    return [partial(one, number) for number in range(count)]


def a_batch(arch: str) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = next(batches_for(arch, 1, torch.float32))
    return images, labels


@pytest.mark.parametrize(
    ("arch", "measured"),
    [("lenet_300_100", {"loop", "fused", "csr"}), ("conv2", {"loop", "fused"})],
)
def test_auto_measures_all_that_can_train_the_network(arch: str, measured: set[str]) -> None:
    choice = choose("auto", made(arch, 3), a_batch(arch), PLENTY)
    assert choice.milliseconds.keys() == measured
    assert all(each > 0 for each in choice.milliseconds.values())
    fastest = min(choice.milliseconds.values())
    assert choice.milliseconds[choice.backend] <= trial.WORTH * fastest
    told = choice.told()
    assert told is not None
    assert told.startswith(min(choice.milliseconds, key=lambda name: choice.milliseconds[name]))


@pytest.mark.parametrize(
    ("seconds", "steps", "measured"),
    [
        (0.001, 1, trial.FEWEST_STEPS),
        (0.001, 10**9, trial.MOST_STEPS),
        (0.001, 0, trial.MOST_STEPS),  # 0 = not known
        (0.03, 10**9, 7),  # the first after which each backend was measured for 0.2 seconds
        (0.03, 100, 3),  # two backends' 3 x 0.03 s are over 3 % of the training's 3 s
    ],
)
def test_a_short_training_is_not_held_up_by_measuring(
    monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int, measured: int
) -> None:
    now, taken = 0.0, 0

    def take_time(*_step: Any) -> None:
        nonlocal now, taken
        now += seconds
        taken += 1

    for backend in (Loop, Together):  # Together = fused
        monkeypatch.setattr(backend, "train_step", take_time)
    monkeypatch.setattr(trial, "time", SimpleNamespace(perf_counter=lambda: now))
    choose("auto", made("conv2", 3), a_batch("conv2"), PLENTY, steps)
    assert taken == 2 * (1 + measured)


def test_one_ticket_is_not_fused_with_itself() -> None:
    choice = choose("auto", made("conv2", 1), a_batch("conv2"), PLENTY)
    assert (choice.backend, choice.milliseconds) == ("loop", {})


def test_what_fits_follows_the_bytes_of_weights_optimizer_and_activations() -> None:
    tickets, batch = made("conv2", 4), a_batch("conv2")
    fits = {
        memory: choose("fused", tickets, batch, memory).fits
        for memory in (1, 40 * 2**20, 80 * 2**20)
    }
    # By hand: 1.2 M weights as such, as gradient and as 0 and 1 (the last ticket has no mask), 14
    # MiB and momentum none; activations 8 x 64 x 16 x 16 x 4 bytes, 0.5 MiB, times a few.
    assert fits[1] == 1
    assert 2 <= fits[40 * 2**20] <= 3
    assert fits[80 * 2**20] in {2 * fits[40 * 2**20], 2 * fits[40 * 2**20] + 1}


def test_a_named_backend_that_cannot_train_the_network_is_an_error_also_after_the_dense_run() -> (
    None
):
    images, labels = torch.randn(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64)
    model = build("densenet121", 10, 3, 32, seed=0)
    state = Snapshot(step=0, model=dict(model.state_dict()))
    ticket = Network("ticket", model, state, {}, recipe_of(lr=0.01), data_seed=0)
    with pytest.raises(LtrayError, match="fused cannot train this network"):
        choose("fused", [lambda: ticket], (images, labels), PLENTY)


def begun(run: Run) -> Run:
    train_dense(run, 0, this_place(), nobody)
    make_masks(run, 0)
    return run


def test_a_choice_is_written_before_the_first_step_and_kept(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(make_run(sweep__backend="auto", sweep__tickets_per_trial=3))
    (pack, *_) = ready(run.experiment, set())
    folders = [run.folder.replicate(0).ticket(ticket.name) for ticket in pack.tickets]

    def stop(*_what: Any, **_more: Any) -> None:
        raise InterruptedError

    with monkeypatch.context() as patched:
        patched.setattr(retrain, "fit", stop)
        with pytest.raises(InterruptedError):
            train_pack(run, pack, this_place(), nobody)
    first = [read_json(folder.attempts)["choices"]["cpu"] for folder in folders]
    assert len(first) == 3
    assert all(choice["milliseconds"].keys() == {"loop", "fused", "csr"} for choice in first)

    def measured_again(*_what: Any) -> Choice:
        raise AssertionError("it was chosen before")

    monkeypatch.setattr(retrain, "choose", measured_again)
    rows: list[dict[str, Any]] = []
    train_pack(run, pack, this_place(), lambda _rows, ended: rows.extend(e["row"] for e in ended))
    assert [row["backend"] for row in rows] == [choice["backend"] for choice in first]
    assert all(row["backend_ms"].count(",") == 2 for row in rows)
    assert [read_json(folder.attempts)["choices"]["cpu"] for folder in folders] == first


def test_tickets_of_one_pack_keep_the_backends_that_they_began_with(make_run: MakeRun) -> None:
    run = begun(make_run(sweep__backend="auto", sweep__tickets_per_trial=3))
    (pack, *_) = ready(run.experiment, set())
    wanted = ["csr", "loop", "csr"]
    for ticket, backend in zip(pack.tickets, wanted, strict=True):
        path = run.folder.replicate(0).ticket(ticket.name).attempts
        path.parent.mkdir(parents=True, exist_ok=True)
        note(path, "cpu", Choice(backend, fits=3, milliseconds={backend: 1.0}))
    rows: dict[str, dict[str, Any]] = {}
    train_pack(
        run,
        pack,
        this_place(),
        lambda _rows, ended: rows.update({e["row"]["ticket"]: e["row"] for e in ended}),
    )
    assert [rows[ticket.name]["backend"] for ticket in pack.tickets] == wanted
    assert {row["status"] for row in rows.values()} == {"done"}
    assert {row["attempts"] for row in rows.values()} == {1}


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tickets each part of a pack has that is trained together."""
    found: list[int] = []

    def fit_and_count(members: Any, *rest: Any) -> None:
        found.append(len(members))
        fit(members, *rest)

    monkeypatch.setattr(retrain, "fit", fit_and_count)
    return found


@pytest.mark.parametrize("backend", ["loop", "fused"])
def test_a_pack_too_big_for_the_memory_is_trained_in_parts(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, sizes: list[int], backend: str
) -> None:
    run = begun(make_run(sweep__backend=backend, sweep__tickets_per_trial=3))
    (pack, *_) = ready(run.experiment, set())
    one = 4 * 4 * 51_000  # weights, gradients, momenta and masks, by hand: 50,210 parameters
    monkeypatch.setattr(retrain, "memory_for_pack", lambda _device: int(2.6 * one))
    records: list[Any] = []
    train_pack(run, pack, this_place(), lambda _rows, ended: records.extend(ended))
    assert sizes == [2, 1]
    assert len(records) == 3
    assert all(math.isfinite(record["row"]["val_loss"]) for record in records)


def test_how_a_pack_is_cut_does_not_depend_on_who_is_left(
    make_run: MakeRun, sizes: list[int]
) -> None:
    run = begun(make_run(sweep__backend="loop", sweep__tickets_per_trial=3))
    (pack, *_) = ready(run.experiment, set())
    folders = [run.folder.replicate(0).ticket(ticket.name) for ticket in pack.tickets]
    for folder, fits in zip(folders, (1, 3, 3), strict=True):
        folder.attempts.parent.mkdir(parents=True, exist_ok=True)
        note(folder.attempts, "cpu", Choice("loop", fits))
    train_pack(run, pack, this_place(), nobody)
    folders[2].done.unlink()
    train_pack(run, pack, this_place(), nobody)
    assert sizes == [1, 1, 1, 1]


@pytest.mark.parametrize("backend", ["loop", "fused"])
def test_a_pack_is_spread_over_the_gpus_of_its_trial(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    run = begun(make_run(sweep__backend=backend, sweep__tickets_per_trial=3))
    alone = begun(make_run(sweep__backend=backend, sweep__tickets_per_trial=3))
    (pack, *_) = ready(run.experiment, set())
    opened: list[int] = []

    def open_and_count(name: str, seats: Any) -> Any:
        opened.append(len(seats))
        return open_backend(name, seats)

    monkeypatch.setattr(fit_module, "open_backend", open_and_count)
    train_pack(run, pack, this_place(gpus=2), nobody)  # pretended: each is the CPU
    assert opened[-2:] == [2, 1]
    for seats in (pack.tickets[:2], pack.tickets[2:]):
        train_pack(alone, Pack(seats, seats), this_place(), nobody)
    for ticket in pack.tickets:
        one, other = (r.folder.replicate(0).ticket(ticket.name) for r in (run, alone))
        assert sha256_of(one.weights) == sha256_of(other.weights)
