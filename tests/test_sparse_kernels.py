"""Compiled sparse products against dense ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ltray.training.backends.sparse_kernels import multiply, multiply_at_entries

ROWS, COLUMNS = 5, 9
NO_GATES = np.zeros((0, ROWS, 0))


def rows_of(kept: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    ends = np.concatenate([[0], kept.sum(1).cumsum()])
    return ends.astype(np.int32), kept.nonzero()[1].astype(np.int32)


def drawn(source: np.random.Generator, *shape: int) -> NDArray[np.float64]:
    return source.standard_normal(shape)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    tickets=st.integers(1, 3),
    images=st.sampled_from([1, 7, 16, 33]),
    shared=st.booleans(),
    relu=st.booleans(),
    gated=st.booleans(),
)
def test_products_are_those_of_the_dense_matrix(  # noqa: PLR0917 (what varies)
    seed: int, density: float, tickets: int, images: int, shared: bool, relu: bool, gated: bool
) -> None:
    source = np.random.default_rng(seed)
    kept = source.random((ROWS, COLUMNS)) < density
    ends, places = rows_of(kept)
    values, starts = drawn(source, tickets, len(places)), drawn(source, tickets, ROWS)
    features = drawn(source, 1 if shared else tickets, COLUMNS, images)
    gates = drawn(source, tickets, ROWS, images) if gated else NO_GATES
    made = np.full((tickets, ROWS, images), np.nan)
    multiply(ends, places, values, starts, features, relu, gates, made)

    dense = np.zeros((tickets, ROWS, COLUMNS))
    dense[:, kept] = values
    expected = starts[:, :, None] + dense @ features
    if relu:
        expected = np.maximum(expected, 0)
    if gated:
        expected = np.where(gates > 0, expected, 0)
    np.testing.assert_allclose(made, expected, rtol=1e-12, atol=1e-13)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    tickets=st.integers(1, 3),
    images=st.sampled_from([1, 7, 16, 33]),
    shared=st.booleans(),
)
def test_gradients_at_entries_are_those_of_the_dense_matrix(
    seed: int, density: float, tickets: int, images: int, shared: bool
) -> None:
    source = np.random.default_rng(seed)
    kept = source.random((ROWS, COLUMNS)) < density
    ends, places = rows_of(kept)
    gradients = drawn(source, tickets, ROWS, images)
    features = drawn(source, 1 if shared else tickets, COLUMNS, images)
    made = np.full((tickets, len(places) + 2), np.nan)
    multiply_at_entries(ends, places, gradients, features, made)

    expected = (gradients @ features.transpose(0, 2, 1))[:, kept]
    np.testing.assert_allclose(made[:, :-2], expected, rtol=1e-12, atol=1e-13)
    assert np.isnan(made[:, -2:]).all()


@pytest.mark.parametrize("relu", [False, True])
def test_what_is_not_a_number_stays_so_and_stays_with_its_ticket(relu: bool) -> None:
    ends, places = rows_of(np.ones((ROWS, COLUMNS), dtype=bool))
    values = np.ones((2, len(places)))
    values[1, 0] = np.nan
    made = np.zeros((2, ROWS, 4))
    multiply(
        ends, places, values, np.zeros((2, ROWS)), np.ones((1, COLUMNS, 4)), relu, NO_GATES, made
    )
    assert np.isfinite(made[0]).all()
    assert np.isnan(made[1, 0]).all()
    assert np.isfinite(made[1, 1:]).all()
