"""Sparse matrices times dense ones, compiled by Numba for the CPU that they run on.

T tickets of one mask, B images. A matrix lies in compressed sparse rows: row r has the entries from
`ends[r]` to before `ends[r + 1]`; entry e stands in column `places[e]` and has a value for each
ticket, `values[t, e]`. Features come first, so that an entry meets B contiguous numbers.

Four entries are taken at a time, for all tickets that see the same features, before the next four:
they are read from the second cache once, and a sum is loaded and stored a fourth as often. What is
computed for a ticket, and in which order, does not depend on the other tickets.
"""

import numpy as np
from numpy.typing import NDArray

from ltray.training.backends.compiling import call_first, compiled, compiled_part

Floats = NDArray[np.floating]
Indices = NDArray[np.int32]


def compile_for(dtype: np.dtype[np.floating]) -> None:
    """Have both products ready, so that the first step takes no longer than the others."""
    ends, places = np.zeros(2, np.int32), np.zeros(0, np.int32)
    values, features = np.zeros((1, 1), dtype), np.zeros((1, 1, 1), dtype)
    call_first(multiply, ends, places, values, values, features, False, features[:0], features)
    call_first(multiply_at_entries, ends, places, features, features, values)


@compiled
def multiply(  # noqa: PLR0913, PLR0917 (a matrix, what it meets, and where the result goes)
    ends: Indices,
    places: Indices,
    values: Floats,
    starts: Floats,
    features: Floats,
    relu: bool,
    gates: Floats,
    made: Floats,
) -> None:
    """made[t, r] = starts[t, r] + the sum over r's entries of value times row of the features.

    Args:
        values: [T, any].
        starts: [T, rows].
        features: [1, columns, B] for all tickets, or [T, columns, B].
        relu: whether what is below 0 becomes 0.
        gates: [T, rows, B]: where they are at most 0 the result is 0; or [0, rows, B].
        made: [T, rows, B].
    """
    together = len(values) if len(features) == 1 else 1
    for first in range(0, len(values), together):
        tickets = range(first, first + together)
        for row in range(len(ends) - 1):
            for ticket in tickets:
                made[ticket, row, :] = starts[ticket, row]
            entries = range(ends[row], ends[row + 1])
            _add_entries(entries, places, values, features[first], tickets, row, made)
            if relu:
                _rectify(made, tickets, row)
            if len(gates):
                _close(gates, tickets, row, made)


@compiled_part
def _add_entries(  # noqa: PLR0913, PLR0917 (as above)
    entries: range,
    places: Indices,
    values: Floats,
    seen: Floats,
    tickets: range,
    row: int,
    made: Floats,
) -> None:
    by_fours = entries.start + len(entries) // 4 * 4
    for entry in range(entries.start, by_fours, 4):
        one, two = seen[places[entry]], seen[places[entry + 1]]
        three, four = seen[places[entry + 2]], seen[places[entry + 3]]
        for ticket in tickets:
            total = made[ticket, row]
            by_one, by_two = values[ticket, entry], values[ticket, entry + 1]
            by_three, by_four = values[ticket, entry + 2], values[ticket, entry + 3]
            for image in range(len(total)):
                total[image] += (
                    by_one * one[image]
                    + by_two * two[image]
                    + by_three * three[image]
                    + by_four * four[image]
                )
    for entry in range(by_fours, entries.stop):
        one = seen[places[entry]]
        for ticket in tickets:
            total, by_one = made[ticket, row], values[ticket, entry]
            for image in range(len(total)):
                total[image] += by_one * one[image]


@compiled_part
def _rectify(made: Floats, tickets: range, row: int) -> None:
    # Not `_close` with the result as its own gate: where arrays overlap the compiler takes single
    # numbers in turn, which is ten times as slow.
    zero = made.dtype.type(0)
    for ticket in tickets:
        total = made[ticket, row]
        for image in range(len(total)):
            total[image] = zero if total[image] <= 0 else total[image]


@compiled_part
def _close(gates: Floats, tickets: range, row: int, made: Floats) -> None:
    zero = made.dtype.type(0)
    for ticket in tickets:
        gate, total = gates[ticket, row], made[ticket, row]
        for image in range(len(total)):
            total[image] = zero if gate[image] <= 0 else total[image]


@compiled
def multiply_at_entries(
    ends: Indices, places: Indices, gradients: Floats, features: Floats, made: Floats
) -> None:
    """made[t, e] = row of the gradients times row of the features, at the entries alone.

    Args:
        gradients: [T, rows, B].
        features: as for `multiply`.
        made: [T, any].
    """
    together = len(made) if len(features) == 1 else 1
    for first in range(0, len(made), together):
        tickets = range(first, first + together)
        for row in range(len(ends) - 1):
            entries = range(ends[row], ends[row + 1])
            _multiply_entries(entries, places, gradients, features[first], tickets, row, made)


@compiled_part
def _multiply_entries(  # noqa: PLR0913, PLR0917 (as above)
    entries: range,
    places: Indices,
    gradients: Floats,
    seen: Floats,
    tickets: range,
    row: int,
    made: Floats,
) -> None:
    zero = made.dtype.type(0)
    by_fours = entries.start + len(entries) // 4 * 4
    for entry in range(entries.start, by_fours, 4):
        one, two = seen[places[entry]], seen[places[entry + 1]]
        three, four = seen[places[entry + 2]], seen[places[entry + 3]]
        for ticket in tickets:
            gradient = gradients[ticket, row]
            by_one = by_two = by_three = by_four = zero
            for image in range(len(gradient)):
                by_one += gradient[image] * one[image]
                by_two += gradient[image] * two[image]
                by_three += gradient[image] * three[image]
                by_four += gradient[image] * four[image]
            made[ticket, entry], made[ticket, entry + 1] = by_one, by_two
            made[ticket, entry + 2], made[ticket, entry + 3] = by_three, by_four
    for entry in range(by_fours, entries.stop):
        one = seen[places[entry]]
        for ticket in tickets:
            gradient, total = gradients[ticket, row], zero
            for image in range(len(gradient)):
                total += gradient[image] * one[image]
            made[ticket, entry] = total
