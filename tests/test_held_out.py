from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltray.data.held_out import held_out
from ltray.experiment import exact_count

classes_and_share = st.tuples(
    st.lists(st.integers(0, 5), min_size=1, max_size=60),
    st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.9]),
)


@given(classes_and_share)
def test_held_out_is_the_exact_count(given_: tuple[list[int], float]) -> None:
    labels, share = given_
    chosen = held_out([f"{n}.png" for n in range(len(labels))], np.array(labels), share, "test")
    assert chosen.sum() == exact_count(Decimal(str(share)), len(labels))


@given(classes_and_share)
def test_held_out_is_stratified_and_leaves_each_class_a_row(
    given_: tuple[list[int], float],
) -> None:
    labels, share = given_
    chosen = held_out([f"{n}.png" for n in range(len(labels))], np.array(labels), share, "test")
    sizes = Counter(labels)
    taken = Counter(np.array(labels)[chosen].tolist())
    could_leave_one = chosen.sum() <= len(labels) - len(sizes)
    for label, size in sizes.items():
        if could_leave_one:
            assert taken[label] < size
            if size > 2 * len(sizes):  # small classes pass what they cannot give on to large ones
                assert taken[label] >= int(size * share)


@given(classes_and_share, st.randoms(use_true_random=False))
def test_held_out_does_not_depend_on_the_order(
    given_: tuple[list[int], float], random: Any
) -> None:
    labels, share = given_
    rows = [(f"{n}.png", label) for n, label in enumerate(labels)]
    shuffled = random.sample(rows, len(rows))

    def chosen(of: list[tuple[str, int]]) -> set[str]:
        keys = [key for key, _ in of]
        is_chosen = held_out(keys, np.array([label for _, label in of]), share, "validation")
        return {keys[row] for row in np.flatnonzero(is_chosen)}

    assert chosen(rows) == chosen(shuffled)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        # A tenth of 40 rows is 4: one of each class, and one more of the largest remainder.
        ([19, 11, 10], [2, 1, 1]),
        ([11, 19, 10], [1, 2, 1]),
        ([10, 11, 19], [1, 1, 2]),
        # A fifth of 6 is 1.2, and only the last class can give a row and keep one.
        ([1, 1, 1, 1, 2], [0, 0, 0, 0, 1]),
        # 0.25 of 10 is 2.5, which goes to the even 2.
        ([10], [2]),
    ],
)
def test_held_out_by_hand(sizes: list[int], expected: list[int]) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    share = {40: 0.1, 6: 0.2, 10: 0.25}[len(labels)]
    chosen = held_out([str(row) for row in range(len(labels))], labels, share, "test")
    assert np.bincount(labels[chosen], minlength=len(sizes)).tolist() == expected


def test_purposes_choose_independently() -> None:
    keys, labels = [str(n) for n in range(1000)], np.zeros(1000, np.int32)
    test, validation = (held_out(keys, labels, 0.5, what) for what in ("test", "validation"))
    assert 200 < (test & validation).sum() < 300  # 250 +- 6 standard deviations
