"""A sweep while processes, nodes, the network and the store are taken from it.

    python benchmarks/chaos.py [--faults 50] [--seed 0] [--epochs 3000] [--json F]

40 tickets of LeNet-300-100 on the digits, in 20 packs, on three nodes of one CPU and one pretended
GPU each, with the root in an S3-compatible store. The sweep runs once undisturbed; then, in another
store, while a seeded hand draws one fault after the other:

- worker: a trial's process is killed
- raylet: a node's own process is killed, and a new node comes some seconds later
- node: all of a node's processes are killed at once, and a new node comes
- driver: the command is killed, and given again
- network: a node and its processes stand still for 2 to 8 seconds
- storage: the store hangs up on everybody for 2 to 8 seconds

In the end every row must be there once and done, with the bits of the undisturbed sweep, and no
trial may be left running; else this exits with 1. Told are the seconds, and what the faults cost in
CPU seconds of trials: processes that start, steps cut off (done since the ticket's last state by a
process that was killed), other steps done again, and the rest, by which needed steps became dearer.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from counted_network import FOLDER, counts_in
from disturbing import Outcome, Sweeping
from local_nodes import BUCKET, Nodes, stored
from measuring import conditions, print_table, write_json

from ltray.analysis.results import read_results
from ltray.files import at, names_below

EXPERIMENT: dict[str, Any] = {
    "name": "chaos",
    "data": {"source": "digits", "validation_fraction": 0.15},
    "model": {"arch": f"{Path(__file__).with_name('counted_network.py')}:lenet"},
    "train": {"batch_size": 60, "lr": 0.05, "momentum": 0.9, "evaluate_every": 250},
    "prune": {
        "scope": "layerwise",
        "output_rate": 0.5,
        "sparsities": [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.98],
    },
    "reset": {"epochs": [0, 1, 2, 4]},
    "report": {"margin": 0.02},
    "sweep": {"backend": "loop", "tickets_per_trial": 2},
}


def main() -> int:
    """Run both sweeps, compare, print; 1 when anything was lost."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--json", help="where to write the figures")
    arguments.add_argument("--faults", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--epochs", type=int, default=3000, help="of each training")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = sweep(Path(folder) / "calm", options.epochs, faults=0, seed=0)
        disturbed = sweep(Path(folder) / "chaos", options.epochs, options.faults, options.seed)
    wrong = differences(undisturbed, disturbed, options.faults)
    rows = [row_of("undisturbed", undisturbed), row_of("disturbed", disturbed)]
    costs = costs_of(undisturbed, disturbed)
    print_table(rows)
    print_table(costs)
    print(f"faults: {dict(disturbed.faults)}")
    print("\n".join(wrong) or "every row is there once and done, with the undisturbed sweep's bits")
    if options.json:
        faults = dict(disturbed.faults)
        figures = {"rows": rows, "costs": costs, "faults": faults, "wrong": wrong}
        write_json(options.json, {**conditions(), **figures})
    return int(bool(wrong))


def sweep(folder: Path, epochs: int, faults: int, seed: int) -> Outcome:
    """One sweep in a cluster and a store of its own, with so many faults."""
    folder.mkdir()
    path = folder / "chaos.yaml"
    document = {**EXPERIMENT, "train": {**EXPERIMENT["train"], "epochs": epochs}}
    path.write_text(yaml.safe_dump(document))
    counts = folder / "counts"
    counts.mkdir()
    os.environ[FOLDER] = str(counts)  # for the nodes and the drivers to come
    outcome = Outcome()
    with stored() as store:
        nodes = Nodes(3, num_cpus=1, num_gpus=1)
        try:
            started = time.monotonic()
            sweeping = Sweeping(path, nodes, store, outcome, random.Random(seed))
            sweeping.run(faults)
            outcome.seconds = time.monotonic() - started
            outcome.left_running = sweeping.trials_after(seconds=15.0)
            _read(outcome, nodes.session)
            outcome.counts = counts_in(counts)
        finally:
            nodes.shutdown()
    return outcome


def _read(outcome: Outcome, session: Path) -> None:
    """What the sweep left in the store, and in Tune's logs on this machine."""
    root = at(f"{BUCKET}/root", "root")
    [run] = [path for path in root.iterdir() if path.name.startswith("chaos-")]
    outcome.rows = read_results(run).tickets.to_dict("records")
    for name in names_below(run):
        if name.endswith("weights.safetensors"):
            outcome.bits[name] = (run / name).read_bytes()
    for log in session.glob("artifacts/*/*/driver_artifacts/*/result.json"):
        for line in log.read_text().splitlines():
            with suppress(ValueError):  # cut off with its driver
                for row in json.loads(json.loads(line).get("rows", "[]")):
                    outcome.reported[row["ticket"], row["step"]] += 1


def row_of(name: str, outcome: Outcome) -> dict[str, Any]:
    """The figures of one sweep."""
    needed = len(outcome.reported)
    again = sum(outcome.reported.values()) - needed
    return {
        "sweep": name,
        "seconds": outcome.seconds,
        "faults": sum(outcome.faults.values()),
        "launches": outcome.launches,
        "rows": len(outcome.rows),
        "attempts": sum(int(row["attempts"]) for row in outcome.rows),
        "evaluations": needed,
        "evaluated again": again,
        "again, share": again / needed if needed else 0.0,
        "trial processes": len(outcome.trial_seconds),
        "steps": steps_of(outcome),
        "trial CPU s": sum(outcome.trial_seconds.values()),
        "until training": starting_seconds(outcome),
    }


def steps_of(outcome: Outcome) -> int:
    """All that were trained, of each network its own."""
    return sum(counts.steps for counts in outcome.counts.values())


def starting_seconds(outcome: Outcome) -> float:
    """CPU of all trial processes before their first step; all of it where there was none."""
    return sum(
        min(seconds, outcome.counts[process].began) if process in outcome.counts else seconds
        for process, seconds in outcome.trial_seconds.items()
    )


def costs_of(undisturbed: Outcome, disturbed: Outcome) -> list[dict[str, Any]]:
    """What the disturbed sweep's trials used beyond the undisturbed one's, in CPU seconds."""
    needed, taken = steps_of(undisturbed), steps_of(disturbed)
    cut_off = sum(counts.unsaved for counts in disturbed.counts.values())
    starts = [starting_seconds(outcome) for outcome in (undisturbed, disturbed)]
    used = [sum(outcome.trial_seconds.values()) for outcome in (undisturbed, disturbed)]
    a_step = (used[1] - starts[1]) / taken
    costs = {
        "starting": starts[1] - starts[0],
        "steps cut off": cut_off * a_step,
        "other steps done again": (taken - needed - cut_off) * a_step,
        "needed steps": needed * a_step - (used[0] - starts[0]),
    }
    costs["all"] = sum(costs.values())
    costs["all but the steps cut off"] = costs["all"] - costs["steps cut off"]
    return [
        {"cost of": name, "CPU s": seconds, "share of undisturbed": seconds / used[0]}
        for name, seconds in costs.items()
    ]


def differences(undisturbed: Outcome, disturbed: Outcome, faults: int) -> list[str]:
    """What is not as it should be."""
    tickets = [row["ticket"] for row in disturbed.rows]
    met = sum(disturbed.faults.values())
    checks = {
        "a sweep did not end with 0": undisturbed.status == disturbed.status == 0,
        "a row is missing": len(set(tickets)) == 40 == len(undisturbed.rows),
        "a row is there twice": len(tickets) == len(set(tickets)),
        "a ticket is not done": {row["status"] for row in disturbed.rows} == {"done"},
        "bits differ": len(disturbed.bits) == 40 and disturbed.bits == undisturbed.bits,
        "a trial is left running": disturbed.left_running == 0,
        "steps are counted wrongly": not any(one.unsaved for one in undisturbed.counts.values()),
        "the sweep ended before all faults: give it more --epochs": met >= faults,
    }
    return [f"WRONG: {what}" for what, holds in checks.items() if not holds]


if __name__ == "__main__":
    sys.exit(main())
