"""Controls, from the grid to what the report says of them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeRun, train_without_ray
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from safetensors.torch import load_file
from test_results import experiment_of, ticket_row

from ltray.analysis.controls import Beside, Verdict, beside, beyond_control, verdict
from ltray.analysis.controls_figure import controls_figure, draw_differences
from ltray.analysis.correct import PerImage, Right
from ltray.analysis.drawing import new_axes, styled
from ltray.analysis.grid import cells
from ltray.analysis.results import Rows
from ltray.analysis.statistics import over_of
from ltray.experiment import Experiment
from ltray.files import read_json
from ltray.lottery.masks import load_mask, shuffled
from ltray.lottery.tickets import cells_of, control_of, grid, key, retraining_of
from ltray.training import retrain
from ltray.training.fit import fit

CONTROLS = ["shuffled_mask", "random_init"]


# trained


def test_controls_are_trained_with_what_is_taken_from_their_ticket(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_with: dict[str, tuple[int, dict[str, torch.Tensor]]] = {}

    def fit_and_see(pack: Any, *rest: Any, **more: Any) -> None:
        for network in (one.network for one in pack):
            state = {name: part.clone() for name, part in network.model.state_dict().items()}
            began_with[network.name] = network.step, state
        fit(pack, *rest, **more)

    monkeypatch.setattr(retrain, "fit", fit_and_see)
    run = make_run(controls=CONTROLS)
    train_without_ray(run)
    folder = run.folder.replicate(0)
    for cell in cells_of(run.experiment):
        mask = load_mask(folder.mask(cell.mask))
        moved = shuffled(mask, cell.seed)
        tickets = {kind: control_of(cell, kind).name for kind in ("none", *CONTROLS)}
        step, weights = began_with[tickets["none"]]
        shuffled_step, of_shuffled = began_with[tickets["shuffled_mask"]]
        fresh_step, fresh = began_with[tickets["random_init"]]
        assert (shuffled_step, fresh_step) == (step, 0)
        for name, kept in mask.items():
            # Where both masks keep a weight it is the same; each keeps its own alone.
            both = kept & moved[name]
            assert torch.equal(of_shuffled[name][both], weights[name][both])
            assert not bool(of_shuffled[name][~moved[name]].any())
            assert not bool(fresh[name][~kept].any())
            assert not bool((fresh[name] == weights[name])[kept].any())
        rows = {kind: read_json(folder.ticket(name).done)["row"] for kind, name in tickets.items()}
        assert rows["random_init"]["reset_epoch"] == rows["random_init"]["reset_step"] == 0
        assert rows["random_init"]["reset_schedule"] == "restart"
        assert rows["random_init"]["steps_trained"] == 60
        assert {kind: row["control"] for kind, row in rows.items()} == {
            kind: kind for kind in tickets
        }
        kept_weights = [row["kept_weights"] for row in rows.values()]
        assert len(set(kept_weights)) == 1
        trained = load_file(folder.ticket(tickets["shuffled_mask"]).weights)
        assert not any(bool(trained[name][~part].any()) for name, part in moved.items())


@pytest.mark.parametrize("method", ["learning_rate", "fine_tune"])
def test_methods_that_go_on_from_the_final_weights(method: str, make_run: MakeRun) -> None:
    drops = {"train__schedule": "step", "train__drops": [2], "reset__method": method}
    run = make_run(**drops, prune__sparsities=[0.5], prune__output_rate=None)
    train_without_ray(run)
    folder = run.folder.replicate(0)
    for ticket in grid(run.experiment):
        record = read_json(folder.ticket(ticket.name).done)
        assert record["row"]["steps_trained"] == 60 - round(20 * ticket.reset_epoch)
        rates = [row["learning_rate"] for row in record["epochs"]]
        # Three epochs of 0.1, 0.1 and 0.01: of them what lies past the reset point.
        of_dense = [0.1, 0.1, 0.01][int(ticket.reset_epoch) :]
        expected = of_dense if method == "learning_rate" else [0.01] * len(of_dense)
        assert rates == pytest.approx(expected)
        # From the trained weights: half of them suffice to be as good as the dense run at once.
        assert record["epochs"][0]["val_top1"] > 0.85


def test_a_retraining_has_the_same_start_and_another_order(make_run: MakeRun) -> None:
    once, twice = make_run(), make_run(reset__retrainings=2)
    train_without_ray(once)
    train_without_ray(twice)
    folder = twice.folder.replicate(0)
    for cell in cells_of(twice.experiment):
        first, again = (
            load_file(folder.ticket(retraining_of(cell, number).name).weights) for number in (0, 1)
        )
        alone = load_file(once.folder.replicate(0).ticket(cell.name).weights)
        assert all(torch.equal(first[name], alone[name]) for name in alone)
        assert not torch.equal(first["fc1.weight"], again["fc1.weight"])
        mask = load_mask(folder.mask(cell.mask))
        assert not any(bool(again[name][~part].any()) for name, part in mask.items())


# said


def test_retrainings_of_one_replicate_are_no_seeds_of_their_own() -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0,), replicates=2)
    reset = experiment.reset.model_copy(update={"retrainings": 2})
    experiment = experiment.model_copy(update={"reset": reset})
    rows = Rows()
    top1 = {(0, 0): 0.90, (0, 1): 0.92, (1, 0): 0.94, (1, 1): 0.98}
    for ticket in grid(experiment):
        row = ticket_row(ticket, val_top1=top1[ticket.replicate, ticket.retraining])
        rows.put({**row, "dense_val_top1": 0.95}, [])
    (cell,) = cells(rows, experiment)
    assert cell.over == "replicates"
    assert cell.differences == pytest.approx([0.91 - 0.95, 0.96 - 0.95])
    assert cell.mean("val_top1") == pytest.approx(0.935)
    one = experiment.model_copy(update={"replicates": 1})
    (cell,) = cells(rows, one)
    assert (cell.over, over_of(one)) == ("retrainings", "retrainings")
    assert cell.differences == pytest.approx([-0.05, -0.03])


def test_every_retraining_stands_beside_the_one_fresh_control_of_its_mask() -> None:
    experiment = one_cell(replicates=2)
    reset = experiment.reset.model_copy(update={"retrainings": 2})
    experiment = experiment.model_copy(update={"reset": reset})
    rows = rows_of(experiment, none=[0.95, 0.96], random_init=[0.90, 0.92])
    found = fresh(experiment, rows)
    assert found.control.asked == 2
    # 0.05 twice in one replicate and 0.04 twice in the other are two values and not four.
    assert found.difference is not None
    assert found.difference.interval is not None
    assert found.difference.interval.high == pytest.approx(
        0.045 + 12.7062 * 0.00707107 / 2**0.5, abs=1e-5
    )


def with_retrainings(experiment: Experiment, number: int) -> Experiment:
    reset = experiment.reset.model_copy(update={"retrainings": number})
    return experiment.model_copy(update={"reset": reset})


def test_retrainings_of_one_seed_do_not_win_against_one_training_of_the_control() -> None:
    experiment = with_retrainings(one_cell(replicates=1), 3)
    rows = rows_of(experiment, none=[0.95], random_init=[0.90])
    for number, row in enumerate(rows.tickets.values()):
        row["val_top1"] += number / 1000
    found = fresh(experiment, rows)
    assert found.difference is not None
    assert found.difference.pairs == 3
    assert verdict(found) == Verdict("matching", "no interval against random_init")


def test_nothing_is_said_over_replicates_of_which_one_is_there() -> None:
    experiment = with_retrainings(one_cell(replicates=2), 2)
    rows = rows_of(experiment, none=[0.95, 0.96], random_init=[0.90, 0.92])
    for other in [one for one in rows.tickets if one[0] == 1]:
        del rows.tickets[other]
    for number, row in enumerate(rows.tickets.values()):
        row["val_top1"] += number / 1000
    found = fresh(experiment, rows).difference
    assert found is not None
    assert found.interval is None


def rows_of(experiment: Experiment, **top1: list[float]) -> Rows:
    """Every ticket done; kind of control -> validation accuracy in each replicate."""
    rows = Rows()
    for ticket in grid(experiment):
        row = ticket_row(ticket)
        row["val_top1"] = top1[ticket.control][ticket.replicate]
        rows.put(row, [])
    return rows


def rows_of_one(experiment: Experiment, rows: Rows) -> Rows:
    """What there is when one replicate has finished."""
    return Rows(tickets={one: row for one, row in rows.tickets.items() if one[0] == 1})


def one_cell(replicates: int = 3) -> Experiment:
    return experiment_of(
        replicates=replicates, sparsities=(0.9,), reset_epochs=(0,), controls=("random_init",)
    )


def fresh(experiment: Experiment, rows: Rows, per_image: PerImage | None = None) -> Beside:
    found = beside(rows, experiment, "random_init", per_image or PerImage())
    return found[0.9, 0.0]


def test_a_ticket_above_its_control_in_every_replicate_wins() -> None:
    experiment = one_cell()
    rows = rows_of(experiment, none=[0.95, 0.96, 0.97], random_init=[0.90, 0.92, 0.91])
    found = fresh(experiment, rows)
    # Differences 0.05, 0.04, 0.06: mean 0.05, deviation 0.01, Student's t of 2 degrees 4.3027.
    assert found.difference is not None
    assert found.difference.value == pytest.approx(0.05)
    assert found.difference.interval is not None
    assert found.difference.interval.low == pytest.approx(0.05 - 4.30265 * 0.01 / 3**0.5, abs=1e-6)
    assert found.side == 1
    assert verdict(found).word == "winning"
    assert beyond_control({(0.9, 0.0): found}, "replicates").above == 1


def test_a_ticket_that_chance_could_have_put_above_its_control_only_matches() -> None:
    experiment = one_cell()
    rows = rows_of(experiment, none=[0.95, 0.96, 0.97], random_init=[0.90, 0.97, 0.95])
    found = fresh(experiment, rows)
    assert (found.side, verdict(found).word) == (0, "matching")
    assert verdict(found).why == "not beyond random_init"


def test_a_ticket_below_its_control_is_said_to_be() -> None:
    experiment = one_cell()
    rows = rows_of(experiment, none=[0.90, 0.92, 0.91], random_init=[0.95, 0.96, 0.97])
    assert verdict(fresh(experiment, rows)).why == "below random_init"


def test_a_control_that_diverged_or_is_to_come_decides_nothing() -> None:
    experiment = one_cell()
    rows = rows_of(experiment, none=[0.95, 0.96, 0.97], random_init=[0.90, 0.92, 0.91])
    name = control_of(cells_of(experiment)[0], "random_init").name
    rows.tickets[0, name]["status"] = "diverged"
    assert verdict(fresh(experiment, rows)).why == "random_init diverged"
    assert beyond_control({(0.9, 0.0): fresh(experiment, rows)}, "replicates").compared == 0
    rows = Rows(tickets={one: row for one, row in rows.tickets.items() if one != (0, name)})
    assert verdict(fresh(experiment, rows)).why == "not beyond random_init"
    one_seed = {(0.9, 0.0): fresh(experiment, rows_of_one(experiment, rows))}
    assert beyond_control(one_seed, "replicates").compared == 0  # of three that are to come
    rows.tickets = {one: row for one, row in rows.tickets.items() if row["control"] == "none"}
    assert verdict(fresh(experiment, rows)).why == "random_init has not finished"
    assert verdict(None).why == "no control"


def test_one_seed_is_compared_over_images_and_wins_only_there() -> None:
    experiment = one_cell(replicates=1)
    rows = rows_of(experiment, none=[0.875], random_init=[0.125])
    ticket, control = (key(one) for one in grid(experiment))
    per_image = PerImage()
    for one, bits in ((ticket, 0b11111110), (control, 0b00000001)):
        right = Right(8, torch.tensor([bits] * 1, dtype=torch.uint8).numpy())
        per_image.tickets[one] = {"validation": right, "test": right}
    found = fresh(experiment, rows, per_image)
    assert found.difference is not None
    assert found.difference.interval == found.difference.test_interval
    assert found.side == 1
    assert found.difference.p_value == pytest.approx(2 * (1 + 8) / 2**8)  # 7 gained, 1 lost of 8
    assert verdict(found).why == "on this one seed"


def test_a_fresh_control_stands_beside_all_reset_points_of_its_mask() -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0, 1), controls=("random_init",))
    rows = rows_of(experiment, none=[0.95], random_init=[0.90])
    found = beside(rows, experiment, "random_init", PerImage())
    (control,) = (row for row in rows.tickets.values() if row["control"] == "random_init")
    assert [one.control.done for one in found.values()] == [(control,)] * 2
    values = [one.difference.value for one in found.values() if one.difference is not None]
    assert values == pytest.approx([0.05, 0.05])


def test_every_cell_is_drawn_with_its_interval() -> None:
    experiment = experiment_of(
        replicates=3,
        sparsities=(0.9, 0.95),
        reset_epochs=(0, 1),
        controls=("random_init",),
    )
    rows = rows_of(experiment, none=[0.95, 0.96, 0.97], random_init=[0.90, 0.92, 0.91])
    found = beside(rows, experiment, "random_init", PerImage())
    axes = Figure().add_subplot()
    draw_differences(axes, found, ["red", "blue"])
    marks = {
        (round(float(np.asarray(one.get_xdata())[0])), one.get_color()) for one in axes.lines[1:]
    }
    assert marks == {(number, colour) for number in (0, 1) for colour in ("red", "blue")}
    for one in axes.lines[1:]:
        assert np.asarray(one.get_ydata()) == pytest.approx([5.0])
    difference = found[0.9, 0.0].difference
    assert difference is not None
    assert difference.interval is not None
    ends = [100 * difference.interval.low, 100 * difference.interval.high]
    bars = [bar for bar in axes.collections if isinstance(bar, LineCollection)]
    assert [bar.get_segments()[0][:, 1] for bar in bars] == [pytest.approx(ends)] * 4
    low, high = axes.get_ylim()
    assert low < 0 < 1.1 * max(5.0, *ends) < high
    assert "4 of 4 cells lie wholly above zero" in controls_figure("random_init", found)


@pytest.mark.parametrize(
    "levels",
    [
        tuple(1 - 0.8**number for number in range(1, 10)),  # 86.5782272 % and the like
        tuple(number / 100 for number in range(80, 100)),
        (0.885, 0.895, 0.905, 0.915, 0.925, 0.935, 0.945, 0.955, 0.965),
        (0.5,),
    ],
)
def test_the_names_of_levels_do_not_run_into_each_other(levels: tuple[float, ...]) -> None:
    levels = tuple(round(one, 9) for one in levels)
    experiment = experiment_of(sparsities=levels, reset_epochs=(0,), controls=("random_init",))
    rows = rows_of(experiment, none=[0.95], random_init=[0.90])
    with styled():
        figure, axes = new_axes()
        draw_differences(axes, beside(rows, experiment, "random_init", PerImage()), ["red"])
        FigureCanvasAgg(figure).draw()  # type: ignore[no-untyped-call]
        places = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert len(places) >= min(len(levels), 5)
    assert all(left.x1 < right.x0 for left, right in pairwise(places))
