"""What running trials side by side gives, and what a driver can bear.

    python benchmarks/efficiency.py [--json F]

Speed-up: 32 trials that sleep, through the same Tune run as a sweep's, on 1, 2, 4, 8 and 16 nodes
of one CPU each on this machine. Sleeping takes no CPU, so that two cores can stand for sixteen;
what is lost is what Ray, Tune and the driver take. Speed-up is the time on one node over the time
on p, efficiency is speed-up over p; both with and without the seconds until the first report.

Driver: what one more trial, and one more report, costs it in seconds and bytes, from runs of many
trials that do nothing. Store: how often a ticket asks it, counted by a proxy in front of one.

Simulation: 10,000 tickets, as 2,000 trials of an hour (give or take a tenth) on 1,000 workers, each
reporting every so often to the one driver, which serves them one after the other at the measured
costs.
"""

import argparse
import heapq
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from local_nodes import BUCKET, Nodes, stored
from measuring import conditions, print_table, write_json

NODES = (1, 2, 4, 8, 16)
TRIALS = 32
SLEEP_SECONDS = 6
IDLE_TRIALS = (50, 250)
REPORTS = 300
TICKETS, PACK, WORKERS = 10_000, 5, 1_000
TRIAL_SECONDS = 3600.0
SPREAD = 0.1


def main() -> None:
    """Measure, simulate, print."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--json", help="where to write the figures")
    arguments.add_argument("--rounds", type=int, default=1, help="of the speed-up")
    arguments.add_argument("--part", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.part:
        print(json.dumps(_part(json.loads(options.part))))
        return
    speed = speed_up(options.rounds)
    print_table(speed)
    costs = driver_costs()
    requests = requests_of_a_ticket()
    print_table([{"what": name, "figure": figure} for name, figure in (costs | requests).items()])
    simulated = [simulation(costs, requests, every) for every in (1.0, 10.0, 20.0, 60.0)]
    print_table(simulated)
    if options.json:
        parts = {"speed_up": speed, "driver": costs, "store": requests, "simulated": simulated}
        write_json(options.json, {**conditions(), **parts})


def speed_up(rounds: int) -> list[dict[str, Any]]:
    """A row for each number of nodes: medians over rounds, which go through all numbers in turn."""
    found: dict[int, list[dict[str, float]]] = {nodes: [] for nodes in NODES}
    for _ in range(rounds):
        for nodes in NODES:
            found[nodes].append(_measured(nodes=nodes, trials=TRIALS, sleep=SLEEP_SECONDS))
    median = {
        nodes: {
            name: sorted(one[name] for one in readings)[len(readings) // 2] for name in readings[0]
        }
        for nodes, readings in found.items()
    }
    one = median[1]
    return [
        {
            "nodes": nodes,
            "seconds": each["seconds"],
            "speed-up": one["seconds"] / each["seconds"],
            "efficiency": one["seconds"] / each["seconds"] / nodes,
            "until first report": each["first"],
            "efficiency after it": _after(one) / _after(each) / nodes,
            "n": rounds,
        }
        for nodes, each in median.items()
    ]


def _after(reading: Mapping[str, float]) -> float:
    """Seconds but for what passed before the first trial was asleep."""
    return reading["seconds"] - reading["first"] + 1.0


def driver_costs() -> dict[str, float]:
    """CPU seconds and bytes of the driver, of one more trial and of one more report."""
    few, many = (_measured(nodes=2, trials=number, sleep=0) for number in IDLE_TRIALS)
    talking = _measured(nodes=2, trials=2, sleep=0, reports=REPORTS)
    trials = IDLE_TRIALS[1] - IDLE_TRIALS[0]
    seconds = (many["cpu"] - few["cpu"]) / trials
    return {
        "driver seconds per trial": seconds,
        "driver seconds per report": (talking["cpu"] - few["cpu"]) / (2 * REPORTS)
        + seconds * (IDLE_TRIALS[0] - 2) / (2 * REPORTS),
        "driver bytes per trial": max(0.0, (many["bytes"] - few["bytes"]) / trials),
        "driver bytes": few["bytes"],
    }


def _measured(**asked: Any) -> dict[str, float]:
    """A run in a process of its own."""
    command = [sys.executable, __file__, "--part", json.dumps(asked)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-3000:])
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _part(asked: dict[str, Any]) -> dict[str, float]:
    from functools import partial

    from ltray.cluster.broken_gpus import BrokenGpus
    from ltray.cluster.session import Connection, session
    from ltray.cluster.slots import Slots
    from ltray.cluster.tuning import run_trials

    nodes = Nodes(asked["nodes"], num_cpus=1)
    reported: list[float] = []
    try:
        with tempfile.TemporaryDirectory() as folder, session(Connection(nodes.address)) as cluster:
            before, started = _used(), time.perf_counter()
            errors = run_trials(
                partial(_trial, sleep=asked["sleep"], reports=asked.get("reports", 1)),
                "pack",
                [f"trial-{number}" for number in range(asked["trials"])],
                slots=Slots({"cpu": 1, "gpu": 0}, cluster, BrokenGpus(quiet), quiet),
                storage=Path(folder),
                max_failures=1,
                on_report=lambda _report: reported.append(time.perf_counter()),
            )
            seconds = time.perf_counter() - started
            cpu = _used() - before
    finally:
        nodes.shutdown()
    if errors:
        raise RuntimeError(str(errors))
    return {
        "seconds": seconds,
        "first": reported[0] - started,
        "cpu": cpu,
        "bytes": float(psutil.Process().memory_info().rss),
    }


def _trial(config: dict[str, Any], sleep: int, reports: int) -> None:
    """A pack that takes its time and none of the CPU, and says each second how far it is."""
    from ray import tune

    for step in range(1, max(sleep, reports) + 1):
        time.sleep(1 if sleep else 0)
        row = {"ticket": config["pack"], "step": step, "replicate": 0}
        tune.report({"rows": json.dumps([row]), "records": "[]"})


def _used() -> float:
    """CPU seconds of this process and its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def requests_of_a_ticket() -> dict[str, float]:
    """Requests of the store by a worker that trains packs of five, and by a driver at its start."""
    from ltray.analysis.results import collect
    from ltray.data.archives.sources import open_source
    from ltray.data.manifest import write_manifest
    from ltray.data.shards import plan, write_part
    from ltray.experiment_file import read_experiment
    from ltray.files import at
    from ltray.locate import experiments_folder, locate_experiment
    from ltray.lottery.ready import ready
    from ltray.training.dense import train_dense
    from ltray.training.place import this_place
    from ltray.training.pruning import make_masks
    from ltray.training.retrain import train_pack

    with stored() as store:
        experiment = read_experiment(experiments_folder() / "digits.yaml")
        run = locate_experiment(experiment, at(f"{BUCKET}/root", "root"))
        source = open_source(run.experiment.data, run.folder.scratch)
        planned = plan(source, run.pixels)
        records = [write_part(part, source, run.pixels, run.data) for part in planned.parts]
        write_manifest(run.data, planned, records, run.fingerprint, seconds=0.0)
        train_dense(run, 0, this_place(), lambda _row: None)
        make_masks(run, 0)
        counts = []
        for pack in ready(run.experiment, set())[:4]:
            before = dict(store.requests)
            train_pack(run, pack, this_place(), lambda _rows, _records: None)
            counts.append(_difference(store.requests, before))
        before = dict(store.requests)
        tickets = len(collect(run.folder).tickets)
        starting = _difference(store.requests, before)
    last = counts[-1]  # the first also opens the data set
    return {
        "requests per ticket": sum(last.values()) / PACK,
        "of them puts and deletes": (last["PUT"] + last["DELETE"]) / PACK,
        "driver's requests per ticket at its start": sum(starting.values()) / tickets,
    }


