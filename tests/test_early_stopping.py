"""When networks have learnt: worked out by hand, and on the page."""

from typing import Any

import pytest
from test_results import experiment_of, ticket_row

from ltray.analysis.early_stopping import FEWEST_EVALUATIONS, learnt, lowest
from ltray.analysis.grid import cells
from ltray.analysis.results import DENSE, Rows
from ltray.experiment import Experiment
from ltray.lottery.tickets import grid


def epochs(losses: list[float], test_top1: list[float]) -> list[dict[str, Any]]:
    return [
        {"epoch": float(number), "val_loss": loss, "test_top1": top1}
        for number, (loss, top1) in enumerate(zip(losses, test_top1, strict=True), start=1)
    ]


def falling_to(lowest_at: int, top1: float) -> list[dict[str, Any]]:
    """Twelve evaluations, the lowest loss at one of them, where the accuracy is top1."""
    losses = [abs(number - lowest_at) / 10 + 0.1 for number in range(1, 13)]
    return epochs(losses, [top1 if number == lowest_at else 0.5 for number in range(1, 13)])


def rows_of(experiment: Experiment, moments: dict[tuple[int, str], tuple[int, float]]) -> Rows:
    """(replicate, control or dense) -> when its lowest loss comes, and the accuracy there."""
    rows = Rows()
    for ticket in grid(experiment):
        row = ticket_row(ticket)
        rows.put(row, falling_to(*moments[ticket.replicate, ticket.control]))
    for replicate in range(experiment.replicates):
        rows.dense[replicate] = {}
        rows.epochs[replicate, DENSE] = falling_to(*moments[replicate, DENSE])
    return rows


def test_the_first_of_equal_losses_counts() -> None:
    found = lowest(epochs([0.3, 0.1, 0.2, 0.1], [0.1, 0.2, 0.3, 0.4]))
    assert found is not None
    assert found["epoch"] == 2
    assert lowest([]) is None


def test_tickets_are_set_beside_their_own_dense_run_and_control() -> None:
    experiment = experiment_of(
        sparsities=(0.5,), reset_epochs=(0,), replicates=3, controls=("random_init",)
    )
    moments = {
        **{(number, DENSE): (10, 0.90) for number in range(3)},
        **{(number, "none"): (at, 0.92) for number, at in enumerate((4, 5, 6))},
        **{(number, "random_init"): (11, 0.80) for number in range(3)},
    }
    rows = rows_of(experiment, moments)
    fresh = cells(rows, experiment, "random_init")
    (found,) = learnt(rows, cells(rows, experiment), fresh)
    assert found.epoch.value == pytest.approx(5)
    assert found.earlier.value == pytest.approx(5)
    assert found.test_top1.value == pytest.approx(0.92)
    assert found.above.value == pytest.approx(0.02)
    assert found.control_later is not None
    assert found.control_later.value == pytest.approx(6)
    # Student's t of three: 4.303 x 1 / sqrt(3).
    assert found.earlier.interval is not None
    assert found.earlier.interval.low == pytest.approx(5 - 2.484, abs=1e-3)
    assert found.earlier.interval.high == pytest.approx(5 + 2.484, abs=1e-3)


def test_one_seed_has_no_interval() -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=1)
    rows = rows_of(experiment, {(0, DENSE): (10, 0.9), (0, "none"): (4, 0.9)})
    (found,) = learnt(rows, cells(rows, experiment), [])
    assert found.earlier.interval is None
    assert found.control_later is None


def test_networks_that_were_hardly_evaluated_are_left_out() -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=1)
    rows = rows_of(experiment, {(0, DENSE): (10, 0.9), (0, "none"): (4, 0.9)})
    rows.epochs[0, DENSE] = rows.epochs[0, DENSE][: FEWEST_EVALUATIONS - 1]
    assert learnt(rows, cells(rows, experiment), []) == []
