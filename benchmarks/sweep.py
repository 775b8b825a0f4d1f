"""Whole sweeps: how long they take from the command to the report, and what a trial adds.

    python benchmarks/sweep.py default [--rounds 3]
    python benchmarks/sweep.py trials
    python benchmarks/sweep.py grid mnist.npz --root FOLDER [--variants float32:auto bfloat16:auto]
                                              [--seed 0] [--replicates 3] [--sparsities 0.9]

`default` runs `python -m ltray.sweep` so many times, each in a folder of its own.

`trials` sweeps the default and then runs a trial per ticket once more, as a sweep does, one after
the other: each finds its ticket done, so what it takes is what a trial costs that has nothing to
do. The first also starts a process and is told apart.

`grid` is LeNet-300-100 on MNIST, 20 sparsities x 5 reset points, 40 epochs of 429 steps in batches
of 128, each evaluated; one sweep per variant, PRECISION:BACKEND, and then every cell's test
accuracy beside the first variant's, with --json each replicate's own. What is done in FOLDER is not
done again; the seconds are those of all launches together. The anchor: OpenLTH takes 10.0 ms per
step in float32 in one thread of a CPU with bfloat16, loading and evaluation included, 2.4 h for
these steps side by side on two cores.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import yaml
from local_nodes import trials
from measuring import conditions, print_table, summary, write_json

from ltray.cluster.broken_gpus import BrokenGpus
from ltray.cluster.lease import only_driver
from ltray.cluster.nodes import Demands, demands
from ltray.cluster.resources import Cluster
from ltray.cluster.session import Connection, session
from ltray.cluster.slots import Slots
from ltray.cluster.trials import pack_trial
from ltray.cluster.tuning import run_trials
from ltray.files import read_json
from ltray.locate import experiments_folder, locate
from ltray.lottery.tickets import Pack, grid
from ltray.run import Run

DEFAULT = experiments_folder() / "digits.yaml"
ENDS = ("started", "finished")
Cell = tuple[float, float]
"""sparsity, reset point"""


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--json", help="where to write the figures")
    parts = arguments.add_subparsers(dest="part", required=True)
    default = parts.add_parser("default")
    default.add_argument("--rounds", type=int, default=3)
    parts.add_parser("trials")
    whole = parts.add_parser("grid")
    whole.add_argument("mnist", type=Path, help="mnist.npz with x_train, y_train, x_test, y_test")
    whole.add_argument("--root", type=Path, required=True, help="folder for the runs")
    whole.add_argument("--variants", nargs="+", default=["float32:auto", "bfloat16:auto"])
    whole.add_argument("--seed", type=int, default=0, help="of the first replicate")
    whole.add_argument("--replicates", type=int, default=1)
    whole.add_argument("--epochs", type=int, default=40)
    whole.add_argument("--sparsities", type=float, nargs="+", help="the default's if none")
    whole.add_argument("--tickets-per-trial", type=int, default=10)
    options = arguments.parse_args()
    measure = {"default": default_sweep, "trials": idle_trials, "grid": mnist_grid}[options.part]
    rows = measure(options)
    print_table([{key: shown(value) for key, value in row.items()} for row in rows])
    where = conditions("ray", "torch")
    print(where)
    write_json(options.json, {"rows": rows, "where": where})


def default_sweep(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per round, with the seconds of each stage."""
    rows = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as root:
            rows.append(swept(DEFAULT, Path(root)))
            print(f"  {rows[-1]}", flush=True)
    return rows


def swept(experiment: Path, root: Path) -> dict[str, Any]:
    """Run a sweep's command; seconds in all and of its stages, and how many tickets are done."""
    command = [sys.executable, "-m", "ltray.sweep", str(experiment), "--root", str(root)]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    folder = locate(experiment, root).folder
    stages = read_json(folder.launches)["launches"][-1]["stages"]
    rest = seconds - sum(stages.values())
    statuses = pq.read_table(folder.tickets_table, columns=["status"])["status"].to_pylist()
    return {"seconds": seconds, **stages, "the rest": rest, "done": statuses.count("done")}


