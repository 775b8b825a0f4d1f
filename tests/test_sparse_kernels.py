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
    gates = drawn(source, tickets, ROWS, images).round() if gated else NO_GATES
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
    multiply_at_entries(ends, places, made, np.ones((1, COLUMNS, 4)), values)
    assert np.isfinite(values[0]).all()
    assert np.isnan(values[1, :COLUMNS]).all()
    assert np.isfinite(values[1, COLUMNS:]).all()


@pytest.mark.parametrize("images", [60, 128])
def test_a_ticket_has_the_bits_that_it_has_alone(images: int) -> None:
    """At sizes that go through the wide loops, as in training."""
    source = np.random.default_rng(images)
    ends, places = rows_of(source.random((30, 200)) < 0.2)
    features = drawn(source, 1, 200, images).astype(np.float32)
    values, starts, gradients = (
        drawn(source, 5, *shape).astype(np.float32)
        for shape in ((len(places),), (30,), (30, images))
    )
    no_gates = np.zeros((0, 30, 0), np.float32)

    def found(tickets: slice) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        made, at_entries = np.zeros_like(gradients[tickets]), np.zeros_like(values[tickets])
        multiply(ends, places, values[tickets], starts[tickets], features, True, no_gates, made)
        multiply_at_entries(ends, places, gradients[tickets], features, at_entries)
        return made, at_entries

    together = found(slice(0, 5))
    for ticket in range(5):
        for alone, one_of_all in zip(found(slice(ticket, ticket + 1)), together, strict=True):
            np.testing.assert_array_equal(alone[0], one_of_all[ticket])
