import re
from typing import Any

import pytest
from test_planned import experiment

from ltray.analysis.planning.costs import given
from ltray.analysis.planning.run_costs import from_dense_run, from_packs
from ltray.analysis.planning.storage import stored_bytes
from ltray.analysis.results import Rows
from ltray.cluster.ahead import ahead
from ltray.data.expected import ExpectedImages
from ltray.lottery.tickets import grid
from ltray.models.sizes import Sizes


def epoch(number: float, seconds: float) -> dict[str, Any]:
    return {"epoch": number, "step": int(10 * number), "seconds": seconds}


def ticket(sparsity: float, pack: str, start: int, end: int, **more: Any) -> dict[str, Any]:
    moment = "2026-11-26T10:00:{:02d}.000000+00:00"
    row = {
        "status": "done",
        "replicate": 0,
        "pack": pack,
        "sparsity": sparsity,
        "epochs_trained": 10.0,
        "attempts": 1,
        "backend": "loop",
        "started_at": moment.format(start),
        "finished_at": moment.format(end),
    }
    return row | more


def test_the_dense_runs_first_epoch_pays_for_what_is_set_up_once() -> None:
    rows = [epoch(1, 9.0), epoch(2, 10.0), epoch(3, 11.1), epoch(4, 12.0)]
    training = from_dense_run(rows, evaluated=0.3, kept_alone=False)
    assert training is not None
    assert training.dense.likely == pytest.approx(1.0 + 0.33 * 0.3)
    assert training.ticket(0.9).low < training.dense.likely < training.ticket(0.9).high


def test_where_kept_weights_alone_are_computed_sparser_tickets_cost_less() -> None:
    rows = [epoch(n, float(n)) for n in range(1, 5)]
    trainings = [from_dense_run(rows, 0.0, kept_alone=each) for each in (False, True)]
    costs = [
        [one.ticket(sparsity).likely for sparsity in (0.5, 0.9, 0.99)]
        for one in trainings
        if one is not None
    ]
    # 0.8 of the dense run up to half of the weights, 0.1 of it with none: linear between them.
    assert costs[0] == pytest.approx([0.8, 0.8, 0.8])
    assert costs[1] == pytest.approx([0.8, 0.1 + 0.7 * 0.2, 0.1 + 0.7 * 0.02])


def test_a_single_epoch_tells_nothing_of_the_next() -> None:
    assert from_dense_run([epoch(1, 9.0)], 0.3, kept_alone=False) is None


def test_of_a_single_epoch_evaluations_within_it_tell_enough() -> None:
    training = from_dense_run([epoch(0.5, 9.0), epoch(1.0, 9.5)], evaluated=0.0, kept_alone=False)
    assert training is not None
    assert training.dense.likely == pytest.approx(1.0)


def test_a_packs_span_is_shared_out_over_its_tickets_epochs() -> None:
    rows = [
        ticket(0.5, "a", 0, 20),
        ticket(0.5, "a", 0, 20, epochs_trained=30.0),
        ticket(0.9, "b", 20, 30),
        ticket(0.9, "c", 30, 44, attempts=2),  # began again: its span is not its training
        ticket(0.9, "d", 30, 44, status="failed"),
        ticket(0.9, "e", 44, 40),  # a clock that was set back
    ]
    training = from_packs(given(5.0), rows)
    assert training is not None
    assert training.ticket(0.5).likely == pytest.approx(20 / 40)
    assert training.ticket(0.9).likely == pytest.approx(10 / 10)
    assert training.dense.likely == 5.0


def test_without_packs_costs_stay_as_they_were() -> None:
    assert from_packs(None, []) is None
    assert from_packs(given(5.0), []) == given(5.0)


def test_a_new_sweep_says_how_much_there_is_to_do() -> None:
    found = ahead(experiment(3, [0, 1], 10, "continue"), Rows(), None, workers=2, kept_alone=False)
    assert found.on is None
    assert "1 dense run of 10 epochs, then 6 retrainings, 57 epochs in all" in found.text
    assert "python -m ltray.plan" in found.text
    tenths = ahead(
        experiment(1, [0, 1.1, 4.4], 5, "continue"), Rows(), None, workers=2, kept_alone=False
    )
    assert "1 dense run of 5 epochs, then 3 retrainings, 9.5 epochs in all" in tenths.text