def idle_trials(_options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of the first trial, and of those after it."""
    with tempfile.TemporaryDirectory() as root:
        swept(DEFAULT, Path(root))
        run = locate(DEFAULT, Path(root))
        started = time.perf_counter()
        ended: list[float] = []
        used: list[float] = []
        with only_driver(run.folder) as lease, session(Connection()) as cluster:
            begun = time.perf_counter()
            trials_of_done_tickets(run, demands(run.folder, lease.token), cluster, ended, used)
    each = [after - before for before, after in pairwise(ended)]
    return [
        {"what": "starting Ray, s", **summary([begun - started])},
        {"what": "first trial, s", **summary([ended[0] - begun])},
        {"what": "its process until then, CPU s", **summary(used[:1])},
        {"what": "each after it, s", **summary(each)},
        {"what": "mean after the first, s", **summary([statistics.mean(each)])},
    ]


def trials_of_done_tickets(
    run: Run, wanted: Demands, cluster: Cluster, ended: list[float], used: list[float]
) -> None:
    """A trial for each ticket, one at a time.

    Args:
        ended: takes the moments at which their reports arrive.
        used: takes the CPU seconds of their process so far.
    """

    def see(_report: Mapping[str, Any]) -> None:
        ended.append(time.perf_counter())
        times = [one.cpu_times() for one in trials(psutil.Process().children(recursive=True))]
        used.extend(one.user + one.system for one in times)

    packs = [Pack((ticket,), (ticket,)) for ticket in grid(run.experiment)]
    by_name = {pack.name: pack for pack in packs}
    errors = run_trials(
        partial(pack_trial, run=run, wanted=wanted, packs=by_name),
        "pack",
        list(by_name),
        slots=Slots({"cpu": 1, "gpu": 0}, cluster, BrokenGpus(quiet), quiet),
        storage=run.folder.tune("idle"),
        max_failures=1,
        on_report=see,
        at_once=1,
    )
    assert not errors, errors
    assert len(ended) == len(packs), "each trial reports its ticket"


def mnist_grid(options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row per cell; how long each variant took is printed before."""
    accuracies = {}
    for variant in options.variants:
        root = options.root / variant.replace(":", "-")
        root.mkdir(parents=True, exist_ok=True)
        experiment = root / "grid.yaml"
        experiment.write_text(yaml.safe_dump(grid_of(options, *variant.split(":"))))
        swept(experiment, root)
        run = locate(experiment, root)
        print(f"  {variant}: {seconds_of(run):.0f} s from start to report", flush=True)
        accuracies[variant] = cells(run)
    return compared(accuracies)


def seconds_of(run: Run) -> float:
    """All launches on the run together."""
    launches = read_json(run.folder.launches)["launches"]
    spans = [[datetime.fromisoformat(one[f"{end}_at"]) for end in ENDS] for one in launches]
    return sum((finished - started).total_seconds() for started, finished in spans)


def grid_of(options: argparse.Namespace, precision: str, backend: str) -> dict[str, Any]:
    """The default's sparsities and reset points on MNIST, with the steps that OpenLTH takes."""
    default = yaml.safe_load(DEFAULT.read_text())
    path, levels = str(options.mnist.resolve()), options.sparsities
    train = {"epochs": options.epochs, "batch_size": 128, "lr": 0.1, "momentum": 0.9}
    return {
        "name": "mnist-grid",
        "seed": options.seed,
        "data": {"source": "npz", "path": path, "validation_fraction": 0.0833},
        "model": {"arch": "lenet_300_100"},
        "train": {**train, "precision": precision},
        "prune": default["prune"] | ({"sparsities": levels} if levels else {}),
        "reset": {**default["reset"], "schedule": "restart"},
        "replicates": options.replicates,
        "sweep": {"backend": backend, "tickets_per_trial": options.tickets_per_trial},
    }


def cells(run: Run) -> dict[Cell, list[float]]:
    """Test accuracy in percent of each cell, one for each replicate in turn."""
    columns = ["sparsity", "reset_epoch", "test_top1", "replicate"]
    found: defaultdict[Cell, list[float]] = defaultdict(list)
    table = pq.read_table(run.folder.tickets_table, columns=columns).sort_by("replicate")
    for row in table.to_pylist():
        found[row["sparsity"], row["reset_epoch"]].append(100 * row["test_top1"])
    return found


def compared(accuracies: Mapping[str, Mapping[Cell, list[float]]]) -> list[dict[str, Any]]:
    """Each cell's accuracies, and how far the others' means are below the first's.

    `beyond` marks what is further below than the wider of both ranges.
    """
    first, *others = accuracies
    rows = []
    for (sparsity, point), of_first in sorted(accuracies[first].items()):
        row: dict[str, Any] = {"sparsity": str(sparsity), "reset": str(point)}
        for variant, of in accuracies.items():
            row[variant] = of[sparsity, point]
        for variant in others:
            scores = accuracies[variant][sparsity, point]
            below = statistics.mean(of_first) - statistics.mean(scores)
            spread = max(max(each) - min(each) for each in (of_first, scores))
            row[f"{variant} below"] = f"{below:+.2f}{' beyond' if below > spread else ''}"
        rows.append(row)
    return rows


def shown(value: Any) -> Any:
    """Mean and range of accuracies; anything else as it is."""
    if not isinstance(value, list):
        return value
    return f"{statistics.mean(value):.2f} ({min(value):.2f} to {max(value):.2f})"


def quiet(_line: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    main()
