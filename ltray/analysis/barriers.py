"""The barrier between two copies of a ticket, over replicates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from ltray.analysis.columns import Row
from ltray.analysis.grid import Over
from ltray.analysis.intervals import Interval, mean_interval
from ltray.analysis.results import Rows
from ltray.lottery.pairs import Pair
from ltray.lottery.tickets import key

STABLE = 0.02  # error barrier at which Frankle et al. 2020 (arXiv 1912.05671) call training stable


@dataclass(frozen=True)
class Barrier:
    """One sparsity at one reset point, over replicates.

    Attributes:
        rows: one for each replicate that has a line.
        top1: validation accuracy of all copies that are done.
        diverged: whether a copy did, so that the mean barrier of the others would flatter.
        missing: replicates without a line, and why.
    """

    sparsity: float
    reset_epoch: float
    rows: tuple[Row, ...]
    top1: tuple[float, ...]
    diverged: bool
    missing: tuple[str, ...]

    @property
    def over(self) -> Over:
        """What the interval is over."""
        return "replicates" if len(self.rows) > 1 else "images"

    def height(self, split: str) -> float:
        """The mean barrier on `val` or `test`, a fraction."""
        return fmean(row[f"{split}_barrier"] for row in self.rows)

    def interval(self, split: str) -> Interval | None:
        """Of the height: Student's t over replicates, cut at 0; of one, percentiles over images."""
        if len(self.rows) == 1:
            (row,) = self.rows
            return Interval(row[f"{split}_barrier_low"], row[f"{split}_barrier_high"])
        found = mean_interval([row[f"{split}_barrier"] for row in self.rows])
        return None if found is None else Interval(max(found.low, 0.0), found.high)

    def of_ends(self, split: str) -> float:
        """What the ends' own difference puts into the height: half of it, as a mean."""
        errors = [row[f"{split}_errors"] for row in self.rows]
        return fmean(abs(along[0] - along[-1]) / 2 for along in errors)

    @property
    def errors(self) -> list[float]:
        """The mean error on validation at each point of the line."""
        along = zip(*(row["val_errors"] for row in self.rows), strict=True)
        return [fmean(errors) for errors in along]

    @property
    def stable(self) -> bool:
        """Whether the mean barrier of all copies is as low as what the paper calls stable."""
        return bool(self.rows) and not self.diverged and self.height("val") <= STABLE


def barriers(pairs: Iterable[Pair], found: Mapping[str, Row | None], rows: Rows) -> list[Barrier]:
    """One for each sparsity and reset point, in their order.

    Args:
        found: name of a pair -> its row; None where it has none.
    """
    places: dict[tuple[float, float], list[Pair]] = {}
    for pair in pairs:
        places.setdefault((pair.one.sparsity, pair.one.reset_epoch), []).append(pair)
    return [
        Barrier(
            *place,
            rows=tuple(row for pair in there if (row := found[pair.name]) is not None),
            top1=tuple(top1 for pair in there for top1 in _top1(pair, rows)),
            diverged=any(
                row["status"] == "diverged" for pair in there for row in _ends(pair, rows)
            ),
            missing=tuple(_why(pair, rows) for pair in there if found[pair.name] is None),
        )
        for place, there in sorted(places.items())
    ]


def first_stable(line: Sequence[Barrier]) -> Barrier | None:
    """The earliest reset point from which on every one is stable; None where the last is not.

    One that was not measured is not known to be stable.
    """
    first = None
    for one in reversed(line):
        if not one.stable:
            break
        first = one
    return first


def _top1(pair: Pair, rows: Rows) -> list[float]:
    return [row["val_top1"] for row in _ends(pair, rows) if row["status"] == "done"]


def _why(pair: Pair, rows: Rows) -> str:
    """What became of a pair without a line."""
    for row in _ends(pair, rows):
        if row["status"] != "done":
            return f"replicate {pair.one.replicate}: a copy {row['status']}"
    return f"replicate {pair.one.replicate}: not measured"


def _ends(pair: Pair, rows: Rows) -> list[Row]:
    """The rows of the copies that have ended."""
    ended = (rows.tickets.get(key(ticket)) for ticket in (pair.one, pair.other))
    return [row for row in ended if row is not None]
