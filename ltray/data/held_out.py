"""Setting a share of the examples aside, by their keys alone.

The choice follows hashes of the keys, so it does not depend on the order of rows, on seeds or on
the machine: the same images are held out for every replicate.
"""

import hashlib
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from ltray.experiment import decimal, exact_count


def key_hashes(purpose: str, keys: Sequence[str]) -> list[bytes]:
    """One 16-byte hash per key; other purposes give independent hashes."""
    prefix = hashlib.blake2b(f"{purpose}\0".encode(), digest_size=16)
    digests = []
    for key in keys:
        hasher = prefix.copy()
        hasher.update(key.encode())
        digests.append(hasher.digest())
    return digests


def held_out(
    keys: Sequence[str], labels: NDArray[np.integer], share: float, purpose: str
) -> NDArray[np.bool_]:
    """Choose exactly round(share * n) of n examples, halves to even, stratified by class.

    Every class gives its share by largest remainder (ties between classes by hash), and its rows
    in the order of their keys' hashes. A class keeps its last row unless the count cannot be met
    otherwise.

    Args:
        keys: n unique names.
        labels: integers [n]; unknown labels form a class of their own.
        share: in [0, 1), as a person wrote it.
        purpose: other purposes choose independently.

    Returns:
        bool [n], True = held out.
    """
    classes, class_of_row, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    counts = _counts(classes.tolist(), sizes.tolist(), share, purpose)
    chosen = np.zeros(len(keys), dtype=np.bool_)
    hashes = key_hashes(purpose, keys)
    left = list(counts)
    for row in sorted(range(len(keys)), key=hashes.__getitem__):
        group = int(class_of_row[row])
        if left[group]:
            chosen[row] = True
            left[group] -= 1
    return chosen


def _counts(classes: list[int], sizes: list[int], share: float, purpose: str) -> list[int]:
    """How many rows each class gives; sums to round(share * sum of sizes)."""
    quotas = [Fraction(decimal(share)) * size for size in sizes]
    counts = [int(quota) for quota in quotas]
    missing = exact_count(decimal(share), sum(sizes)) - sum(counts)
    ties = key_hashes(purpose, [f"class {label}" for label in classes])
    by_remainder = sorted(
        range(len(sizes)), key=lambda group: (counts[group] - quotas[group], ties[group])
    )
    for kept in (1, 0):  # the last row of a class is given only when nothing else is left
        while missing and any(counts[group] + kept < sizes[group] for group in by_remainder):
            for group in by_remainder:
                if missing and counts[group] + kept < sizes[group]:
                    counts[group] += 1
                    missing -= 1
    return counts
