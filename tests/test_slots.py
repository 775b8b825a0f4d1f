"""What a sweep says of nodes that are not there yet, and of trials that wait for them."""

import re
from typing import Any

import pytest
import yaml

from ltray.cluster import slots as slots_module
from ltray.cluster.autoscaling import NodeType, types_of
from ltray.cluster.broken_gpus import BrokenGpus
from ltray.cluster.resources import Cluster, groups_at_once, trial_resources
from ltray.cluster.slots import Slots, line
from ltray.errors import LtrayError
from ltray.experiment import Sweep

GPU_NODES = NodeType("gpu_worker", (16, 4), at_least=0, at_most=5, of_all=8)
AWS: dict[str, Any] = {
    "max_workers": 8,
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 4}, "max_workers": 0},
        "gpu_worker": {"resources": {"CPU": 16, "GPU": 4}, "min_workers": 0, "max_workers": 5},
        "fallback": {"resources": {"CPU": 16, "GPU": 4}, "min_workers": 1, "max_workers": 90},
    },
}
RACK: dict[str, Any] = {
    "max_workers": 3,
    "head_node_type": "local.cluster.node",
    "available_node_types": {
        "local.cluster.node": {"resources": {}, "min_workers": 3, "max_workers": 3}
    },
}


def cluster(*nodes: tuple[int, int], to_come: tuple[NodeType, ...] = ()) -> Cluster:
    return Cluster(nodes, (), "", joined=True, to_come=to_come)


def test_the_clusters_file_says_which_nodes_may_come() -> None:
    assert types_of(yaml.safe_dump(AWS, sort_keys=False)) == [
        GPU_NODES,
        NodeType("fallback", (16, 4), at_least=1, at_most=8, of_all=8),
    ]
    assert types_of(yaml.safe_dump(RACK)) == [NodeType("local.cluster.node", None, 3, 3, 3)]
    assert types_of("{}") == []


def test_auto_asks_for_the_gpus_that_an_autoscaler_may_bring() -> None:
    head_alone = cluster((4, 0), to_come=(GPU_NODES,))
    assert trial_resources(Sweep(), head_alone, "auto") == {"cpu": 4, "gpu": 1}
    assert trial_resources(Sweep(), cluster((4, 0)), "auto") == {"cpu": 1, "gpu": 0}
    assert groups_at_once(Sweep(), head_alone, 8) == (2, 4)


def test_an_autoscaler_brings_no_more_nodes_than_its_limit_for_all_kinds() -> None:
    kinds = tuple(types_of(yaml.safe_dump(AWS, sort_keys=False)))
    assert cluster((4, 0), to_come=kinds).room(4, 1) == 8 * 4
    larger = NodeType("larger", (64, 8), at_least=0, at_most=3, of_all=8)
    assert cluster((4, 0), to_come=(*kinds, larger)).room(4, 1) == 3 * 8 + 5 * 4
    assert cluster((4, 0), (8, 2), (3, 1)).room(4, 1) == 2


def test_what_is_tried_side_by_side_fits_on_one_node() -> None:
    small = NodeType("small", (4, 1), at_least=0, at_most=8, of_all=8)
    head_alone = cluster((4, 0), to_come=(small,))
    assert head_alone.room(4, 1) == 8
    assert head_alone.most_on_a_node(4, 1) == 1
    assert cluster((8, 2), (4, 1), (2, 0)).most_on_a_node(4, 1) == 2


def test_what_no_node_has_or_will_have_is_refused() -> None:
    head_alone = cluster((4, 0), to_come=(GPU_NODES,))
    with pytest.raises(LtrayError, match="no node has them; the nodes have 4 and 0, 16 and 4"):
        trial_resources(Sweep(), head_alone, 5)
    with pytest.raises(LtrayError, match="there is room for 20"):
        groups_at_once(Sweep(), head_alone, 21)


@pytest.mark.parametrize(
    ("there", "to_come", "giver"),
    [
        ({"CPU": 4.0}, [GPU_NODES], r"the autoscaler may start nodes \(0 to 5 of gpu_worker\)"),
        ({"CPU": 4.0}, [], "no node that is left has them"),
        ({"CPU": 32.0, "GPU": 8.0}, [], "other jobs, or what keeps broken GPUs, hold the rest"),
        ({"CPU": 32.0, "GPU": 8.0}, [GPU_NODES], r"the autoscaler may start nodes"),
        ({"CPU": 4.0}, [NodeType("cpus", (64, 0), 0, 5, 5)], "no node that is left has them"),
    ],
)
def test_a_waiting_sweep_says_what_is_missing_and_who_could_give_it(
    there: dict[str, float], to_come: list[NodeType], giver: str
) -> None:
    said = line("none of 7 trials has", {"cpu": 4, "gpu": 1}, there, {"CPU": 2.0}, to_come)
    gpus = f"{there.get('GPU', 0):g}"
    assert said.startswith(
        f"waiting: none of 7 trials has 4 CPUs and 1 GPU; 2 of the cluster's {there['CPU']:g} CPUs"
        f" are free, 0 of the cluster's {gpus} GPUs are free; "
    )
    assert re.search(giver, said)


def test_a_trial_that_has_all_it_needs_is_said_to_be_starting() -> None:
    there = {"CPU": 4.0}
    said = line("none of 7 trials has", {"cpu": 1, "gpu": 0}, there, {"CPU": 2.0}, [])
    assert said.endswith("its process is starting")
    said = line("none of 7 trials has", {"cpu": 4, "gpu": 0}, there, {"CPU": 2.0}, [])
    assert "other jobs hold the rest" in said
    assert "GPU" not in said


def test_it_is_said_now_and_then_and_only_while_nothing_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slots_module, "FIRST_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(slots_module, "_cluster", lambda: ({"CPU": 2.0}, {}))
    said: list[str] = []
    slots = Slots({"cpu": 1, "gpu": 0}, cluster((2, 0)), BrokenGpus(said.append), said.append)
    slots.look(running=1, waiting=9)
    slots.look(running=0, waiting=0)
    assert said == []
    slots.look(running=0, waiting=9)
    slots.look(running=0, waiting=9)
    assert len(said) == 1
