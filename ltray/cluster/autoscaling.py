"""Which nodes may still come: a cluster that `ray up` made keeps its file on its head."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

CLUSTER_FILE = "ray_bootstrap_config.yaml"
ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class NodeType:
    """A kind of node that the cluster's file allows beside its head.

    Attributes:
        shape: its CPUs and GPUs; None where only the node itself will tell.
        at_most: how many there may be.
        of_all: how many there may be of all kinds together.
    """

    name: str
    shape: tuple[int, int] | None
    at_least: int
    at_most: int
    of_all: int


def node_types() -> list[NodeType]:
    """Those of the session's cluster; empty where it does not grow, or does not tell."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    heads = [node for node in ray.nodes() if "node:__internal_head__" in node["Resources"]]
    if not heads:
        return []
    on_head = NodeAffinitySchedulingStrategy(heads[0]["NodeID"], soft=False)
    task = ray.remote(_read).options(num_cpus=0, scheduling_strategy=on_head).remote()
    try:
        return types_of(ray.get(task, timeout=ANSWER_SECONDS))
    except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
        return []  # check_nodes says what is wrong with a node that cannot run a task


def _read() -> str:
    path = Path.home() / CLUSTER_FILE
    return path.read_text() if path.is_file() else "{}"


def types_of(cluster_file: str) -> list[NodeType]:
    """What the text of a cluster's file allows."""
    document = yaml.safe_load(cluster_file) or {}
    kinds: dict[str, Any] = document.get("available_node_types", {})
    found = [_type(name, kind, document) for name, kind in kinds.items()]
    return [one for one in found if one.at_most > 0]


def _type(name: str, kind: dict[str, Any], document: dict[str, Any]) -> NodeType:
    resources = kind.get("resources") or {}
    known = "CPU" in resources or "GPU" in resources
    of_all = int(document.get("max_workers", 0))
    return NodeType(
        name,
        shape=(int(resources.get("CPU", 0)), int(resources.get("GPU", 0))) if known else None,
        at_least=int(kind.get("min_workers", 0)),
        at_most=min(int(kind.get("max_workers", 0)), of_all),
        of_all=of_all,
    )


def told(types: Sequence[NodeType]) -> str:
    """A phrase for people: which nodes may come."""
    return ", ".join(f"{one.at_least} to {one.at_most} of {one.name}" for one in types)
