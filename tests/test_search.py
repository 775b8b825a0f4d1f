"""The search for the sparsest matching ticket: what it asks for, and what it comes to."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
from conftest import MakeRun, train_without_ray
from hypothesis import given
from hypothesis import strategies as st
from test_results import ticket_row

from ltray.analysis.chosen import choose
from ltray.analysis.grid import cells, counts_of, in_words, outside, skipped
from ltray.analysis.results import Results, Rows, collect
from ltray.analysis.statistics import sparsest_matching
from ltray.experiment import Experiment
from ltray.files import read_json
from ltray.lottery.matching import last_matching, within_margin
from ltray.lottery.ready import expected, ready, searches, wanted
from ltray.lottery.search import found, most_levels, next_levels
from ltray.lottery.tickets import TicketKey, grid, key

MARGIN = 0.01
LEVELS = [level / 25 for level in range(1, 21)]
Measured = tuple[float, int] | None


def walked_levels(
    differences: Sequence[float | None], margin: float = MARGIN
) -> dict[int, Measured]:
    """What a search has measured when it ends; None is a level that diverges."""
    known: dict[int, Measured] = {}
    while asked := next_levels(len(differences), known, margin):
        for level in asked:
            value = differences[level]
            known[level] = None if value is None else (value, 1)
    return known


def test_a_curve_that_only_falls_is_searched_exactly() -> None:
    for levels in range(1, 41):
        for last in range(-1, levels):
            known = walked_levels([0.0 if level <= last else -0.05 for level in range(levels)])
            assert found(known, MARGIN) == last, (levels, last)
            assert len(known) <= max(most_levels(levels), 2 + (levels // 3 + 1).bit_length())


@given(st.lists(st.none() | st.floats(-0.05, 0.01), min_size=1, max_size=30))
def test_what_is_found_matches_by_its_own_measurement(differences: list[float | None]) -> None:
    known = walked_levels(differences)
    at = found(known, MARGIN)
    if at >= 0:
        value = differences[at]
        assert value is not None
        assert within_margin(value, MARGIN)


@given(st.lists(st.floats(-0.05, 0.01), min_size=20, max_size=20))
def test_what_was_measured_decides_what_is_asked_for(differences: list[float]) -> None:
    """Begun again at any moment, a search measures what it would have."""
    whole = walked_levels(differences)
    known: dict[int, Measured] = {}
    while asked := next_levels(20, known, MARGIN):
        known[asked[-1]] = (differences[asked[-1]], 1)  # killed: only one of two was done
    assert known == whole


def test_twenty_levels_take_at_most_seven_as_a_rule() -> None:
    assert most_levels(20) == 7
    assert [most_levels(few) for few in (1, 3, 6, 12)] == [1, 3, 6, 6]
    chance = random.Random(0)
    taken = []
    for _ in range(300):
        true = chance.uniform(2, 18)
        curve = [-0.004 * max(0.0, level - true) for level in range(20)]
        noisy = [value + chance.gauss(0, 0.002) for value in curve]
        taken.append(len(walked_levels(noisy, 0.005)))
    assert sum(taken) / len(taken) <= 7
    assert max(taken) <= 9


def test_one_lucky_ticket_does_not_decide() -> None:
    """Level 13 matches by luck, far beyond the true 9: its neighbours overrule it."""
    differences = [0.0] * 10 + [-0.03, -0.035, -0.04, 0.0, -0.06, *[-0.1] * 5]
    assert found(walked_levels(differences), MARGIN) == 9


def test_a_level_that_diverged_hides_no_sparser_one() -> None:
    differences = [*[0.0] * 13, None, 0.0, 0.0, *[-0.05] * 4]
    assert found(walked_levels(differences), MARGIN) == 15


def experiment_of(**changes: Any) -> Experiment:
    document = {
        "name": "searched",
        "data": {"source": "digits"},
        "model": {"arch": "lenet_300_100"},
        "train": {"epochs": 10, "batch_size": 60, "lr": 0.1, "data_seed": 0},
        "prune": {"search": "matching", "sparsities": LEVELS},
        "reset": {"epochs": [0, 1]},
        "report": {"margin": MARGIN},
        **changes,
    }
    return Experiment.model_validate(document)


def walked(experiment: Experiment, last: dict[float, float]) -> dict[TicketKey, dict[str, Any]]:
    """Rows of a whole search in which tickets match up to a sparsity of each reset point."""
    rows: dict[TicketKey, dict[str, Any]] = {}
    while packs := ready(experiment, rows):
        for pack in packs:
            for ticket in pack.tickets:
                matches = ticket.sparsity <= last[ticket.reset_epoch]
                top1 = 0.9 if matches or ticket.control != "none" else 0.8
                rows[key(ticket)] = {
                    "status": "done",
                    "replicate": ticket.replicate,
                    "val_top1": top1,
                    "dense_val_top1": 0.9,
                }
    return rows


def test_each_reset_point_has_a_search_of_its_own() -> None:
    experiment = experiment_of()
    rows = walked(experiment, {0: 0.4, 1: 0.68})
    ended = searches(experiment, rows)
    assert {one.reset_epoch: one.found for one in ended} == {0: 0.4, 1: 0.68}
    assert all(one.ended for one in ended)
    assert {key(ticket) for ticket in wanted(experiment, rows)} == rows.keys()
    assert len(rows) <= 2 * 7


def test_every_replicate_and_retraining_of_a_level_is_trained() -> None:
    experiment = experiment_of(replicates=2, reset={"epochs": [0, 1], "retrainings": 2})
    rows = walked(experiment, {0: 0.4, 1: 0.68})
    places = {(ticket.sparsity, ticket.reset_epoch) for ticket in wanted(experiment, rows)}
    assert len(rows) == 4 * len(places)


def test_controls_are_trained_of_what_was_found_alone() -> None:
    experiment = experiment_of(controls=["shuffled_mask", "random_init"])
    rows = walked(experiment, {0: 0.4, 1: 0.68})
    controls = [ticket for ticket in wanted(experiment, rows) if ticket.control != "none"]
    done = Rows()
    for ticket in wanted(experiment, rows):
        done.put(ticket_row(ticket), [])
    drawn = [cell for cell in cells(done, experiment, "random_init") if not cell.missing]
    assert {(cell.sparsity, cell.reset_epoch) for cell in drawn} == {
        (level, point) for level in (0.4, 0.68) for point in (0, 1)
    }, "one stands beside all reset points"
    assert {(one.control, one.sparsity) for one in controls} == {
        ("shuffled_mask", 0.4),
        ("shuffled_mask", 0.68),
        ("random_init", 0.4),
        ("random_init", 0.68),
    }


def ended_with(
    status: str, level: float, experiment: Experiment
) -> dict[TicketKey, dict[str, Any]]:
    """Rows of a search in which all match up to 0.6, but for one level that ends otherwise."""
    rows: dict[TicketKey, dict[str, Any]] = {}
    while packs := ready(experiment, rows):
        for ticket in (one for pack in packs for one in pack.tickets):
            top1 = 0.9 if ticket.sparsity <= 0.6 else 0.8
            row = {"status": "done", "replicate": 0, "val_top1": top1, "dense_val_top1": 0.9}
            if ticket.sparsity == level:
                row |= {"status": status, "val_top1": None}
            rows[key(ticket)] = row
    return rows


def test_a_cell_that_diverged_is_passed_by() -> None:
    experiment = experiment_of(reset={"epochs": [0]})
    (one,) = searches(experiment, ended_with("diverged", 0.28, experiment))
    assert (one.ended, one.found) == (True, 0.6)


def test_a_cell_that_failed_is_waited_for() -> None:
    """A machine's error says nothing of it: the same command tries it again."""
    experiment = experiment_of(reset={"epochs": [0]})
    rows = ended_with("failed", 0.28, experiment)
    (one,) = searches(experiment, rows)
    assert one.to_come == (0.28,)
    assert not one.ended
    (name,) = [each for each, row in rows.items() if row["status"] == "failed"]
    del rows[name]  # as a new launch does
    assert [key(ticket) for pack in ready(experiment, rows) for ticket in pack.tickets] == [name]


