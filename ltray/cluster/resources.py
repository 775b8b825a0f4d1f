"""What a cluster has: for each trial, for groups of processes, for work without GPUs."""

import os
import time
from dataclasses import dataclass

from ltray.cluster.autoscaling import NodeType, node_types, told
from ltray.errors import LtrayError
from ltray.experiment import Sweep
from ltray.say import Say

NODES_COME_SECONDS = 180.0


@dataclass(frozen=True)
class Cluster:
    """What Ray says it has.

    Attributes:
        nodes: CPUs and GPUs of each.
        joined: whether it was there before; one that was started for this session is this machine.
        asks_token: whether the dashboard shows itself only to who has the cluster's token.
        to_come: the kinds of nodes that an autoscaler may add.
        gpu_nodes: Ray's ids of the nodes that have GPUs.
    """

    nodes: tuple[tuple[int, int], ...]
    gpu_names: tuple[str, ...]
    dashboard: str
    joined: bool
    asks_token: bool = False
    to_come: tuple[NodeType, ...] = ()
    gpu_nodes: tuple[str, ...] = ()

    @property
    def shapes(self) -> frozenset[tuple[int, int]]:
        """CPUs and GPUs of the nodes that there are, and of those that may come."""
        return frozenset(self.nodes) | {one.shape for one in self.to_come if one.shape}

    @property
    def cpus(self) -> int:
        """Of all nodes."""
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> int:
        """Of all nodes."""
        return sum(gpus for _, gpus in self.nodes)

    @property
    def cpus_apart(self) -> int:
        """Of the nodes without GPUs; 0 where no node has GPUs, nor will."""
        may_have_gpus = any(gpus for _, gpus in self.shapes) or any(
            one.shape is None for one in self.to_come
        )
        return sum(cpus for cpus, gpus in self.nodes if not gpus) if may_have_gpus else 0

    def room(self, cpus: int, gpus: int) -> int:
        """How many processes of so many CPUs and GPUs each it holds, or will hold."""
        to_come = [
            (processes_on(one.shape, cpus, gpus), one.at_most, one.of_all)
            for one in self.to_come
            if one.shape
        ]
        later, nodes = 0, 0
        for each, at_most, of_all in sorted(to_come, reverse=True):
            more = min(at_most, of_all - nodes)
            later += more * each
            nodes += more
        return max(later, sum(processes_on(node, cpus, gpus) for node in self.nodes))

    def most_on_a_node(self, cpus: int, gpus: int) -> int:
        """How many of them the node holds that has, or will have, most room."""
        return max(processes_on(shape, cpus, gpus) for shape in self.shapes)

    @property
    def cpus_per_gpu(self) -> int:
        """On the GPU node that has fewest, or will have; 0 without GPUs."""
        return min((cpus // gpus for cpus, gpus in self.shapes if gpus), default=0)


def processes_on(node: tuple[int, int], cpus: int, gpus: int) -> int:
    """How many processes of so many CPUs and GPUs each a node holds."""
    there = [have // wanted for have, wanted in zip(node, (cpus, gpus), strict=True) if wanted]
    return min(there)


def trial_resources(sweep: Sweep, cluster: Cluster, gpus: int | str) -> dict[str, int]:
    """CPUs and GPUs of one trial.

    Args:
        gpus: as the experiment has it: `auto` is 1 where the cluster has GPUs, or may have.

    Raises:
        LtrayError: no node has what one trial needs.
    """
    has_gpus = any(shape[1] for shape in cluster.shapes)
    wanted_gpus = int(has_gpus) if gpus == "auto" else int(gpus)
    cpus = _cpus(sweep, cluster, wanted_gpus)
    if not any(cpus <= node[0] and wanted_gpus <= node[1] for node in cluster.shapes):
        wanted = f"{cpus} CPUs and {wanted_gpus} GPUs a trial"
        there = ", ".join(f"{node[0]} and {node[1]}" for node in sorted(cluster.shapes))
        found = f"{wanted}, but no node has them; the nodes have {there}"
        keys = "sweep.cpus_per_trial, gpus_per_trial, dense_gpus"
        raise LtrayError(keys, found, "write less, or auto")
    return {"cpu": cpus, "gpu": wanted_gpus}


def groups_at_once(sweep: Sweep, cluster: Cluster, size: int) -> tuple[int, int]:
    """How many groups of so many processes the cluster can hold, and the CPUs of a process.

    Each process has one GPU; those of a group may lie on several nodes.

    Raises:
        LtrayError: it cannot hold one.
    """
    cpus = _cpus(sweep, cluster, 1)
    processes = cluster.room(cpus, 1)
    if processes < size:
        there = ", ".join(f"{node[0]} and {node[1]}" for node in sorted(cluster.nodes))
        found = (
            f"{size} processes of 1 GPU and {cpus} CPUs each, but there is room for {processes};"
            f" the nodes have {there} (CPUs and GPUs)"
        )
        mend = f"write null, or at most {processes}, or a lower sweep.cpus_per_trial"
        raise LtrayError("sweep.dense_gpus", found, mend)
    return processes // size, cpus


def _cpus(sweep: Sweep, cluster: Cluster, gpus: int) -> int:
    """CPUs of a process that has so many GPUs."""
    if sweep.cpus_per_trial != "auto":
        return sweep.cpus_per_trial
    return max(1, cluster.cpus_per_gpu * gpus)


def cluster_of(dashboard: str, joined: bool) -> Cluster:
    """Of the session that this process is in."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    resources = [node["Resources"] for node in nodes]
    prefix = "accelerator_type:"
    names = {key.removeprefix(prefix) for one in resources for key in one if prefix in key}
    return Cluster(
        nodes=tuple((int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in resources),
        gpu_names=tuple(sorted(names)),
        dashboard=dashboard,
        joined=joined,
        # Ray sets it where it asks for a token unasked, too.
        asks_token=os.environ.get("RAY_AUTH_MODE", "").lower() == "token",
        to_come=tuple(node_types()) if joined else (),
        gpu_nodes=tuple(one["NodeID"] for one in nodes if one["Resources"].get("GPU", 0)),
    )


def awaited(cluster: Cluster, say: Say) -> Cluster:
    """The cluster, when it has GPUs, or when no more nodes are to come by themselves.

    `ray up` returns when the head is there: whether trials have GPUs must not depend on who was
    faster, the command or the nodes.
    """
    until = time.monotonic() + NODES_COME_SECONDS
    expected = 1 + sum(one.at_least for one in cluster.to_come)
    if not _may_get_gpus(cluster) or len(cluster.nodes) >= expected:
        return cluster
    say(
        f"waiting for nodes: {len(cluster.nodes)} of {expected} are there ({told(cluster.to_come)})"
    )
    while _may_get_gpus(cluster) and len(cluster.nodes) < expected and time.monotonic() < until:
        time.sleep(2.0)
        cluster = cluster_of(cluster.dashboard, cluster.joined)
    return cluster


def _may_get_gpus(cluster: Cluster) -> bool:
    """Whether it shows no GPU, while nodes may come that do not tell beforehand."""
    unknown = any(one.shape is None for one in cluster.to_come)
    return unknown and not any(gpus for _, gpus in cluster.shapes)
