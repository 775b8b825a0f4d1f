"""What a sweep says of how long it will still take."""

from typing import Any

import pytest
from test_results import experiment_of, ticket_row

from ltray.analysis.results import Rows
from ltray.cluster import dense_runs, progress
from ltray.cluster.dense_runs import DenseProgress
from ltray.cluster.metrics import SweepSeries
from ltray.cluster.progress import Progress
from ltray.lottery.tickets import Ticket, grid, key
from ltray.lottery.trajectory import Trajectory

STEPS = 100  # of the dense run, in 20 epochs


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def trajectory() -> Trajectory:
    return Trajectory(
        row={},
        epochs=[],
        prunable={},
        output_layer="",
        parameters=0,
        steps_per_epoch=5,
        total_steps=STEPS,
        sha256={},
    )


def test_copies_of_the_dense_network_are_not_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SweepSeries, "tickets", lambda *_: None)
    monkeypatch.setattr(SweepSeries, "time_left", lambda *_: None)
    experiment = experiment_of(sparsities=(0.0,), reset_epochs=(0,))
    (ticket,) = grid(experiment)
    rows, said = Rows(tickets={key(ticket): ticket_row(ticket)}), list[str]()
    series = SweepSeries.__new__(SweepSeries)
    Progress([ticket], rows, {0: trajectory()}, None, said.append, series).see([], [key(ticket)])
    assert said == ["1/1 tickets"]


def test_a_dense_run_that_is_evaluated_often_does_not_flood_the_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(dense_runs, "time", clock)
    said: list[str] = []
    shown = DenseProgress(said.append, epochs=55)
    for number in range(1, 5501):  # a hundred evaluations an epoch, ten a second
        clock.now += 0.1
        for replicate in (0, 1):
            row = {"replicate": replicate, "epoch": number / 100, "val_top1": 0.9, "test_top1": 0.8}
            shown.see({"rows": [row]})
    assert len(said) <= 2 * (550 / 5 + 2)
    assert said[0] == "dense run, replicate 0: epoch 0.01/55, validation 0.9000, test 0.8000"
    assert said[-1].startswith("dense run, replicate 1: epoch 55/55,")


def report(ticket: Ticket, step: int, seconds: float) -> dict[str, Any]:
    return {"replicate": 0, "ticket": ticket.name, "step": step, "seconds": seconds}


def test_two_workers_that_report_one_after_the_other_are_not_taken_for_one_fast_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four tickets of 100 steps in packs of two, on two workers that take 2 s a step and ticket."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    experiment = experiment_of(sparsities=(0.5, 0.9, 0.95, 0.99), reset_epochs=(0,))
    tickets = grid(experiment)
    rows = Rows()
    said: list[str] = []
    series = SweepSeries.__new__(SweepSeries)
    monkeypatch.setattr(SweepSeries, "tickets", lambda *_: None)
    monkeypatch.setattr(SweepSeries, "time_left", lambda *_: None)
    shown = Progress(tickets, rows, {0: trajectory()}, 0.02, said.append, series)
    clock.now += 30  # workers start
    clock.now += 200  # 50 steps of two tickets
    shown.see([report(one, 50, seconds=100.0) for one in tickets[:2]], [])
    assert said[-1] == "0/4 tickets, 0 matching, about 10 min left"  # by one pack: 300 / 100 x 200
    clock.now += 6
    shown.see([report(one, 50, seconds=103.0) for one in tickets[2:]], [])
    assert said[-1] == "0/4 tickets, 0 matching, about 3 min left"  # 200 / 200 x 206
    for ticket in tickets[:2]:
        rows.tickets[key(ticket)] = ticket_row(ticket, val_top1=0.1)
    clock.now += 194
    shown.see(
        [report(one, STEPS, seconds=200.0) for one in tickets[:2]],
        [key(one) for one in tickets[:2]],
    )
    assert said[-1].startswith("2/4 tickets, 0 matching, about 2 min left")  # 100 / 300 x 400