def test_a_replicate_that_failed_is_waited_for() -> None:
    """What the others gave is not the answer: the one that is tried again may change it."""
    experiment = experiment_of(reset={"epochs": [0]}, replicates=2)
    rows = walked(experiment, {0: 0.6})
    assert searches(experiment, rows)[0].ended
    (name,) = [
        key(ticket)
        for ticket in wanted(experiment, rows)
        if (ticket.sparsity, ticket.replicate) == (0.6, 1)
    ]
    rows[name] |= {"status": "failed", "val_top1": None}
    (one,) = searches(experiment, rows)
    assert one.to_come == (0.6,)
    assert not one.ended
    del rows[name]  # as a new launch does
    assert [key(ticket) for pack in ready(experiment, rows) for ticket in pack.tickets] == [name]


def test_what_another_grid_has_measured_counts() -> None:
    experiment = experiment_of(reset={"epochs": [0]})
    row = {"status": "done", "replicate": 0, "val_top1": 0.9, "dense_val_top1": 0.9}
    every = {key(ticket): row for ticket in grid(experiment)}
    assert ready(experiment, every) == []
    half = {key(one): row for one in grid(experiment) if one.sparsity <= 0.4}
    rows = dict(half)
    while packs := ready(experiment, rows):
        rows |= {key(ticket): row for pack in packs for ticket in pack.tickets}
    assert {key(one) for one in wanted(experiment, rows)} == rows.keys()
    assert searches(experiment, rows)[0].found == 0.8


