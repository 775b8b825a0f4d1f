"""What the report of a large run takes: seconds by stage, megabytes of the page.

    python benchmarks/report.py [--epochs 90] [--replicates 5] [--rounds 3] [--json F]

The run is made up, in a folder of its own: 20 sparsities x 5 reset points in each replicate, every
ticket with its epoch rows and with which of 50,000 images it has right, and a mask of 53 layers for
each sparsity. Goal: the whole command in 10 s, the page in 5 MB.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from measuring import conditions, print_table, write_json

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from large_run import write_large_run

from ltray.analysis.page import render
from ltray.analysis.results import collect, write_tables
from ltray.experiment_file import read_experiment
from ltray.layout import RunFolder

T = TypeVar("T")


def main() -> None:
    """Make the run up, measure, print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--epochs", type=int, default=90)
    arguments.add_argument("--replicates", type=int, default=5)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as root:
        run = write_large_run(Path(root), options.epochs, options.replicates)
        rounds = [_stages(run) for _ in range(options.rounds)]
        rows = [
            {"what": name, "figure": f"{statistics.median(one[name] for one in rounds):.2f} s"}
            for name in rounds[0]
        ]
        rows.append({"what": "page", "figure": f"{run.report.stat().st_size / 1e6:.2f} MB"})
    print_table(rows)
    where = conditions("ltray", "matplotlib", "pyarrow", "jinja2")
    print(f"median of {options.rounds}", where)
    write_json(options.json, {"report": rows, "rounds": options.rounds, "where": where})


def _stages(run: RunFolder) -> dict[str, float]:
    """Seconds of each stage in this process, and of the whole command in one of its own."""
    experiment = read_experiment(run.experiment)
    seconds, rows = _timed(lambda: collect(run))
    margin = experiment.report.margin
    found = {
        "read the rows": seconds,
        "write the tables": _timed(lambda: write_tables(run, rows, margin))[0],
        "make the page": _timed(lambda: render(run, experiment, rows))[0],
    }
    command = [sys.executable, "-m", "ltray.report", str(run.path)]
    found["python -m ltray.report"] = _timed(lambda: subprocess.run(command, check=True))[0]
    return found


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


if __name__ == "__main__":
    main()
