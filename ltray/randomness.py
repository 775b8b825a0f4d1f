"""Random numbers that are a function of what they are for, never of a process's history.

Everything random in a run comes from (seed, purpose, epoch, position) through these hashes, so
it is the same on whichever worker, in whatever order and after any number of restarts.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


def seed_for(*parts: int | str) -> int:
    """A seed in [0, 2**63) for (seed, purpose, ...); independent parts give independent seeds."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def hashes(seed: int, positions: NDArray[np.integer]) -> U64:
    """One 64-bit hash per position, uniform over all values.

    Source: the finaliser of SplitMix64 (Steele, Lea & Flood 2014) over a Weyl sequence.
    """
    with np.errstate(over="ignore"):
        mixed = (positions.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        mixed += np.uint64(seed)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def uniforms(seed: int, positions: NDArray[np.integer]) -> NDArray[np.float64]:
    """One number in [0, 1) per position, with 53 random bits."""
    return np.asarray((hashes(seed, positions) >> np.uint64(11)) * 2.0**-53)


def permutation(seed: int, count: int) -> NDArray[np.int64]:
    """The numbers 0 to count - 1 in an order that depends on seed and count alone."""
    return np.argsort(hashes(seed, np.arange(count)), kind="stable")
