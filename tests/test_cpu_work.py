"""Work without GPUs stays away from the CPUs that trials on GPUs need."""

import subprocess
import sys
from pathlib import Path

import pytest
from commands import local_cluster

from ltray.cluster.autoscaling import NodeType
from ltray.cluster.resources import Cluster

GPU_TYPE = NodeType("gpu_worker", (16, 4), at_least=0, at_most=5, of_all=8)
UNKNOWN_TYPE = NodeType("rack", None, at_least=0, at_most=5, of_all=8)
PROGRAM = """
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ltray.cluster import tasks
from ltray.cluster.session import Connection, session

def has_gpus(_part):
    time.sleep(0.2)
    here = ray.get_runtime_context().get_node_id()
    [found] = [node for node in ray.nodes() if node["NodeID"] == here]
    return "GPU" in found["Resources"]

def part_has_gpus(part):
    return SimpleNamespace(rows=1, has_gpus=has_gpus(part))

def started(folder, number):
    Path(folder, str(number)).touch()

class Holder:
    def is_there(self):
        return True

def let_go(line):
    print(line)
    ray.kill(holder)

with session(Connection(sys.argv[1])) as cluster:
    work = tasks.CpuWork(cluster, say=print)
    print("tasks", set(work.on_each(has_gpus, range(8), "masks")))
    results = work.on_each(partial(started, sys.argv[2]), range(8), "prepare")
    next(results)
    while len(list(Path(sys.argv[2]).iterdir())) < 2:
        time.sleep(0.1)
    time.sleep(1.0)
    print("at once", len(list(Path(sys.argv[2]).iterdir())), len(list(results)))
    done = work.on_each_part(part_has_gpus, range(8), "prepare")
    print("parts", {one.has_gpus for one in done}, len(done))
    [head] = [node["NodeID"] for node in ray.nodes() if "GPU" not in node["Resources"]]
    there = NodeAffinitySchedulingStrategy(head, soft=False)
    holder = ray.remote(Holder).options(num_cpus=2, scheduling_strategy=there).remote()
    ray.get(holder.is_there.remote())
    tasks.FIRST_AFTER_SECONDS = 1.0  # not before: a busy machine may be slow to start its first
    later = tasks.CpuWork(cluster, say=let_go)
    print("later", set(later.on_each(has_gpus, range(2), "masks")))
"""


@pytest.mark.ray
def test_cpu_work_goes_to_nodes_without_gpus_or_says_that_it_waits_for_them(tmp_path: Path) -> None:
    with local_cluster({}, {}, gpus=[0, 2]) as address:
        ended = subprocess.run(
            [sys.executable, "-c", PROGRAM, address, tmp_path],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert ended.returncode == 0, ended.stderr
    tasks, at_once, where, parts, waiting, later = ended.stdout.splitlines()
    assert tasks == "tasks {False}"
    assert at_once == "at once 2 7", "more would call for nodes with GPUs"
    assert where == "prepare: on the 2 CPUs of nodes without GPUs"
    assert parts == "parts {False} 8"
    assert waiting == (
        "waiting: masks has no CPU on nodes without GPUs, which have 2; 2 of the cluster's 4 CPUs"
        " are free; `ray status` names what holds the rest"
    )
    assert later == "later {False}"


@pytest.mark.parametrize(
    ("nodes", "to_come", "cpus"),
    [
        ([(8, 0), (16, 4)], [], 8),
        ([(8, 0)], [GPU_TYPE], 8),
        ([(8, 0)], [UNKNOWN_TYPE], 8),
        ([(8, 0), (4, 0)], [], 0),
        ([(16, 4), (16, 4)], [], 0),
        ([(0, 0), (16, 4)], [], 0),
    ],
)
def test_nodes_are_told_apart_only_where_there_are_two_kinds(
    nodes: list[tuple[int, int]], to_come: list[NodeType], cpus: int
) -> None:
    cluster = Cluster(tuple(nodes), (), "", joined=True, to_come=tuple(to_come))
    assert cluster.cpus_apart == cpus