def test_after_the_dense_run_a_sweep_says_how_long_the_rest_takes() -> None:
    case = experiment(3, [0, 1], 10)
    rows = Rows()
    rows.put_dense(0, {"train_seconds": 20.0}, [epoch(n, 9.0 + n) for n in range(1, 11)], {})
    found = ahead(case, rows, (600, 100, 200), workers=2, kept_alone=False)
    assert found.on is not None
    # 3 packs of 2 x 10 epochs of 1 s and a little evaluation: on 2 workers, 2 packs long.
    assert 0.4 * 40 < found.on.whole.low < 0.8 * 40 * 1.2 < found.on.whole.likely < 60
    expected = r"plan: 6 retrainings, 60 epochs in all on 2 workers: \d+ s \(\d+ s to \d+ s\)"
    assert re.match(expected, found.text)


def test_evaluating_within_epochs_makes_them_longer() -> None:
    """600 images in steps of 60 are 10 steps an epoch: every 2 of them is 5 evaluations."""
    rows = Rows()
    rows.put_dense(0, {"train_seconds": 20.0}, [epoch(n, 9.0 + n) for n in range(1, 11)], {})
    once = experiment(1, [0], 10)
    more = once.model_copy(update={"train": once.train.model_copy(update={"evaluate_every": 2})})
    found = [
        ahead(case, rows, (600, 100, 200), workers=1, kept_alone=False).on for case in (once, more)
    ]
    seconds = [on.whole.likely for on in found if on is not None]
    # A ticket costs 0.8 of the dense run, an evaluated image 0.33 of one that is trained on.
    longer = 10 * 0.8 * 0.33 * (5 - 1) * 300 / 600
    assert seconds[1] - seconds[0] == pytest.approx(longer)


def test_dense_runs_of_replicates_that_are_no_longer_asked_for_do_not_count() -> None:
    rows = Rows()
    for replicate in (0, 1):
        rows.put_dense(replicate, {}, [epoch(n, float(n)) for n in range(1, 11)], {})
    found = ahead(experiment(1, [0], 10), rows, (600, 100, 200), workers=1, kept_alone=False)
    assert found.text.startswith("plan: 1 retraining, 10 epochs in all on 1 worker: ")


def test_a_sweep_that_goes_on_counts_what_is_left() -> None:
    case = experiment(2, [0, 1], 10)
    rows = Rows()
    rows.put_dense(0, {"train_seconds": 20.0}, [epoch(n, 2.0 * n) for n in range(1, 11)], {})
    for one in grid(case)[:2]:
        rows.put(ticket(0.0, "a", 0, 20, ticket=one.name), [])
    found = ahead(case, rows, (600, 100, 200), workers=1, kept_alone=False)
    assert found.text.startswith("plan: 2 retrainings, 20 epochs in all on 1 worker")
    assert found.on is not None
    assert 20 < found.on.whole.likely < 40  # a second an epoch, as the first pack took, and starts


def test_storage_of_photographs_and_of_a_grid_without_the_initial_weights() -> None:
    images = ExpectedImages(90, 10, 20, 120, 10, encoded=True, prepared=False, told_by="hand")
    case = experiment(1, [2, 4], 10)
    data = case.data.model_copy(update={"channels": 3, "encoding": "jpeg", "image_size": 227})
    sizes = Sizes(weights_bytes=1000, state_bytes=3000, prunable_weights=80)
    found = stored_bytes(case.model_copy(update={"data": data}), images, sizes)
    assert found["shards"] == 120 * 18_700  # ImageNet's mean
    assert found["trajectories"] == 4 * 3000  # step 0 is kept too: epochs 0, 2, 4 and 10


def test_storage_by_hand() -> None:
    images = ExpectedImages(90, 10, 20, 120, 10, encoded=False, prepared=False, told_by="hand")
    case = experiment(3, [0, 1], 10, replicates=2)
    data = case.data.model_copy(update={"channels": 1, "encoding": "raw"})
    sizes = Sizes(weights_bytes=1000, state_bytes=3000, prunable_weights=80)
    found = stored_bytes(case.model_copy(update={"data": data}), images, sizes)
    assert found == {
        "shards": 120 * 64,
        "trajectories": 2 * 3 * 3000,  # steps of epochs 0, 1 and 10
        "masks": 2 * 3 * 10,
        "tickets": 2 * 6 * (1000 + 3),
    }