def _difference(after: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    verbs = ("GET", "HEAD", "PUT", "DELETE")
    return {verb: after.get(verb, 0) - before.get(verb, 0) for verb in verbs}


def simulation(
    costs: Mapping[str, float], requests: Mapping[str, float], report_every: float
) -> dict[str, Any]:
    """All trials on all workers, with the driver as one queue.

    Args:
        report_every: seconds between two reports of a trial, which waits for each to be taken in.
    """
    chance = random.Random(0)
    lengths = (1 - SPREAD, 1 + SPREAD)
    trials = [TRIAL_SECONDS * chance.uniform(*lengths) for _ in range(TICKETS // PACK)]
    alone = sum(trials)
    waiting = list(reversed(trials))
    # (when it needs the driver, which worker, seconds of its trial that are left)
    events: list[tuple[float, int, float]] = [(0.0, worker, 0.0) for worker in range(WORKERS)]
    free_at = busy = end = 0.0
    served = 0
    while events:
        now, worker, left = heapq.heappop(events)
        begins = left <= 0.0
        if begins and not waiting:
            continue
        cost = costs["driver seconds per trial" if begins else "driver seconds per report"]
        free_at = max(now, free_at) + cost
        busy += cost
        served += 1
        left = waiting.pop() if begins else left
        step = min(report_every, left)
        end = max(end, free_at + step)
        heapq.heappush(events, (free_at + step, worker, left - step))
    asked = TICKETS * sum(requests[name] for name in _OF_A_TICKET)
    memory = costs["driver bytes"] + len(trials) * costs["driver bytes per trial"]
    return {
        "report every s": report_every,
        "hours": end / 3600,
        "speed-up": alone / end,
        "of the best": alone / end / _best(trials),
        "driver busy": busy / end,
        "served": served,
        "driver GiB": memory / 2**30,
        "store requests": asked,
        "a second": asked / end,
    }


_OF_A_TICKET = ("requests per ticket", "driver's requests per ticket at its start")


def _best(trials: Sequence[float]) -> float:
    """The speed-up with a driver that costs nothing: trials in their order, as workers get free."""
    free = [0.0] * WORKERS
    for seconds in trials:
        heapq.heapreplace(free, free[0] + seconds)
    return sum(trials) / max(free)


def quiet(_line: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
