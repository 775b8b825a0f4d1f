"""When networks have learnt: worked out by hand, and on the page."""

from typing import Any

import pytest
from test_controls import with_retrainings
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
    assert (found.epoch, found.test_top1, found.last) == (2, 0.2, False)
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
    (found,) = learnt(rows, experiment, cells(rows, experiment), fresh)
    assert found.epoch.value == pytest.approx(5)
    assert found.earlier is not None
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
    (found,) = learnt(rows, experiment, cells(rows, experiment), [])
    assert found.earlier is not None
    assert found.earlier.interval is None
    assert found.control_later is None
    assert found.at_end == 0


def test_networks_that_were_hardly_evaluated_are_left_out() -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=1)
    rows = rows_of(experiment, {(0, DENSE): (10, 0.9), (0, "none"): (4, 0.9)})
    rows.epochs[0, DENSE] = rows.epochs[0, DENSE][: FEWEST_EVALUATIONS - 1]
    assert learnt(rows, experiment, cells(rows, experiment), []) == []


def test_equal_moments_of_all_seeds_are_no_interval() -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=3)
    of_dense = {(number, DENSE): (10, 0.9) for number in range(3)}
    of_tickets = {(number, "none"): (9, 0.91) for number in range(3)}
    rows = rows_of(experiment, {**of_dense, **of_tickets})
    (found,) = learnt(rows, experiment, cells(rows, experiment), [])
    assert found.earlier is not None
    assert (found.earlier.value, found.earlier.interval) == (1, None)


def test_a_lowest_loss_at_the_end_is_marked() -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=1)
    rows = rows_of(experiment, {(0, DENSE): (12, 0.9), (0, "none"): (12, 0.9)})
    rows.dense[1] = {}  # of a larger grid
    rows.epochs[1, DENSE] = falling_to(12, 0.9)
    (found,) = learnt(rows, experiment, cells(rows, experiment), [])
    assert found.at_end == 2


@pytest.mark.parametrize(("other", "said"), [(8, None), (9, None), (10, 1)])
def test_who_was_first_evaluated_after_the_other_s_moment_could_not_be_earlier(
    other: int, said: float | None
) -> None:
    """Training goes on from epoch 8: the ticket is first evaluated at the end of the ninth."""
    experiment = experiment_of(
        sparsities=(0.5,), reset_epochs=(8,), replicates=1, controls=("random_init",)
    )
    moments = {(0, DENSE): (other, 0.9), (0, "none"): (9, 0.9), (0, "random_init"): (other, 0.9)}
    rows = rows_of(experiment, moments)
    (cell,) = cells(rows, experiment)
    ticket = cell.done[0]["ticket"]
    rows.epochs[0, ticket] = [row for row in rows.epochs[0, ticket] if row["epoch"] > 8]
    fresh = cells(rows, experiment, "random_init")
    (found,) = learnt(rows, experiment, [cell], fresh)
    for mean in (found.earlier, found.control_later):
        assert (None if mean is None else mean.value) == said


def test_retrainings_do_not_pass_for_replicates() -> None:
    """Of two replicates one is done: its two retrainings are one seed."""
    experiment = with_retrainings(
        experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=2), 2
    )
    moments = {(number, kind): (10, 0.9) for number in range(2) for kind in (DENSE, "none")}
    rows = rows_of(experiment, moments)
    ours = [key for key in rows.tickets if key[0] == 0]
    for at, one in enumerate(ours):
        rows.epochs[one] = falling_to(4 + at, 0.9)
    rows.tickets = {key: rows.tickets[key] for key in ours}
    (found,) = learnt(rows, experiment, cells(rows, experiment), [])
    assert (found.epoch.value, found.epoch.interval) == (4.5, None)
    single = experiment.model_copy(update={"replicates": 1})
    (found,) = learnt(rows, single, cells(rows, single), [])
    assert found.epoch.interval is not None
    assert found.earlier is not None
    assert found.earlier.interval is None, "both stand beside the one dense run"


def test_replicates_whose_dense_run_is_gone_are_left_out() -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=2)
    of_dense = {(number, DENSE): (10, 0.9) for number in range(2)}
    of_tickets = {(number, "none"): (4 + number, 0.91) for number in range(2)}
    rows = rows_of(experiment, {**of_dense, **of_tickets})
    del rows.dense[1], rows.epochs[1, DENSE]
    (found,) = learnt(rows, experiment, cells(rows, experiment), [])
    assert found.epoch.value == 4
    del rows.dense[0], rows.epochs[0, DENSE]
    assert learnt(rows, experiment, cells(rows, experiment), []) == []