def test_more_replicates_go_on_with_the_levels_that_were_begun() -> None:
    one = experiment_of(reset={"epochs": [0]})
    rows = walked(one, {0: 0.4})
    two = experiment_of(reset={"epochs": [0]}, replicates=2)
    asked = {ticket.sparsity for pack in ready(two, rows) for ticket in pack.tickets}
    assert asked == {ticket.sparsity for ticket in wanted(one, rows)}


def test_after_a_grid_of_fewer_replicates_a_search_is_still_a_search() -> None:
    """A pilot of all levels by one replicate, then a search by three."""
    pilot = experiment_of(prune={"sparsities": LEVELS}, reset={"epochs": [0]})
    three = experiment_of(reset={"epochs": [0]}, replicates=3)
    rows = Rows()
    for ticket in grid(pilot):
        rows.put(ticket_row(ticket, val_top1=0.9, dense_val_top1=0.9), [])
    while packs := ready(three, rows.tickets):
        for ticket in (one for pack in packs for one in pack.tickets):
            top1 = 0.9 if ticket.sparsity <= 0.4 else 0.8
            rows.put(ticket_row(ticket, val_top1=top1, dense_val_top1=0.9), [])
    (one,) = searches(three, rows.tickets)
    assert (one.ended, one.found) == (True, 0.4)
    assert len(one.measured) <= most_levels(len(LEVELS)) == 7
    left = [cell for cell in cells(rows, three) if cell.missing]
    assert {cell.missing for cell in left} == {3}, "what one replicate measured is left aside"
    assert len(left) == outside(rows, three) == len(LEVELS) - len(one.measured)
    table = Results(three, pd.DataFrame(list(rows.tickets.values())), pd.DataFrame()).grid
    assert set(table["sparsity"]) == set(one.measured)
    best = sparsest_matching(cells(rows, three), MARGIN)
    assert best is not None
    assert best.sparsity == 0.4, "the report's answer is the search's"


def test_a_long_search_is_finished_by_replicates_that_came_later() -> None:
    """A margin that was changed, or contradictions, make it measure half of the levels."""
    looked_at = set(LEVELS[4:14])
    one, three = (experiment_of(reset={"epochs": [0]}, replicates=count) for count in (1, 3))
    row = {"status": "done", "replicate": 0, "val_top1": 0.9, "dense_val_top1": 0.9}
    rows = {key(ticket): row for ticket in grid(one) if ticket.sparsity in looked_at}
    assert {ticket.sparsity for ticket in wanted(three, rows)} == looked_at


def test_each_ticket_is_trained_alone_so_that_a_kill_changes_no_pack() -> None:
    experiment = experiment_of()
    assert all(len(pack.seats) == 1 for pack in ready(experiment, {}))


def test_a_plan_counts_the_most_that_a_search_may_train_as_a_rule() -> None:
    experiment = experiment_of(controls=["random_init"])
    assert len(expected(experiment, {})) == 2 * 7 + 1
    rows = walked(experiment, {0: 0.4, 1: 0.68})
    assert expected(experiment, rows) == []
    first = dict(list(rows.items())[:4])
    assert len(expected(experiment, first)) == 2 * 5 + 1
    assert in_words(experiment) == (
        "a search among 20 masks at each of 2 reset points, as a rule at most 14 of 40 "
        "retrainings, and controls of what is found"
    )


def test_a_search_trains_what_the_grid_would_have_to_the_bit(make_run: MakeRun) -> None:
    levels = [0.5, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995]
    changes = {"reset__epochs": [0, 1], "report__margin": 0.05, "prune__sparsities": levels}
    run = make_run(prune__search="matching", **changes)
    train_without_ray(run)
    rows = collect(run.folder)
    assert skipped(run.experiment, rows) > 0
    counts = counts_of(rows, run.experiment)
    assert counts["missing"] == 0
    assert counts["done"] == counts["all"] == len(rows.tickets) < 16
    whole = make_run(**changes)
    train_without_ray(whole)
    for _, name in rows.tickets:
        one, other = (
            read_json(which.folder.replicate(0).ticket(name).done)["sha256"]
            for which in (run, whole)
        )
        assert one == other
    best = choose(run, rows, None, None)
    assert within_margin(best.row["val_top1"] - best.row["dense_val_top1"], 0.05)
    as_searched = replace(run, experiment=whole.experiment)  # the same run as a grid, half-trained
    left = [one for pack in ready(as_searched.experiment, rows.tickets) for one in pack.tickets]
    assert len(left) == 16 - len(rows.tickets)


def test_the_sparsest_by_the_fit_matches_as_it_is() -> None:
    assert last_matching([0.0, -0.03, 0.0, -0.03], [1, 1, 1, 1], 0.016) == 2
    assert last_matching([-0.03], [1], 0.01) == -1
    assert last_matching([], [], 0.01) == -1
