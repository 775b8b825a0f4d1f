"""Two sweeps side by side, on one page that needs nothing but itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ltray.analysis import accounts, figures
from ltray.analysis.columns import Row
from ltray.analysis.correct import COLUMNS, PerImage, Right, paired, read_per_image
from ltray.analysis.drawing import DASH_GLYPHS, GLYPHS
from ltray.analysis.figures import ComparedLine
from ltray.analysis.grid import Cell, Over, Place, asked_for, cells, counts_of, single_seeds
from ltray.analysis.heat_map import legend, tone
from ltray.analysis.intervals import Interval, two_means
from ltray.analysis.paired import mcnemar, paired_interval
from ltray.analysis.results import Rows, collect
from ltray.analysis.statistics import (
    Answer,
    BeyondChance,
    answers,
    best_of,
    corrected,
    dense_interval,
    over_of,
)
from ltray.analysis.templates import rendered
from ltray.analysis.wording import duration, epoch
from ltray.errors import LtrayError
from ltray.files import is_there, read_json, write_whole
from ltray.layout import comparison_page
from ltray.run import Run

_TEMPLATE = "compare.html.jinja"


@dataclass(frozen=True)
class Side:
    """One of the two runs, and what was found in it.

    Attributes:
        controls: kind -> its cells, at the places of `cells`.
    """

    letter: str
    run: Run
    rows: Rows
    cells: list[Cell]
    controls: Mapping[str, list[Cell]]
    dense: list[Row]
    per_image: PerImage
    answers: list[Answer]

    @property
    def margin(self) -> float:
        return self.run.experiment.report.margin

    @property
    def counts(self) -> dict[str, int]:
        return counts_of(self.rows, self.run.experiment)

    @property
    def best(self) -> Answer | None:
        return best_of(self.answers)

    @property
    def numbers(self) -> list[tuple[str, list[Cell]]]:
        """(whose they are, cells): its tickets, then its controls."""
        controls = [(f"{self.letter}, {kind}", found) for kind, found in self.controls.items()]
        return [(self.letter, self.cells), *controls]

    def answer(self, reset_epoch: float) -> Answer | None:
        """What it found at a reset point; None where its grid does not have it."""
        return next((one for one in self.answers if one.reset_epoch == reset_epoch), None)

    def right(self, cell: Cell) -> Right | None:
        """The validation images that a cell's one ticket has right; None where they are unknown."""
        row = cell.done[0]
        correct = self.per_image.tickets.get((row["replicate"], row["ticket"]))
        return None if correct is None else correct["validation"]

    def dense_top1(self, split: str) -> float | None:
        """Mean over replicates."""
        return fmean(row[COLUMNS[split]] for row in self.dense) if self.dense else None

    def dense_interval(self, split: str) -> Interval | None:
        return dense_interval(self.per_image, split, self.dense) if self.dense else None

    @property
    def single(self) -> bool:
        """Whether there is but one replicate to have."""
        return self.run.experiment.replicates == 1

    @property
    def chance(self) -> Over:
        """What chance can be reckoned over when its grid is done."""
        return over_of(self.run.experiment)

    @property
    def over(self) -> str:
        """What the intervals of its answers are reckoned over, in words."""
        if self.chance == "images":
            return "over images, not over seeds"
        some = any(answer.over == "images" for answer in self.answers)
        if self.chance == "retrainings":
            one = ", but over images where one has finished" if some else ""
            return f"not reckoned over retrainings of one seed{one}"
        return "over replicates" + (", or images where one replicate has finished" if some else "")


@dataclass(frozen=True)
class Difference:
    """B's validation accuracy minus A's in a cell that both have.

    Attributes:
        look: the CSS class of its colour.
        p_value: that there is none; None, like the interval, where nothing tells.
    """

    value: float
    interval: Interval | None
    p_value: float | None
    look: str


def write_comparison(one: Run, other: Run) -> Path:
    """Write the page of two runs in the root of the first; returns its path.

    Raises:
        LtrayError: both are one run.
    """
    if one.folder == other.folder:
        raise LtrayError(
            str(one.folder.path), "is both runs to compare", "name two runs, or one for its report"
        )
    page = comparison_page(one.folder, other.folder)
    write_whole(page, rendered(_TEMPLATE, content(_side("A", one), _side("B", other))).encode())
    return page


def same_images(one: Run, other: Run) -> bool:
    """Whether both hold out the same validation images and test on the same: bit by bit."""
    ours, theirs = one.experiment.data, other.experiment.data
    return (
        one.data.path.name == other.data.path.name
        and ours.classes == theirs.classes
        and ours.validation_fraction == theirs.validation_fraction
    )


def settings_that_differ(one: Run, other: Run) -> list[tuple[str, str, str]]:
    """(key, A's value, B's value) for each key of experiment.yaml that is not the same."""
    ours, theirs = _settings(one), _settings(other)
    return [(key, ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]]


def differences(a: Side, b: Side) -> dict[Place, Difference]:
    """Of every cell that both grids have and that can be compared in both."""
    ours = {cell.place: cell for cell in a.cells if cell.comparable}
    theirs = {cell.place: cell for cell in b.cells if cell.comparable}
    paired_up = same_images(a.run, b.run)
    return {
        place: _difference((a, ours[place]), (b, theirs[place]), paired_up)
        for place in sorted(ours.keys() & theirs.keys())
    }


