from collections import Counter
from typing import Any

import pytest

from ltray.experiment import Experiment, SourceFacts, resolve
from ltray.lottery.mask_names import mask_of
from ltray.lottery.ready import ready
from ltray.lottery.tickets import grid, key

FACTS = SourceFacts(fingerprint="00", image_size=8, channels=1)


def experiment(**changes: Any) -> Experiment:
    document: dict[str, Any] = {
        "name": "x",
        "data": {"source": "digits"},
        "model": {"arch": "lenet_300_100"},
        "train": {"epochs": 5, "batch_size": 10, "lr": 0.1},
        "prune": {"sparsities": [0.5, 0.9]},
        "reset": {"epochs": [0, 1, 2.5]},
    }
    for place, value in changes.items():
        section, _, inner = place.partition("__")
        if inner:
            document.setdefault(section, {})[inner] = value
        else:
            document[section] = value
    return resolve(Experiment.model_validate(document), FACTS)


def names(of: Experiment) -> set[str]:
    return {ticket.name for ticket in grid(of)}


def test_the_grid_has_every_mask_at_every_reset_point_in_every_replicate() -> None:
    tickets = grid(experiment(replicates=3))
    assert len(tickets) == 2 * 3 * 3
    assert len({key(ticket) for ticket in tickets}) == 18
    assert {(ticket.seed, ticket.data_seed) for ticket in tickets} == {(0, 0), (1, 1), (2, 2)}


def test_growing_a_grid_keeps_every_name() -> None:
    grown = experiment(
        prune__sparsities=[0.99, 0.9, 0.5, 0.1],
        reset__epochs=[4, 2.5, 1, 0],
        replicates=2,
        report={"margin": 0.1},
        sweep={"tickets_per_trial": 2},
    )
    assert names(experiment()) < names(grown)


@pytest.mark.parametrize(
    "change",
    [
        {"prune__scope": "layerwise"},
        {"prune__min_layer_density": 0.01},
        {"prune__keep_dense": ["fc3.weight"]},
        {"reset__schedule": "restart"},
    ],
)
def test_what_changes_a_ticket_changes_its_name(change: dict[str, Any]) -> None:
    assert not names(experiment()) & names(experiment(**change))


def test_levels_are_named_by_their_shortest_decimal() -> None:
    name = mask_of(experiment(prune__sparsities=[0.60]), 0.60, 0).name
    assert name.startswith("magnitude-0.6-")
    assert name == mask_of(experiment(prune__sparsities=[0.6, 0.7]), 0.6, 0).name
    assert any("-reset-2.5-" in name for name in names(experiment()))


def test_a_pack_is_one_mask_with_its_reset_points_unless_told_otherwise() -> None:
    assert [len(pack.tickets) for pack in ready(experiment(), set())] == [3, 3]
    assert all(len({t.mask for t in pack.tickets}) == 1 for pack in ready(experiment(), set()))
    packs = ready(experiment(sweep={"tickets_per_trial": 4}), set())
    assert [len(pack.tickets) for pack in packs] == [4, 2]


def test_packs_never_mix_replicates_whose_data_orders_differ() -> None:
    packs = ready(experiment(replicates=2, sweep={"tickets_per_trial": 4}), set())
    assert all(len({ticket.replicate for ticket in pack.tickets}) == 1 for pack in packs)


def test_done_tickets_are_left_out_and_the_rest_keep_their_packs() -> None:
    of = experiment()
    first = ready(of, set())[0].tickets[0]
    packs = ready(of, {key(first)})
    assert sum(len(pack.tickets) for pack in packs) == 5
    assert packs[1] == ready(of, set())[1]
    assert ready(of, {key(ticket) for ticket in grid(of)}) == []


def test_tickets_of_a_pack_that_died_are_run_alone() -> None:
    of = experiment()
    died = ready(of, set())[0]
    packs = ready(of, set(), alone={key(ticket) for ticket in died.tickets})
    assert sorted(len(pack.tickets) for pack in packs) == [1, 1, 1, 3]
    assert len({pack.name for pack in packs}) == 4


CONTROLS = ["shuffled_mask", "random_init"]


def test_controls_stand_beside_every_cell_and_fresh_weights_once_a_mask() -> None:
    tickets = grid(experiment(controls=CONTROLS, replicates=2))
    kinds = Counter(ticket.control for ticket in tickets)
    assert kinds == {"none": 12, "shuffled_mask": 12, "random_init": 4}
    assert len({key(ticket) for ticket in tickets}) == 28
    fresh = [ticket for ticket in tickets if ticket.control == "random_init"]
    assert {(one.reset_epoch, one.reset_schedule) for one in fresh} == {(0.0, "restart")}
    own = experiment(prune__scores="reset", controls=["random_init"])  # a mask for every cell
    assert Counter(ticket.control for ticket in grid(own)) == {"none": 6, "random_init": 6}


def test_controls_change_no_name_and_no_pack_of_the_tickets_that_they_stand_beside() -> None:
    alone, controlled = experiment(), experiment(controls=CONTROLS)
    assert names(alone) < names(controlled)
    packs = ready(controlled, set())
    assert packs[: len(ready(alone, set()))] == ready(alone, set())
    assert all(len({ticket.control for ticket in pack.tickets}) == 1 for pack in packs)
    assert sum(len(pack.tickets) for pack in packs) == len(grid(controlled)) == 14


def test_rewinding_the_rate_is_another_ticket_and_its_fresh_control_is_not() -> None:
    of = {
        method: names(experiment(reset__method=method, controls=["random_init"]))
        for method in ("weights", "learning_rate", "fine_tune")
    }
    fresh = {name for name in of["weights"] if name.endswith("-random_init")}
    assert len(fresh) == 2
    assert of["weights"] & of["learning_rate"] == of["weights"] & of["fine_tune"] == fresh


def test_retrainings_have_data_orders_of_their_own_and_change_no_first_ticket() -> None:
    once, thrice = (experiment(reset__retrainings=times) for times in (1, 3))
    assert names(once) < names(thrice) < names(experiment(reset__retrainings=4))
    tickets = grid(thrice)
    assert len(tickets) == 3 * 6
    orders = {ticket.retraining: {ticket.data_seed} for ticket in tickets}
    assert orders[0] == {0}
    assert len(set.union(*orders.values())) == 3
    packs = ready(thrice, set())
    assert packs[:2] == ready(once, set())
    assert all(len({one.data_seed for one in pack.tickets}) == 1 for pack in packs)
    controlled = grid(experiment(reset__retrainings=3, controls=CONTROLS))
    kinds = Counter(ticket.control for ticket in controlled)
    assert kinds == {"none": 18, "shuffled_mask": 18, "random_init": 2}


def test_retrainings_of_a_chain_wait_for_its_masks() -> None:
    of = experiment(prune__style="iterative", reset__retrainings=2)
    packs = ready(of, ())
    assert [pack.in_turn for pack in packs] == [True] * 3
    done = {key(ticket) for pack in packs for ticket in pack.tickets}
    left = [ticket for pack in ready(of, done) for ticket in pack.tickets]
    assert [ticket.retraining for ticket in left] == [1] * 6
