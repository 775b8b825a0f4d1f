"""The search for matching tickets against whole grids: how near it comes, and what it saves.

    python benchmarks/search.py RUN [RUN ...] --margins 0.005 0.0025 [--json F]

Each run is a folder of a finished grid. For every replicate and reset point the search is walked on
the grid's own tickets, which are those that it would train, to the bit; its answer is set beside
the isotonic one over all levels. A replicate stands for a study of one seed.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from measuring import conditions, print_table, write_json

from ltray.analysis.results import collect
from ltray.experiment import as_written
from ltray.locate import locate
from ltray.lottery.matching import last_matching
from ltray.lottery.search import found, next_levels
from ltray.lottery.tickets import cells_of, key


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("runs", nargs="+", type=Path)
    arguments.add_argument("--margins", type=float, nargs="+", required=True)
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    curves = [curve for path in options.runs for curve in _curves(path)]
    rows = [_row(curves, margin) for margin in options.margins]
    print(f"{len(curves)} reset points of {len(options.runs)} runs, {len(curves[0])} levels each")
    print_table(rows)
    write_json(options.json, {"rows": rows, "where": conditions()})


def _curves(path: Path) -> Iterator[list[float]]:
    """Accuracy minus the dense run's by level, of each replicate and reset point."""
    run = locate(path)
    rows = collect(run.folder).tickets
    found_at: dict[tuple[int, float], dict[float, float]] = {}
    for cell in cells_of(run.experiment):
        row = rows[key(cell)]
        difference = row["val_top1"] - row["dense_val_top1"]
        found_at.setdefault((cell.replicate, cell.reset_epoch), {})[cell.sparsity] = difference
    for line in found_at.values():
        yield [line[level] for level in sorted(line)]


def _row(curves: list[list[float]], margin: float) -> dict[str, Any]:
    """One margin over all curves."""
    off, trained, matching = [], 0, 0
    for curve in curves:
        answer = last_matching(curve, [1.0] * len(curve), margin)
        known: dict[int, tuple[float, int] | None] = {}
        while asked := next_levels(len(curve), known, margin):
            known |= {level: (curve[level], 1) for level in asked}
        at = found(known, margin)
        off.append(abs(at - answer))
        trained += len(known)
        matching += answer >= 0
    levels = sum(map(len, curves))
    return {
        "margin": as_written(margin),
        "points with a match": matching,
        "exact": round(sum(one == 0 for one in off) / len(off), 3),
        "within one level": round(sum(one <= 1 for one in off) / len(off), 3),
        "farthest off": max(off),
        "share retrained": round(trained / levels, 3),
    }


if __name__ == "__main__":
    main()
