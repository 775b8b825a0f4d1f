"""The index of a source: all that its sections hold, with a key of its own for each input."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ltray.data.archives.source import SPLITS, Examples, Found, Refused, Section, Source
from ltray.data.held_out import held_out
from ltray.errors import LtrayError

TEST_SHARE = 0.2

Spread = Callable[[Callable[[Section], Found], Sequence[Section]], Iterable[Found]]
"""Like `map`: what a function gives for each section, in their order."""


@dataclass(frozen=True, eq=False)
class Index:
    """All that a source holds: split -> examples, and the inputs that no split took."""

    splits: dict[str, Examples]
    refused: list[Refused]


def index_of(source: Source, spread: Spread = map) -> Index:
    """Look a source through; no image is decoded.

    A key that comes again gets `#2`, `#3`, ... in the source's own order. A source with neither
    val nor test gets a fixed fifth of train as test.

    Args:
        spread: where the sections are looked through, in this process by default.

    Raises:
        LtrayError: an archive is damaged, or there is no image to train on.
    """
    found = list(spread(source.look_through, source.sections()))
    unique = _UniqueKeys()
    splits: dict[str, list[Examples]] = {}
    refused: list[Refused] = []
    for one in found:
        for split, examples in one.splits.items():
            keys = [unique(key) for key in examples.keys]
            splits.setdefault(split, []).append(Examples(keys, examples.labels, examples.places))
        refused += [Refused(unique(key), reason) for key, reason in one.refused]
    if "train" not in splits:
        raise LtrayError("data.path", _nothing(refused), "point data.path at a whole data set")
    whole = {split: _joined(splits[split]) for split in SPLITS if split in splits}
    return Index(_with_test(whole["train"]) if list(whole) == ["train"] else whole, refused)


class _UniqueKeys:
    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, name: str) -> str:
        key, number = name, 1
        while key in self._seen:
            number += 1
            key = f"{name}#{number}"
        self._seen.add(key)
        return key


def _joined(pieces: Sequence[Examples]) -> Examples:
    return Examples(
        keys=[key for piece in pieces for key in piece.keys],
        labels=np.concatenate([piece.labels for piece in pieces]),
        places=np.concatenate([piece.places for piece in pieces]),
    )


def _with_test(train: Examples) -> dict[str, Examples]:
    is_test = held_out(train.keys, train.labels, TEST_SHARE, "test")
    return {
        "train": train.take(np.flatnonzero(~is_test)),
        "test": train.take(np.flatnonzero(is_test)),
    }


def _nothing(refused: Sequence[Refused]) -> str:
    reasons = sorted({one.reason for one in refused})
    why = f"; {len(refused)} inputs were refused: {', '.join(reasons[:3])}"
    return "holds no labelled image to train on" + (why if reasons else "")
