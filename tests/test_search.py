"""The search for the sparsest matching ticket: what it asks for, and what it comes to."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from conftest import MakeRun, train_without_ray
from hypothesis import given
from hypothesis import strategies as st

from ltray.analysis.chosen import choose
from ltray.analysis.grid import counts_of, in_words, skipped
from ltray.analysis.results import collect
from ltray.experiment import Experiment
from ltray.files import read_json
from ltray.lottery.matching import last_matching, within_margin
from ltray.lottery.ready import as_grid, ready, searches, wanted
from ltray.lottery.search import Asked, most_levels, search
from ltray.lottery.tickets import TicketKey, grid, key

MARGIN = 0.01


def searched(differences: Sequence[float], margin: float = MARGIN) -> Asked:
    return search(len(differences), lambda level: (differences[level], 1), margin)


@given(st.integers(1, 40), st.data())
def test_a_curve_that_only_falls_is_searched_exactly(levels: int, data: st.DataObject) -> None:
    last = data.draw(st.integers(-1, levels - 1))
    differences = [0.0 if level <= last else -0.05 for level in range(levels)]
    asked = searched(differences)
    assert asked.ended
    assert len(asked.levels) <= most_levels(levels)
    if levels <= 20:
        assert asked.found == last


@given(st.lists(st.floats(-0.05, 0.01), min_size=1, max_size=30))
def test_what_is_found_matches_by_its_own_measurement(differences: list[float]) -> None:
    asked = searched(differences)
    assert asked.ended
    assert len(asked.levels) <= most_levels(len(differences))
    if asked.found >= 0:
        assert within_margin(differences[asked.found], MARGIN)


@given(st.lists(st.floats(-0.05, 0.01), min_size=1, max_size=30), st.randoms())
def test_an_interrupted_search_asks_for_what_it_would_have(
    differences: list[float], chance: random.Random
) -> None:
    """Whatever of a round is measured first, and whenever it is asked again."""
    measured: dict[int, float] = {}

    def difference(level: int) -> tuple[float, int] | None:
        return (measured[level], 1) if level in measured else None

    asked = search(len(differences), difference, MARGIN)
    while not asked.ended:
        left = [level for level in asked.levels if level not in measured]
        level = chance.choice(left)
        measured[level] = differences[level]
        asked = search(len(differences), difference, MARGIN)
    assert asked == searched(differences)


def test_twenty_levels_take_at_most_seven() -> None:
    assert most_levels(20) == 7
    assert [most_levels(few) for few in (1, 3, 4, 5)] == [1, 3, 4, 4]


def test_one_lucky_ticket_does_not_decide() -> None:
    """Level 13 matches by luck, far beyond the true 9: its neighbours overrule it."""
    differences = [0.0] * 10 + [-0.03, -0.035, -0.04, 0.0, -0.06, *[-0.1] * 5]
    assert searched(differences).found == 9


def experiment_of(**changes: Any) -> Experiment:
    document = {
        "name": "searched",
        "data": {"source": "digits"},
        "model": {"arch": "lenet_300_100"},
        "train": {"epochs": 10, "batch_size": 60, "lr": 0.1, "data_seed": 0},
        "prune": {"search": "matching", "sparsities": [level / 25 for level in range(1, 21)]},
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
    found = searches(experiment, rows)
    levels = experiment.prune.sparsities
    assert {point: levels[one.found] for point, one in found.items()} == {0: 0.4, 1: 0.68}
    assert {key(ticket) for ticket in wanted(experiment, rows)} == rows.keys()
    assert len(rows) <= 2 * 7


def test_every_replicate_and_retraining_of_a_level_is_trained() -> None:
    experiment = experiment_of(replicates=2, reset={"epochs": [0, 1], "retrainings": 2})
    rows = walked(experiment, {0: 0.4, 1: 0.68})
    cells = {(ticket.sparsity, ticket.reset_epoch) for ticket in wanted(experiment, rows)}
    assert len(rows) == 4 * len(cells)


def test_controls_are_trained_of_what_was_found_alone() -> None:
    experiment = experiment_of(controls=["shuffled_mask", "random_init"])
    rows = walked(experiment, {0: 0.4, 1: 0.68})
    controls = [ticket for ticket in wanted(experiment, rows) if ticket.control != "none"]
    assert {(one.control, one.sparsity) for one in controls} == {
        ("shuffled_mask", 0.4),
        ("shuffled_mask", 0.68),
        ("random_init", 0.4),
        ("random_init", 0.68),
    }


def test_a_cell_that_diverged_or_failed_does_not_match() -> None:
    experiment = experiment_of(reset={"epochs": [0]})
    for status in ("diverged", "failed"):
        rows: dict[TicketKey, dict[str, Any]] = {}
        while packs := ready(experiment, rows):
            for ticket in (one for pack in packs for one in pack.tickets):
                row = {"status": "done", "replicate": 0, "val_top1": 0.9, "dense_val_top1": 0.9}
                if ticket.sparsity > 0.5:
                    row = {**row, "status": status, "val_top1": None}
                rows[key(ticket)] = row
        assert experiment.prune.sparsities[searches(experiment, rows)[0].found] == 0.48


def test_tickets_that_a_grid_has_trained_are_not_trained_again() -> None:
    experiment = experiment_of()
    every = grid(experiment)
    row = {"status": "done", "replicate": 0, "val_top1": 0.9, "dense_val_top1": 0.9}
    assert ready(experiment, {key(ticket): row for ticket in every}) == []


def test_a_plan_counts_the_most_that_a_search_may_train() -> None:
    experiment = experiment_of()
    assert len(grid(as_grid(experiment))) == 14
    assert as_grid(experiment_of(prune={"sparsities": [0.5]})) == experiment_of(
        prune={"sparsities": [0.5]}
    )
    assert in_words(experiment) == (
        "a search among 20 masks at each of 2 reset points, at most 14 of 40 retrainings"
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
