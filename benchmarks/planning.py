"""Plan against fact: what `plan` says a sweep will take, and what it then takes.

    python benchmarks/planning.py EXPERIMENT.yaml [--workers 1 2] [--rounds 3] [--json F]

Each round plans and then sweeps the experiment with each number of workers in turn, each time in a
root of its own. With as many workers as this machine has CPUs Ray is started by the commands, as a
person's would; with fewer a cluster of one node with so many CPUs is joined. Shown are seconds
from the command to the report, planned (with the range) and taken, and planned over taken.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from local_nodes import Nodes
from measuring import conditions, print_table, write_json

from ltray.files import read_json


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("experiment", type=Path)
    arguments.add_argument("--workers", type=int, nargs="+", default=(1, 2))
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--json", help="where to write the figures")
    options = arguments.parse_args()
    rows: list[dict[str, Any]] = []
    for number in range(options.rounds):
        for workers in options.workers:
            rows.append(_compared(options.experiment.resolve(), workers))
            print(f"  round {number + 1}/{options.rounds}: {json.dumps(rows[-1])}", flush=True)
    summed = [_summary(workers, rows) for workers in options.workers]
    print_table(summed)
    where = conditions("ray", "torch")
    write_json(options.json, {"rows": rows, "summary": summed, "where": where})


def _compared(experiment: Path, workers: int) -> dict[str, Any]:
    if workers == os.cpu_count():
        return _planned_and_swept(experiment, workers, [])
    nodes = Nodes(1, num_cpus=workers, num_gpus=0)
    try:
        return _planned_and_swept(experiment, workers, ["--address", nodes.address])
    finally:
        nodes.shutdown()


def _planned_and_swept(experiment: Path, workers: int, address: Sequence[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ltray-benchmark-") as root:
        given = [str(experiment), "--root", root, *address]
        began = time.perf_counter()
        plan = json.loads(_run("plan", *given, "--workers", str(workers), "--json"))
        planning = time.perf_counter() - began
        began = time.perf_counter()
        _run("sweep", *given)
        took = time.perf_counter() - began
        (launches,) = Path(root).glob("*/launches.json")
        (launch,) = read_json(launches)["launches"]
    (on,) = plan["workers"]
    whole = on["whole"]
    return {
        "workers": workers,
        "planning_seconds": round(planning, 1),
        "planned": round(whole["likely"], 1),
        "low": round(whole["low"], 1),
        "high": round(whole["high"], 1),
        "took": round(took, 1),
        "planned_over_took": round(whole["likely"] / took, 3),
        "planned_training": round(on["training"]["likely"], 1),
        "said_by_the_sweep": launch["planned"],
        "stages": launch["stages"],
    }


def _run(command: str, *arguments: str) -> str:
    process = subprocess.run(
        [sys.executable, "-m", f"ltray.{command}", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return process.stdout


def _summary(workers: int, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    mine = [row for row in rows if row["workers"] == workers]
    ratios = [row["planned_over_took"] for row in mine]
    return {
        "workers": workers,
        "n": len(mine),
        "planned": statistics.median(row["planned"] for row in mine),
        "took": statistics.median(row["took"] for row in mine),
        "planned/took": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
        "within range": sum(row["low"] <= row["took"] <= row["high"] for row in mine),
        "planning s": statistics.median(row["planning_seconds"] for row in mine),
    }


if __name__ == "__main__":
    main()
