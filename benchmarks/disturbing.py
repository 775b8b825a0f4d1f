"""A sweep's command, and a seeded hand that takes things from it while it runs."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from counted_network import Counts, Process
from local_nodes import BUCKET, Nodes, Silence, Store, one_of, trials, workers_of

WORKER_COMES_SECONDS = 40.0  # after a driver was killed there is none for a while
WORKER_LIVES_SECONDS = 15.0
KINDS = ("worker", "raylet", "node", "driver", "network", "storage")
GAP_SECONDS = (3.0, 7.0)  # between two faults: a driver is at work again after about ten
OUT_SECONDS = (2.0, 8.0)
LONGEST_SECONDS = 7200.0


@dataclass
class Outcome:
    """What one sweep left.

    Attributes:
        bits: ticket -> the trained weights.
        reported: (ticket, step) of every evaluation that reached a driver, repeated ones too.
        trial_seconds: of CPU, of all trial processes.
        counts: what each of them trained.
    """

    seconds: float = 0.0
    status: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    bits: dict[str, bytes] = field(default_factory=dict)
    reported: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    launches: int = 0
    trial_seconds: dict[Process, float] = field(default_factory=dict)
    counts: dict[Process, Counts] = field(default_factory=dict)
    left_running: int = 0


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
        finally:  # Ctrl-C does not reach the driver, which has a session of its own
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
        if worker is None:
            return False
        try:
            worker.kill()
        except psutil.NoSuchProcess:
            return False  # it had ended by itself
        return True

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
        if self.driver.poll() is not None:
            return False  # it had ended by itself
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