def content(a: Side, b: Side) -> dict[str, Any]:
    """What the template needs to know."""
    found = differences(a, b)
    points = sorted({*a.run.experiment.reset.epochs, *b.run.experiment.reset.epochs})
    common = sorted({reset_epoch for _, reset_epoch in found})
    return {
        "sides": (a, b),
        "settings": settings_that_differ(a.run, b.run),
        "same_images": same_images(a.run, b.run),
        "reset_points": points,
        "common_points": common,
        "common_sparsities": sorted({sparsity for sparsity, _ in found}),
        "differences": found,
        "beyond_chance": _beyond_chance(found, a, b),
        "legend": legend(max(a.margin, b.margin)),
        "glyphs": GLYPHS,
        "dashes": DASH_GLYPHS,
        "figures": [_figure(a, b, point) for point in common],
        "costs": _side_by_side(_costs(a), _costs(b)),
        "unreadable": [
            (f"{side.letter}: {path.relative_to(side.run.folder.path).as_posix()}", problem)
            for side in (a, b)
            for path, problem in side.per_image.unreadable.items()
        ],
    }


def _side(letter: str, run: Run) -> Side:
    rows = collect(run.folder)
    found = cells(rows, run.experiment)
    per_image = read_per_image(run.folder, rows, single_seeds(found))
    replicates = run.experiment.replicates
    return Side(
        letter=letter,
        run=run,
        rows=rows,
        cells=found,
        controls={kind: cells(rows, run.experiment, kind) for kind in run.experiment.controls},
        dense=[row for number, row in sorted(rows.dense.items()) if number < replicates],
        per_image=per_image,
        answers=answers(found, run.experiment.report.margin, per_image),
    )


def _settings(run: Run) -> dict[str, str]:
    """Dotted key -> value as text; a person's own network by what its file holds."""
    document = run.experiment.model_dump(mode="json")
    if run.network is not None:
        function = run.network.function
        document["model"]["arch"] = f"network.py:{function}, sha256 {run.network.sha256[:8]}"
    flat = {
        f"{section}.{key}" if key else section: _text(value)
        for section, values in document.items()
        for key, value in (values.items() if isinstance(values, dict) else [("", values)])
    }
    return {**flat, "prepared data": run.data.path.name}


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)


def _difference(ours: tuple[Side, Cell], theirs: tuple[Side, Cell], paired_up: bool) -> Difference:
    (a, one), (b, other) = ours, theirs
    value = other.mean("val_top1") - one.mean("val_top1")
    look = tone(value, max(a.margin, b.margin))
    if one.over == other.over == "replicates":
        found = two_means(_top1(one), _top1(other))
    elif a.chance == b.chance == "images" and paired_up:
        found = _over_images(a.right(one), b.right(other))
    else:
        found = None
    interval, p_value = found or (None, None)
    return Difference(value, interval, p_value, look)


def _top1(cell: Cell) -> list[float]:
    return cell.values(lambda row: row["val_top1"])


def _over_images(one: Right | None, other: Right | None) -> tuple[Interval, float] | None:
    """Interval and p-value of the other minus the one; None where either could not be read."""
    pairs = None if one is None or other is None else paired(other, one)
    return None if pairs is None else (paired_interval(pairs), mcnemar(pairs))


def _beyond_chance(found: Mapping[Place, Difference], a: Side, b: Side) -> BeyondChance:
    tests = [(difference.value, difference.p_value) for difference in found.values()]
    return corrected(tests, a.chance if a.chance == b.chance else "replicates")


def _figure(a: Side, b: Side, reset_epoch: float) -> tuple[float, str]:
    """(reset point, the figure of both runs there)."""
    lines = []
    for side in (a, b):
        top1 = side.dense_top1("validation")
        assert top1 is not None, "a ticket has finished, so its dense run has"
        line = [cell for cell in side.cells if cell.reset_epoch == reset_epoch and cell.comparable]
        controls = {
            kind: [cell for cell in found if cell.reset_epoch == reset_epoch]
            for kind, found in side.controls.items()
        }
        lines.append(ComparedLine(side.letter, line, controls, top1))
    return reset_epoch, figures.compared_accuracy(epoch(reset_epoch), lines)


def _costs(side: Side) -> dict[str, str]:
    """What a run took and ran on, by the name of each figure."""
    folder = side.run.folder
    launches = read_json(folder.launches)["launches"] if is_there(folder.launches) else []
    done = [row for row in asked_for(side.rows, side.run.experiment) if row["status"] == "done"]
    said = {"Training": " ".join(accounts.work(side.dense, done))}
    if launches:
        wall = accounts.wall_seconds(launches[-1])
        said["Launches"] = str(len(launches))
        said["Last launch"] = "has not ended, or was cut off" if wall is None else duration(wall)
        said["Cluster"] = accounts.machine(launches)
    trained = [*side.dense, *done]
    for label, column in accounts.TRAINED_ON.items():
        said[label] = accounts.counted(trained, column)
    return said | (launches[-1]["versions"] if launches else {})


def _side_by_side(
    ours: Mapping[str, str], theirs: Mapping[str, str]
) -> Sequence[tuple[str, str, str]]:
    names = dict.fromkeys((*ours, *theirs))
    rows = [(name, ours.get(name, ""), theirs.get(name, "")) for name in names]
    return [row for row in rows if row[1] or row[2]]
