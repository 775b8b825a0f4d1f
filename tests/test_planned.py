"""Plans against arithmetic by hand."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from ltray.analysis.planning.as_json import as_json
from ltray.analysis.planning.bill import Instance, Prices
from ltray.analysis.planning.checkpointing import Interruptions, slowdown
from ltray.analysis.planning.costs import Costs, Starting, Training, given
from ltray.analysis.planning.estimate import NOTHING, Estimate, exactly
from ltray.analysis.planning.planned import best_tickets_per_trial, planned, workers_that_pay
from ltray.analysis.planning.spending import interrupted, interrupted_whole, interruptions
from ltray.analysis.planning.text import Shown, lines
from ltray.analysis.planning.wording import hours, short, spread
from ltray.experiment import Experiment
from ltray.lottery.tickets import grid, key

NO_STARTS = Starting(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING)
STARTS = Starting(*(exactly(seconds) for seconds in (3.0, 5.0, 2.0, 7.0, 0.5, 1.0)))


def experiment(  # what matters to a plan
    masks: int, points: Sequence[float], epochs: int, schedule: str = "restart", **more: object
) -> Experiment:
    read = {
        "name": "case",
        "data": {"source": "digits", "image_size": 8, "crop_size": 8},
        "model": {"arch": "lenet_300_100"},
        "train": {"epochs": epochs, "batch_size": 60, "lr": 0.1, "data_seed": 0},
        "prune": {"sparsities": [number / 100 for number in range(masks)]},
        "reset": {"epochs": list(points), "schedule": schedule},
        **more,
    }
    return Experiment.model_validate(read)


def costs(training: Training, starting: Starting = NO_STARTS) -> Costs:
    return Costs(training, training, 1, starting, NOTHING, NOTHING, 0.1, "by hand")


def text_of(case: Experiment, seconds: float, workers: Sequence[int]) -> str:
    plan = planned(case, costs(given(seconds)), workers)
    return "\n".join(lines(Shown(plan, "none")))


def row(text: str, heading: str, workers: int) -> list[str]:
    """The words of one row of a table."""
    table = text[text.index(heading) :].splitlines()
    return next(line.split() for line in table if line.split()[:1] == [str(workers)])


def test_the_write_ups_figures() -> None:
    text = text_of(experiment(20, [0, 1, 2, 4, 8], 350), 270, [1, 20])
    assert "100 retrainings of 350 epochs             2,625.00 h = 2,625 h 00 min" in text
    assert "both                                      2,651.25 h = 2,651 h 15 min" in text
    alone = row(text, "The retrainings alone", 20)
    assert " ".join(alone) == "20 131.25 h = 131 h 15 min 20.00 1.00"
    with_dense = row(text, "With the dense run", 20)
    assert " ".join(with_dense[:10]) == "20 157.50 h = 157 h 30 min 16.83 0.84"
    assert with_dense[10:] == ["16.83", "16.83"]  # Amdahl's and Gustafson's of the same run


@pytest.mark.parametrize(
    ("masks", "points", "epochs", "seconds", "on"),
    [
        # 3 packs of 2 tickets of 10 epochs of 60 s: 20 min each; the dense run is 10 min.
        (3, [0, 1], 10, 60.0, (1, 3600, 4200)),
        (3, [0, 1], 10, 60.0, (2, 2400, 3000)),
        (3, [0, 1], 10, 60.0, (3, 1200, 1800)),
        (3, [0, 1], 10, 60.0, (9, 1200, 1800)),
        # 7 packs of 4 tickets of 5 epochs of 9 s: 3 min each.
        (7, [0, 1, 2, 3], 5, 9.0, (4, 360, 405)),
    ],
)
def test_restart_by_hand(
    masks: int, points: Sequence[float], epochs: int, seconds: float, on: tuple[int, int, int]
) -> None:
    workers, retrainings, training = on
    plan = planned(experiment(masks, points, epochs), costs(given(seconds)), [workers])
    assert plan.on[0].retrainings == exactly(retrainings)
    assert plan.on[0].training == exactly(training)


def test_tickets_that_continue_train_only_the_rest() -> None:
    plan = planned(experiment(2, [0, 2.5], 10, "continue"), costs(given(1.0)), [1, 2])
    assert plan.work.retrainings == exactly(2 * (10 + 7.5))
    assert plan.on[1].retrainings == exactly(17.5)


def test_the_lengths_of_the_retrainings_that_are_left_are_told() -> None:
    case = experiment(1, [0, 4.4], 5, "continue")
    assert "2 retrainings of 0.6 to 5 epochs" in text_of(case, 1.0, [1])
    plan = planned(case, costs(given(1.0)), [1], [key(grid(case)[0])], dense_done=1)
    assert "1 retraining of 0.6 epochs" in "\n".join(lines(Shown(plan, "none")))


def test_reading_is_paid_once_a_pack_and_as_long_as_its_longest_ticket() -> None:
    training = Training(NOTHING, {0.0: exactly(1.0)}, exactly(5.0), exactly(3.0), exactly(0.5), {})
    plan = planned(experiment(1, [0, 2], 10, "continue"), costs(training), [1])
    assert plan.work.retrainings == exactly(3.0 + 10 + 8 + 10 * 5.0 + 2 * 0.5)


def test_chains_of_iterative_pruning_are_as_long_as_all_their_levels() -> None:
    prune = {"sparsities": [0.2, 0.36, 0.488], "style": "iterative"}
    case = experiment(3, [0, 1], 10, prune=prune)
    plan = planned(case, costs(given(1.0)), [1, 2, 6])
    assert plan.work.retrainings == exactly(2 * 3 * 10)
    assert [on.retrainings.likely for on in plan.on] == [60, 30, 30]
    # Reading, and making networks, once a level.
    training = Training(NOTHING, {0.0: exactly(1.0)}, exactly(5.0), exactly(3.0), NOTHING, {})
    assert planned(case, costs(training), [1]).work.retrainings == exactly(2 * 3 * (3 + 10 + 50))


def test_controls_are_planned_also_those_that_wait_for_their_chains() -> None:
    both = ["shuffled_mask", "random_init"]
    plan = planned(experiment(3, [0, 1], 10, controls=both), costs(given(1.0)), [1])
    assert plan.work.retrainings == exactly((6 + 6 + 3) * 10)
    prune = {"sparsities": [0.2, 0.36, 0.488], "style": "iterative"}
    plan = planned(experiment(3, [0, 1], 10, prune=prune, controls=both), costs(given(1.0)), [1])
    assert plan.work.retrainings == exactly((6 + 6 + 6) * 10)
    # Chains take 30 s, however many workers; each control takes 10 and comes after them.
    many = planned(experiment(3, [0, 1], 10, prune=prune, controls=both), costs(given(1.0)), [99])
    assert many.on[0].retrainings.likely == 30 + 20
    text = "\n".join(lines(Shown(plan, "none")))
    assert "3 masks x 2 reset points + 12 controls = 18 tickets" in text


def test_replicates_have_dense_runs_that_run_side_by_side() -> None:
    plan = planned(experiment(1, [0], 10, replicates=3), costs(given(1.0)), [1, 2, 3])
    assert [on.training.likely for on in plan.on] == [60, 40, 20]
    assert plan.serial == 10 / 60
    assert [plan.amdahl(workers) for workers in (1, 2, 3)] == pytest.approx([1, 2, 3])
    assert plan.amdahl(6) == pytest.approx(60 / (10 + 30 / 6))


def test_between_two_measured_sparsities_costs_are_linear_and_beyond_them_level() -> None:
    training = Training(
        NOTHING, {0.5: exactly(4.0), 0.9: exactly(2.0)}, NOTHING, NOTHING, NOTHING, {}
    )
    levels = (0.2, 0.5, 0.6, 0.9, 0.99)
    assert [training.ticket(level).likely for level in levels] == pytest.approx([4, 4, 3.5, 2, 2])


def test_between_a_backend_of_all_weights_and_csr_the_cheaper_counts() -> None:
    # csr falls by 0.5 for each tenth of the weights: 2.2 s at 0.62, where fused takes 2.
    tried = {0.6: exactly(2.0), 0.88: exactly(0.9), 0.98: exactly(0.4)}
    backends = {0.6: "fused", 0.88: "csr", 0.98: "csr"}
    training = Training(NOTHING, tried, NOTHING, NOTHING, NOTHING, backends)
    costs_of = [training.ticket(level).likely for level in (0.62, 0.7, 0.8, 0.93)]
    assert costs_of == pytest.approx([2.0, 1.8, 1.3, 0.65])
    # With one level of csr nothing tells how it falls.
    training = replace(training, tickets={0.6: exactly(2.0), 0.88: exactly(0.9)})
    assert training.ticket(0.74).likely == pytest.approx(1.45)


def test_starts_stand_between_the_command_and_the_report() -> None:
    case = experiment(3, [0], 10)
    found = costs(given(1.0), STARTS)
    plan = planned(case, found, [1, 2])
    # Command, Ray, dense trial and run, masks' tasks, retrainings, report; nothing to be prepared.
    assert plan.on[0].whole == exactly(3 + 5 + 7 + 10 + 2 + (7 + 30 + 2 * 0.5) + 1)
    assert plan.on[1].whole == exactly(3 + 5 + 7 + 10 + 2 + (7 + 20 + 0.5) + 1)
    assert plan.work.starts == exactly(3 + 5 + 7 + 2 + 7 + 2 * 0.5 + 1)


def test_preparing_is_shared_out_and_every_dense_run_has_its_masks() -> None:
    case = experiment(1, [0], 10, replicates=3)
    found = replace(costs(given(1.0), STARTS), prepare=exactly(60.0), masks=exactly(6.0))
    plan = planned(case, found, [1, 2])
    # Command, Ray, preparing, dense runs, masks, retrainings, report.
    assert plan.on[0].whole == exactly(3 + 5 + (2 + 60) + (7 + 30) + (2 + 18) + (7 + 30 + 1) + 1)
    assert plan.on[1].whole == exactly(3 + 5 + (2 + 30) + (7 + 20) + (2 + 12) + (7 + 20.5) + 1)


@pytest.mark.parametrize("dense_done", [0, 2])
def test_the_rows_of_the_work_add_up_to_the_time_of_one_worker(dense_done: int) -> None:
    case = experiment(3, [0, 1], 10, replicates=2)
    found = replace(costs(given(1.0), STARTS), prepare=exactly(60.0), masks=exactly(6.0))
    plan = planned(case, found, [1], dense_done=dense_done)
    assert plan.work.prepare is not None
    rows = plan.work.training + plan.work.prepare + plan.work.starts
    assert plan.on[0].whole == rows


def test_workers_on_machines_of_their_own_cost_what_one_alone_does() -> None:
    both = replace(costs(given(1.0)), beside=given(2.0), apart=2)
    plan = planned(experiment(6, [0], 10), both, [2, 3])
    assert [on.retrainings.likely for on in plan.on] == [30, 40]


def test_what_is_done_is_not_planned_again() -> None:
    case = experiment(4, [0, 1], 10)
    done = [key(ticket) for ticket in grid(case)[:3]]
    plan = planned(case, costs(given(1.0)), [1], done, dense_done=1)
    assert (plan.tickets, plan.dense_runs, len(plan.packs)) == (5, 0, 3)
    assert plan.on[0].training == exactly(50)
    text = "\n".join(lines(Shown(plan, "none")))
    assert "8 tickets, 5 of them left" in text
    assert "dense run" not in text


def test_nothing_left_is_said_without_tables() -> None:
    case = experiment(1, [0], 10)
    plan = planned(case, costs(given(1.0)), [1], [key(one) for one in grid(case)], dense_done=1)
    text = "\n".join(lines(Shown(plan, "none")))
    assert "1 ticket, 0 of them left" in text
    assert "speed-up" not in text


def test_ranges_grow_with_every_cost() -> None:
    wide = Estimate(1.0, 2.0, 4.0)
    training = Training(wide, {0.0: wide}, NOTHING, NOTHING, NOTHING, {})
    plan = planned(experiment(2, [0], 10), costs(training), [1, 2])
    assert plan.on[0].training == Estimate(30, 60, 120)
    assert plan.on[1].training == Estimate(20, 40, 80)


def test_workers_stop_paying_where_no_more_of_them_save_a_twentieth() -> None:
    # 40 packs of 1 s behind a dense run of 100 s: with 8, 105 s; with 40, 101 s.
    long_dense = Training(exactly(10), {0.0: exactly(0.1)}, NOTHING, NOTHING, NOTHING, {})
    plan = planned(experiment(40, [0], 10), costs(long_dense), [1])
    assert workers_that_pay(plan) == 7  # 6 packs one after the other: 106 s <= 1.05 x 101
    assert workers_that_pay(planned(experiment(4, [0], 10), costs(given(1.0)), [1])) == 4


def test_smaller_packs_fill_more_workers_and_larger_ones_read_less() -> None:
    plan = planned(experiment(20, [0, 1, 2, 4, 8], 350), costs(given(270.0)), [100])
    size, seconds = best_tickets_per_trial(plan, 100)
    assert (size, seconds) == (1, 2 * 350 * 270)
    reading = Training(NOTHING, {0.0: exactly(0.01)}, exactly(1.0), NOTHING, NOTHING, {})
    plan = planned(experiment(4, [0, 1], 10), costs(reading), [1])
    assert best_tickets_per_trial(plan, 1)[0] == 8


def test_a_packs_own_size_that_divides_nothing_is_compared_too() -> None:
    # 9 packs of one reset point on 2 workers: by 1 the last waits; 5 and 4 come out even.
    case = experiment(9, [0], 10, sweep={"tickets_per_trial": 5})
    plan = planned(case, costs(given(1.0), replace(NO_STARTS, next_trial=exactly(5.0))), [2])
    assert plan.on[0].whole == exactly(10 + 50)
    assert best_tickets_per_trial(plan, 2) == (5, 60.0)


def test_another_pack_size_is_told_where_it_ends_a_twentieth_sooner() -> None:
    text = text_of(experiment(20, [0, 1, 2, 4, 8], 350), 270, [16, 20])
    assert "On 16 workers `sweep.tickets_per_trial: 1` would take" in text
    assert "On 20 workers" not in text
    # A pack of 5 tickets of 1 s, behind a dense run of 100 s: by 1 on 2 workers 2 s are saved.
    long_dense = Training(exactly(10), {0.0: exactly(0.1)}, NOTHING, NOTHING, NOTHING, {})
    case = experiment(5, [0], 10, sweep={"tickets_per_trial": 5})
    plan = planned(case, costs(long_dense), [2])
    size, seconds = best_tickets_per_trial(plan, 2)
    assert size == 1
    assert seconds == pytest.approx(103)
    assert "tickets_per_trial" not in "\n".join(lines(Shown(plan, "none")))


def test_how_long_workers_are_held_is_told() -> None:
    # A dense run of 1 h, then 2 retrainings of 1 h side by side.
    text = text_of(experiment(2, [0], 10), 360, [2])
    assert "2 workers: held for 4.00 worker-hours in all (GPU-hours, where each has a GPU);" in text
    assert "the training takes one worker 3.00 hours" in text


@pytest.mark.parametrize(
    ("gpus", "said", "gpu_hours"),
    [(0, "4.00 worker-hours in all;", 0), (4, "4.00 worker-hours in all (16.00 GPU-hours);", 16)],
)
def test_gpu_hours_are_those_of_all_gpus_of_a_trial(gpus: int, said: str, gpu_hours: int) -> None:
    case = experiment(2, [0], 10, sweep={"gpus_per_trial": gpus})
    shown = Shown(planned(case, costs(given(360)), [2]), "none")
    assert said in "\n".join(lines(shown))
    (on,) = as_json(shown)["workers"]
    assert (on["worker_hours"], on["gpu_hours"]) == (4, gpu_hours)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(43.4, "43 s"), (130, "2.2 min"), (750, "12 min"), (6000, "1.7 h"), (472_500, "131.2 h")],
)
def test_durations_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert short(seconds) == said


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (27.4, 68.0, "27 to 68 s"),
        (1440.0, 7164.0, "0.40 to 1.99 h"),
        (0.01, 0.02, ""),
        (60.0, 60.0, ""),
        (9_546_000.0, 9_551_700.0, "2,651.67 to 2,653.25 h"),
    ],
)
def test_ranges_have_two_decimals_of_hours_or_whole_seconds(
    low: float, high: float, said: str
) -> None:
    assert spread(Estimate(low, low, high)) == said


def test_interruptions_lengthen_the_training_alone() -> None:
    plan = planned(experiment(2, [0], 10), costs(given(360.0), STARTS), [1])
    found = interrupted(plan, hours_between=24)
    assert found == Interruptions(between=86_400, write=0.1, restart=300 + 7)
    times_as_long = slowdown(300, found)
    assert 1 < times_as_long < 1.01
    on = plan.on[0]
    expected = 30 * 360 * times_as_long + on.whole.likely - 30 * 360
    whole = interrupted_whole(on, found)
    assert whole is not None
    assert whole.likely == pytest.approx(expected)
    by_worker = next(
        line for line in interruptions(plan, 24) if line.split()[:2] == ["1", "worker"]
    )
    assert hours(expected) in by_worker


def test_workers_that_are_interrupted_all_the_time_never_end() -> None:
    plan = planned(experiment(2, [0], 10), costs(given(360.0), STARTS), [1])
    for hours_between in (0.0001, 0.001):
        text = "\n".join(interruptions(plan, hours_between))
        assert "over 1000 times with states every" in text
        assert "practically never ends" in text
        shown = as_json(Shown(plan, "none", hours_between=hours_between))
        assert shown["workers"][0]["whole_interrupted"] is None
        assert json.dumps(shown, allow_nan=False)


def test_a_price_is_that_of_the_machines_that_hold_the_workers() -> None:
    plan = planned(experiment(4, [0], 10), costs(given(360.0)), [4])
    machine = Instance(cpus=8, gpus=2, per_hour=3.0)
    prices = Prices(as_of="today", currency="EUR", where="here", instances={"rack": machine})
    text = "\n".join(lines(Shown(plan, "none", instance=("rack", prices))))
    assert "On rack, 2 workers each, at 3 EUR an hour" in text
    assert "4 workers on 2 machines        12.00 EUR" in text  # 2 h of 2 machines


def test_json_has_what_the_text_prints() -> None:
    tried = Training(
        dense=exactly(270.0),
        tickets={0.5: exactly(270.0), 0.9: Estimate(200.0, 270.0, 300.0)},
        shared=NOTHING,
        pack=NOTHING,
        ticket_files=NOTHING,
        backends={0.5: "fused", 0.9: "csr"},
    )
    plan = planned(experiment(20, [0, 1, 2, 4, 8], 350), costs(tried), [1, 20])
    machine = Instance(cpus=4, gpus=1, per_hour=0.5)
    prices = Prices(as_of="2026-11", currency="EUR", where="here", instances={"one": machine})
    shown = as_json(Shown(plan, "none", instance=("one", prices), hours_between=24))
    assert json.dumps(shown, allow_nan=False)
    assert shown["epoch"]["tickets"] == [
        {"sparsity": 0.5, "backend": "fused", "low": 270.0, "likely": 270.0, "high": 270.0},
        {"sparsity": 0.9, "backend": "csr", "low": 200.0, "likely": 270.0, "high": 300.0},
    ]
    assert shown["epoch"]["dense"]["likely"] == 270
    assert shown["amdahl_limit"] == pytest.approx(101)
    on = shown["workers"][1]
    for what, speedup in {"retrainings": 20, "training": 101 / 6, "whole": 101 / 6}.items():
        assert on[f"speedup_{what}"] == pytest.approx(speedup)
        assert on[f"efficiency_{what}"] == pytest.approx(speedup / 20)
    assert on["speedup_gustafson"] == pytest.approx(101 / 6)
    assert on["worker_hours"] == pytest.approx(20 * 157.5)
    found = interrupted(plan, 24)
    assert shown["interruptions"]["slowdown"] == slowdown(300, found)
    daly = shown["interruptions"]["interval_daly"]
    assert shown["interruptions"]["slowdown_daly"] == slowdown(daly, found)
    assert shown["machine"] == {
        "name": "one",
        "workers": 1,
        "per_hour": 0.5,
        "currency": "EUR",
        "where": "here",
        "as_of": "2026-11",
    }


@pytest.mark.parametrize(
    ("more", "best"),
    [
        ({}, 4),
        ({"prune": {"sparsities": [0.2, 0.5], "search": "matching"}}, None),
        ({"prune": {"sparsities": [0.2, 0.36], "style": "iterative"}}, None),
    ],
)
def test_no_pack_size_is_best_where_it_has_no_say(more: dict[str, Any], best: int | None) -> None:
    plan = planned(experiment(2, [0, 1], 10, **more), costs(given(1.0)), [1], done={})
    (on,) = as_json(Shown(plan, "none"))["workers"]
    assert on["best_tickets_per_trial"] == best
    assert (on["whole_with_best"] is None) == (best is None)
    assert "tickets_per_trial" not in "\n".join(lines(Shown(plan, "none")))


def test_machines_are_paid_for_as_long_as_interruptions_keep_them() -> None:
    plan = planned(experiment(4, [0], 10), costs(given(360.0)), [4])
    machine = Instance(cpus=8, gpus=2, per_hour=3.0)
    prices = Prices(as_of="today", currency="EUR", where="here", instances={"rack": machine})
    shown = Shown(plan, "none", instance=("rack", prices), hours_between=0.2)
    times_as_long = slowdown(300, interrupted(plan, 0.2))
    assert times_as_long > 1.5
    price = 12 * times_as_long
    text = "\n".join(lines(shown))
    assert f"4 workers on 2 machines {price:>12.2f} EUR" in text
    assert "with the time that interruptions add" in text
    (on,) = as_json(shown)["workers"]
    assert on["price"]["likely"] == pytest.approx(price)
    never = replace(shown, hours_between=0.001)
    assert "4 workers on 2 machines without end" in "\n".join(lines(never))
    assert as_json(never)["workers"][0]["price"] is None


@for_all(
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(5, 9),
    st.integers(1, 5),
    st.integers(1, 30),
)
def test_no_speedup_is_beyond_amdahls_or_the_number_of_workers(
    masks: int, points: int, epochs: int, replicates: int, workers: int
) -> None:
    case = experiment(masks, range(points), epochs, replicates=replicates)
    plan = planned(case, costs(given(7.0)), [workers])
    speedup = plan.work.training.likely / plan.on[0].training.likely
    assert 1 <= speedup <= plan.amdahl(workers) * (1 + 1e-9) <= workers * (1 + 2e-9)
