"""One training minus another: over replicates, over retrainings of one seed, over images."""

import numpy as np
import pytest

from ltray.analysis.correct import Right
from ltray.analysis.differences import Trained, beyond_chance, difference_of
from ltray.analysis.grid import Over
from ltray.analysis.intervals import mean_interval, mean_test
from ltray.analysis.paired import Pairs, mcnemar, paired_interval


def trainings(top1: dict[tuple[int, int], float]) -> list[Trained]:
    """(replicate, retraining) -> its accuracy on validation; on test it is half as much."""
    return [
        Trained(
            {
                "replicate": replicate,
                "retraining": retraining,
                "val_top1": share,
                "test_top1": share / 2,
            },
            None,
        )
        for (replicate, retraining), share in top1.items()
    ]


def test_pairs_are_of_one_replicate_and_retraining() -> None:
    ours = trainings({(0, 0): 0.9, (0, 1): 0.8, (1, 0): 0.7})
    others = trainings({(0, 0): 0.5, (0, 1): 0.6, (2, 0): 0.1})
    found = difference_of(ours, others, "retrainings")
    assert found is not None
    assert found.value == pytest.approx(0.3)
    assert found.test == pytest.approx(0.15)
    assert found.pairs == 2
    assert difference_of(ours, trainings({(3, 0): 0.5}), "replicates") is None


def test_what_is_trained_once_stands_beside_all_retrainings() -> None:
    ours = trainings({(0, 0): 0.9, (0, 1): 0.8, (1, 0): 0.7, (1, 1): 0.9})
    once = trainings({(0, 0): 0.5, (1, 0): 0.5})
    found = difference_of(ours, once, "replicates", once=True)
    assert found is not None
    means = [0.35, 0.3]
    assert found.pairs == 2
    interval, expected = found.interval, mean_interval(means)
    assert interval is not None
    assert expected is not None
    assert interval.low == pytest.approx(expected.low)
    assert found.p_value == pytest.approx(mean_test(means))


@pytest.mark.parametrize(("over", "told"), [("replicates", False), ("retrainings", True)])
def test_retrainings_of_the_one_replicate_that_is_done_do_not_pass_for_seeds(
    over: Over, told: bool
) -> None:
    ours, others = trainings({(0, 0): 0.9, (0, 1): 0.8}), trainings({(0, 0): 0.5, (0, 1): 0.6})
    found = difference_of(ours, others, over)
    assert found is not None
    assert found.pairs == (2 if told else 1)
    assert (found.interval is not None) == told
    assert beyond_chance([found], over).untested == (not told)
    assert beyond_chance([found], over).over == over


def test_retrainings_of_one_seed_share_the_chance_of_what_is_trained_once() -> None:
    ours = trainings({(0, 0): 0.90, (0, 1): 0.91, (0, 2): 0.92})
    found = difference_of(ours, trainings({(0, 0): 0.5}), "retrainings", once=True)
    assert found is not None
    assert found.pairs == 3
    assert found.value == pytest.approx(0.41)
    assert (found.interval, found.test_interval, found.p_value) == (None, None, None)


def test_equal_differences_are_no_interval() -> None:
    ours = trainings({(0, 0): 0.9, (1, 0): 0.9})
    found = difference_of(ours, trainings({(0, 0): 0.5, (1, 0): 0.5}), "replicates")
    assert found is not None
    assert (found.interval, found.side) == (None, 0)


def right(bits: str) -> dict[str, Right]:
    one = Right(len(bits), np.packbits(np.array([bit == "1" for bit in bits])))
    return {"validation": one, "test": one}


def test_one_training_of_each_is_told_by_the_images_that_they_differ_on() -> None:
    row = {"replicate": 0, "retraining": 0, "val_top1": 0.0, "test_top1": 0.0}
    ours, other = Trained(row, right("1" * 12 + "0000")), Trained(row, right("0" * 10 + "110011"))
    found = difference_of([ours], [other], "images")
    assert found is not None
    pairs = Pairs(images=16, gained=10, lost=2)
    assert (found.interval, found.p_value) == (paired_interval(pairs), mcnemar(pairs))
    assert found.side == 1
    unread = difference_of([ours], [Trained(row, None)], "images")
    assert unread is not None
    assert (unread.interval, unread.p_value) == (None, None)
