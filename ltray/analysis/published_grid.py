"""A run's grid over one that was published: the same cells, side by side.

Accuracies are in percent here, as they were published, and differences in percentage points.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ltray.analysis.grid import Cell, Place, cells
from ltray.analysis.intervals import Interval, mean_interval
from ltray.analysis.results import Rows
from ltray.errors import LtrayError
from ltray.experiment import Experiment, decimal

ARCH = "resnet50"
SOURCES = ("ilsvrc2012", "torchvision:ImageNet")

DIVERGED = "diverged"
FAILED = "failed"
NOT_YET = "not trained yet"
NOT_ASKED_FOR = "not asked for"


@dataclass(frozen=True)
class Published:
    """What published.yaml holds.

    Attributes:
        entered: the day on which the figures were entered here.
        densities: shares of the weights kept, in the order of the figures.
        fresh_init: top-1 of each density's mask on new initial weights, in percent.
        by_reset: reset point in epochs -> top-1 of each density, in percent.
        conditions: key of an experiment -> value that the figures were made with.
        not_given: keys of an experiment that they do not come with.
    """

    source: str
    entered: str
    densities: tuple[float, ...]
    fresh_init: tuple[float, ...]
    by_reset: dict[float, tuple[float, ...]]
    conditions: dict[str, Any]
    not_given: tuple[str, ...]

    @property
    def sparsities(self) -> tuple[float, ...]:
        """1 - density, as an experiment writes them."""
        return tuple(float(1 - decimal(density)) for density in self.densities)

    @property
    def top1(self) -> dict[Place, float]:
        """(sparsity, reset point) -> top-1 in percent."""
        return {
            (sparsity, reset_epoch): value
            for reset_epoch, values in self.by_reset.items()
            for sparsity, value in zip(self.sparsities, values, strict=True)
        }


@dataclass(frozen=True)
class Compared:
    """One cell that both have.

    Attributes:
        published, ours: top-1 in percent; ours is the mean of test_top1 over replicates.
        replicates: of which a ticket is done; their retrainings are averaged.
        interval: of our mean, in percent; None for one replicate.
    """

    sparsity: float
    reset_epoch: float
    published: float
    ours: float
    replicates: int
    interval: Interval | None

    @property
    def difference(self) -> float:
        """Ours minus theirs, in percentage points."""
        return self.ours - self.published


@dataclass(frozen=True)
class Lacking:
    """A published cell that the run has no accuracy of, and why: one of the constants above."""

    sparsity: float
    reset_epoch: float
    why: str


@dataclass(frozen=True)
class Difference:
    """A condition that was another one; values as JSON."""

    key: str
    published: Any
    ours: Any


@dataclass(frozen=True)
class Comparison:
    """A run over the published grid.

    Attributes:
        others: how many cells of ours have an accuracy and were not published.
        differences: conditions that were not the same.
        not_given: key -> our value, of what was not said with the published figures.
    """

    compared: tuple[Compared, ...]
    lacking: tuple[Lacking, ...]
    others: int
    differences: tuple[Difference, ...]
    not_given: dict[str, Any]


def read_published() -> Published:
    """The grid of published.yaml."""
    document = yaml.safe_load(Path(__file__).with_name("published.yaml").read_bytes())
    return Published(
        source=document["source"],
        entered=document["entered"].isoformat(),
        densities=tuple(document["densities"]),
        fresh_init=tuple(document["fresh_init"]),
        by_reset={
            float(reset_epoch): tuple(values)
            for reset_epoch, values in document["reset_epochs"].items()
        },
        conditions=document["conditions"],
        not_given=tuple(document["not_given"]),
    )


def check_comparable(experiment: Experiment, where: str) -> None:
    """Refuse an experiment whose accuracies have nothing to do with the published ones.

    Args:
        where: what to call it in an error.

    Raises:
        LtrayError: it has another network, other images, or not all classes.
    """
    data = experiment.data
    wrong = []
    if experiment.model.arch != ARCH:
        wrong.append(f"model.arch is {experiment.model.arch}, theirs {ARCH}")
    if data.source not in SOURCES:
        wrong.append(f"data.source is {data.source}, theirs ImageNet ({' or '.join(SOURCES)})")
    if data.classes != "all":
        wrong.append(f"data.classes names {len(data.classes)} classes, theirs are all 1,000")
    if wrong:
        found = f"a comparison with the published grid would mean nothing: {'; '.join(wrong)}"
        mend = "give a run of ResNet-50 on ImageNet, as experiments/imagenet_resnet50.yaml is"
        raise LtrayError(where, found, mend)


def compare(rows: Rows, experiment: Experiment, published: Published) -> Comparison:
    """Lay a run over the published grid, whatever grid its tickets were asked for by.

    Args:
        rows: of the run; a half-finished one will do.
        experiment: resolved; how it prunes and resets tells which tickets are meant.
    """
    theirs = published.top1
    ours = cells(rows, experiment)
    asked = {cell.place for cell in ours}
    found = cells(rows, _with_grid(experiment, published))
    return Comparison(
        compared=tuple(_compared(cell, theirs[cell.place]) for cell in found if cell.comparable),
        lacking=tuple(
            Lacking(*cell.place, _why(cell, cell.place in asked))
            for cell in found
            if not cell.comparable
        ),
        others=sum(cell.comparable and cell.place not in theirs for cell in ours),
        differences=_differences(experiment, published),
        not_given={key: _value(experiment, key) for key in published.not_given},
    )


def _with_grid(experiment: Experiment, published: Published) -> Experiment:
    """The same experiment, asked for the published cells."""
    prune = experiment.prune.model_copy(update={"sparsities": published.sparsities})
    reset = experiment.reset.model_copy(update={"epochs": tuple(published.by_reset)})
    return experiment.model_copy(update={"prune": prune, "reset": reset})


def _compared(cell: Cell, published: float) -> Compared:
    values = cell.values(lambda row: 100 * row["test_top1"])
    return Compared(
        sparsity=cell.sparsity,
        reset_epoch=cell.reset_epoch,
        published=published,
        ours=100 * cell.mean("test_top1"),
        replicates=cell.seeds,
        interval=mean_interval(values) if cell.seeds > 1 else None,
    )


def _why(cell: Cell, asked: bool) -> str:
    if cell.diverged:
        return DIVERGED
    if cell.failed:
        return FAILED
    return NOT_YET if asked else NOT_ASKED_FOR


def _differences(experiment: Experiment, published: Published) -> tuple[Difference, ...]:
    return tuple(
        Difference(key, theirs, ours)
        for key, theirs in published.conditions.items()
        if (ours := _value(experiment, key)) != theirs
    )


def _value(experiment: Experiment, key: str) -> Any:
    """The value of a dotted key, as JSON has it."""
    section, _, name = key.partition(".")
    return experiment.model_dump(mode="json")[section][name]
