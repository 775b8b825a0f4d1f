"""A sweep while processes, nodes, the network and the store are taken from it.

    python benchmarks/chaos.py [--faults 50] [--seed 0] [--json F]

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
trial may be left running; else this exits with 1. Told are the seconds, the steps that were done
more than once, and the CPU seconds of the trials.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml
from local_nodes import BUCKET, Nodes, Silence, Store, one_of, stored, trials, workers_of
from measuring import conditions, print_table, write_json

from ltray.analysis.results import read_results
from ltray.files import at, names_below

EXPERIMENT: dict[str, Any] = {
    "name": "chaos",
    "data": {"source": "digits", "validation_fraction": 0.15},
    "model": {"arch": "lenet_300_100"},
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
WORKER_COMES_SECONDS = 40.0  # after a driver was killed there is none for a while
WORKER_LIVES_SECONDS = 15.0
KINDS = ("worker", "raylet", "node", "driver", "network", "storage")
GAP_SECONDS = (3.0, 7.0)  # between two faults: a driver is at work again after about ten
OUT_SECONDS = (2.0, 8.0)
LONGEST_SECONDS = 3000.0


def main() -> int:
    """Run both sweeps, compare, print; 1 when anything was lost."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--json", help="where to write the figures")
    arguments.add_argument("--faults", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--epochs", type=int, default=720, help="of each training")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        undisturbed = sweep(Path(folder) / "calm", options.epochs, faults=0, seed=0)
        disturbed = sweep(Path(folder) / "chaos", options.epochs, options.faults, options.seed)
    wrong = differences(undisturbed, disturbed, options.faults)
    rows = [row_of("undisturbed", undisturbed), row_of("disturbed", disturbed)]
    print_table(rows)
    print(f"faults: {dict(disturbed.faults)}")
    print("\n".join(wrong) or "every row is there once and done, with the undisturbed sweep's bits")
    if options.json:
        figures = {"rows": rows, "faults": dict(disturbed.faults), "wrong": wrong}
        write_json(options.json, {**conditions(), **figures})
    return int(bool(wrong))


@dataclass
class Outcome:
    """What one sweep left.

    Attributes:
        bits: ticket -> the trained weights.
        reported: (ticket, step) of every evaluation that reached a driver, repeated ones too.
        trial_seconds: of CPU, of all trial processes.
    """

    seconds: float = 0.0
    status: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    bits: dict[str, bytes] = field(default_factory=dict)
    reported: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    launches: int = 0
    trial_seconds: dict[tuple[int, float], float] = field(default_factory=dict)
    left_running: int = 0


def sweep(folder: Path, epochs: int, faults: int, seed: int) -> Outcome:
    """One sweep in a cluster and a store of its own, with so many faults."""
    folder.mkdir()
    path = folder / "chaos.yaml"
    document = {**EXPERIMENT, "train": {**EXPERIMENT["train"], "epochs": epochs}}
    path.write_text(yaml.safe_dump(document))
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
        finally:
            nodes.shutdown()
    return outcome


class Sweeping:
    """The command, given again whenever it was killed, and the hand that disturbs it."""

    def __init__(
        self, path: Path, nodes: Nodes, store: Store, outcome: Outcome, chance: random.Random
    ) -> None:
        self.path = path
        self.nodes = nodes
        self.store = store
        self.outcome = outcome
        self.chance = chance
        self.log = (path.parent / "driver.log").open("ab")

    def run(self, faults: int) -> None:
        """To the end of the sweep, with faults one after the other while there are any left."""
        self.driver = self._start()
        try:
            self._watch(faults)
        finally:  # Ctrl-C comes here alone
            with suppress(ProcessLookupError):
                os.killpg(self.driver.pid, signal.SIGKILL)

    def _watch(self, faults: int) -> None:
        until = time.monotonic() + LONGEST_SECONDS
        due = time.monotonic() + 20.0
        while time.monotonic() < until:
            self._meter()
            if self.driver.poll() is not None:
                break
            if faults and time.monotonic() > due:
                faults -= self._disturb()
                due = time.monotonic() + self.chance.uniform(*GAP_SECONDS)
            time.sleep(0.2)
        self.outcome.status = self.driver.wait() if self.driver.poll() is not None else -1
        if self.outcome.status:
            print((self.path.parent / "driver.log").read_text()[-6000:], file=sys.stderr)

    def _start(self) -> subprocess.Popen[bytes]:
        self.outcome.launches += 1
        command = [sys.executable, "-m", "ltray.sweep", str(self.path)]
        return subprocess.Popen(
            [*command, "--root", f"{BUCKET}/root", "--address", self.nodes.address],
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def _disturb(self) -> int:
        """One fault; 0 when there was nobody to do it to."""
        kind = self.chance.choice(KINDS)
        node = self.chance.choice(self.nodes.nodes)
        faults: dict[str, Callable[[Any], bool]] = {
            "worker": self._kill_worker,
            "raylet": self._kill_raylet,
            "node": self._kill_node,
            "driver": self._kill_driver,
            "network": self._silence,
            "storage": self._cut_store,
        }
        done = faults[kind](node)
        self.outcome.faults[kind] += done
        if done:
            self.log.write(f"--- {kind}\n".encode())
            self.log.flush()
            print(f"{sum(self.outcome.faults.values())}: {kind}", flush=True)
        return int(done)

    def _kill_worker(self, _node: Any) -> bool:
        """At some moment of its life; often the births of those that replace it would be met."""
        until = time.monotonic() + WORKER_COMES_SECONDS
        while not self._trials() and time.monotonic() < until:
            self._wait(0.2)
        self._wait(self.chance.uniform(0.0, WORKER_LIVES_SECONDS))
        worker = one_of(self.chance, self._trials())
        if worker is not None:
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        return worker is not None

    def _trials(self) -> list[psutil.Process]:
        return [one for node in self.nodes.nodes for one in trials(workers_of(node))]

    def _kill_raylet(self, node: Any) -> bool:
        self.nodes.kill_raylet(node)
        self._wait(self.chance.uniform(*OUT_SECONDS))
        self.nodes.kill(node)  # what is left of it: its machine is given back
        self.nodes.replace(node)
        return True

    def _kill_node(self, node: Any) -> bool:
        self.nodes.kill(node)
        self._wait(self.chance.uniform(*OUT_SECONDS))
        self.nodes.replace(node)
        return True

    def _kill_driver(self, _node: Any) -> bool:
        self.driver.kill()
        self.driver.wait()
        self.driver = self._start()
        return True

    def _silence(self, node: Any) -> bool:
        with Silence(node):
            self._wait(self.chance.uniform(*OUT_SECONDS))
        return True

    def _cut_store(self, _node: Any) -> bool:
        self.store.cut()
        self._wait(self.chance.uniform(*OUT_SECONDS))
        self.store.mend()
        return True

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._meter()
            time.sleep(0.1)

    def _meter(self) -> None:
        """Take down what each trial's process has used so far."""
        for worker in self._trials():
            with suppress(psutil.NoSuchProcess):
                used = worker.cpu_times()
                key = worker.pid, worker.create_time()
                self.outcome.trial_seconds[key] = used.user + used.system

    def trials_after(self, seconds: float) -> int:
        """How many trial processes are there so long after the end, orphans of lost nodes too."""
        until = time.monotonic() + seconds
        while left := [one for one in self.outcome.trial_seconds if _runs(*one)]:
            if time.monotonic() > until:
                break
            time.sleep(0.5)
        return len(left)


def _runs(pid: int, created: float) -> bool:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return process.create_time() == created and bool(trials([process]))
    return False


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
        "trial CPU s": sum(outcome.trial_seconds.values()),
    }


def differences(undisturbed: Outcome, disturbed: Outcome, faults: int) -> list[str]:
    """What is not as it should be."""
    tickets = [row["ticket"] for row in disturbed.rows]
    met = sum(disturbed.faults.values())
    checks = {
        "a sweep did not end with 0": undisturbed.status == disturbed.status == 0,
        "a row is missing": len(set(tickets)) == 40 == len(undisturbed.rows),
        "a row is there twice": len(tickets) == len(set(tickets)),
        "a ticket is not done": {row["status"] for row in disturbed.rows} == {"done"},
        "bits differ": len(disturbed.bits) > 40 - 1 and disturbed.bits == undisturbed.bits,
        "a trial is left running": disturbed.left_running == 0,
        "the sweep ended before all faults: give it more --epochs": met >= faults,
    }
    return [f"WRONG: {what}" for what, holds in checks.items() if not holds]


if __name__ == "__main__":
    sys.exit(main())
