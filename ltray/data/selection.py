"""Which rows of the shards are train, validation and test for an experiment."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ltray.data.held_out import held_out
from ltray.data.manifest import Manifest
from ltray.errors import LtrayError
from ltray.experiment import Data, decimal, exact_count
from ltray.layout import DataFolder
from ltray.tables import read_table

Rows = NDArray[np.int64]


class Labelled(NamedTuple):
    """Some rows of one split of the shards, in the shards' fixed order.

    Attributes:
        split: train, val or test, as the shards have it.
        parts: [N] int64, the number of each row's part.
        rows: [N] int64, its row in that part.
        labels: [N] int64, from 0, renumbered by data.classes.
    """

    split: str
    parts: Rows
    rows: Rows
    labels: Rows

    def where(self, chosen: NDArray[np.bool_]) -> "Labelled":
        """The rows for which `chosen` [N] is true."""
        return Labelled(self.split, self.parts[chosen], self.rows[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Selection:
    """The images of an experiment."""

    train: Labelled
    validation: Labelled
    test: Labelled
    classes: int


def select(folder: DataFolder, manifest: Manifest, data: Data) -> Selection:
    """Cut validation out of train, keep the wanted classes, limit train.

    Validation is the same for all seeds and replicates, and is cut before train_limit, so that it
    does not depend on it. Test is the source's labelled test split, else its labelled val.

    Raises:
        LtrayError: data.classes names a label that the source does not have.
    """
    classes = chosen_classes(data, len(manifest.class_names))
    keys, train = _read(folder, manifest, "train", classes)
    is_validation = held_out(keys, train.labels, data.validation_fraction, "validation")
    left = _limited(train.where(~is_validation), data.train_limit)
    _, test = _read(folder, manifest, _test_split(manifest), classes)
    return Selection(left, train.where(is_validation), test, len(classes))


def image_counts(manifest: Manifest, data: Data) -> tuple[int, int, int]:
    """How many train, validation and test images `select` gives, from the manifest alone."""
    classes = chosen_classes(data, len(manifest.class_names))

    def count(split: str) -> int:
        return sum(manifest.class_counts[split].get(label, 0) for label in classes)

    total, test = count("train"), count(_test_split(manifest))
    validation = exact_count(decimal(data.validation_fraction), total)
    return min(total - validation, data.train_limit or total), validation, test


def chosen_classes(data: Data, count: int) -> list[int]:
    """The source's labels that an experiment takes, in its order.

    Raises:
        LtrayError: it names one that the source, which has so many, does not have.
    """
    if data.classes == "all":
        return list(range(count))
    unknown = [label for label in data.classes if label >= count]
    if unknown:
        found = f"{', '.join(map(str, unknown))}; the source has {count} classes"
        raise LtrayError("data.classes", found, f"write labels from 0 to {count - 1}")
    return list(data.classes)


def _test_split(manifest: Manifest) -> str:
    for split in ("test", "val"):
        if any(label >= 0 for label in manifest.class_counts.get(split, {})):
            return split
    raise LtrayError(
        "data.source",
        "no labelled test or val images",
        "add some to the source; the quarantine names those that could not be read",
    )


def _read(
    folder: DataFolder, manifest: Manifest, split: str, classes: list[int]
) -> tuple[list[str], Labelled]:
    """Keys and renumbered labels of a split's rows that are of the wanted classes."""
    count = len(manifest.parts[split])
    paths = [folder.part(split, number) for number in range(count)]
    tables = [read_table(path, ["key", "label"]) for path in paths]
    stored = np.concatenate([table["label"].to_numpy() for table in tables]).astype(np.int64)
    renumbered = np.full(len(manifest.class_names) + 1, -1)  # the last is label -1's
    renumbered[classes] = np.arange(len(classes))
    every = Labelled(
        split,
        parts=np.repeat(np.arange(count), [table.num_rows for table in tables]),
        rows=np.concatenate([np.arange(table.num_rows) for table in tables]),
        labels=renumbered[stored],
    )
    wanted = every.labels >= 0
    keys = [key for table in tables for key in table["key"].to_pylist()]
    return [keys[row] for row in np.flatnonzero(wanted).tolist()], every.where(wanted)


def _limited(train: Labelled, limit: int | None) -> Labelled:
    """The first row of each class, the second of each, and so on, until `limit` are taken."""
    if limit is None or limit >= len(train.labels):
        return train
    seen: dict[int, int] = defaultdict(int)
    turn = np.empty(len(train.labels), dtype=np.int64)
    for position, label in enumerate(train.labels.tolist()):
        turn[position] = seen[label]
        seen[label] += 1
    chosen = np.zeros(len(train.labels), dtype=bool)
    chosen[np.argsort(turn, kind="stable")[:limit]] = True
    return train.where(chosen)
