"""GPUs that fail under a trial: found out by a look from a fresh process, and given no more work.

A trial on a GPU that answers no more keeps hold of it, since Ray would hand it to the next trial,
and the next; it lets go when nothing else waits. Its pack comes in the next round, for which an
actor holds the GPU.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from ltray.errors import StageFailed
from ltray.memory import is_out_of_memory
from ltray.say import Say

SAYS_EVERY_SECONDS = 10.0
LOOK_SECONDS = 300.0  # a cold disk may take a while to give torch
TAKEN = ("out of memory", "_ALLOC_FAILED", "busy or unavailable")
HOLD_SECONDS = 60.0
Place = tuple[str, str]
"""a node's id, and the numbers of its GPUs as the trial saw them"""
LOOK = """
import torch
for number in range(max(1, torch.cuda.device_count())):
    ones = torch.ones(64, 64, device=f"cuda:{number}")
    assert float((ones @ ones).sum()) == 64.0**3
"""


def is_gpu_error(error: BaseException) -> bool:
    """Whether the GPU, or what drives it, failed; too little memory is another matter."""
    told = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS")
    failed = isinstance(error, RuntimeError) and any(part in str(error) for part in told)
    return failed and not is_out_of_memory(error)


def gpus_work() -> bool:
    """Whether a fresh process can compute on the GPUs that this one sees.

    After an error this process itself cannot, whoever made it. That it holds the GPU's memory, or
    the GPU for itself alone, says nothing of the GPU.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-c", LOOK],
            capture_output=True,
            text=True,
            timeout=LOOK_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0 or any(part in ended.stderr for part in TAKEN)


def keep_hold(error: BaseException) -> NoReturn:
    """Say that this trial's GPU is broken, and stay on it until Tune ends the trial."""
    import ray
    from ray import tune

    context = ray.get_runtime_context()
    broken = {
        "node": ray.util.get_node_ip_address(),
        "node_id": context.get_node_id(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "error": str(error).strip().splitlines()[0],
    }
    while True:
        tune.report({"rows": "[]", "records": "[]", "broken": json.dumps(broken)})
        time.sleep(SAYS_EVERY_SECONDS)


class BrokenGpus:
    """Those that were found in this launch."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._found: dict[Place, str] = {}
        self._held: dict[Place, list[Any]] = {}

    def see(self, report: Mapping[str, Any]) -> None:
        """Take in what a trial says that keeps hold of one; it is said once."""
        broken = json.loads(report["broken"])
        place = broken["node_id"], broken["gpus"]
        if place not in self._found:
            self._found[place] = f"GPU {broken['gpus']} on {broken['node']}: {broken['error']}"
            self._say(f"warning: a GPU is given no more work: {self._found[place]}")

    def hold(self, more_may_come: bool) -> None:
        """Keep them from the trials that come; call when none runs.

        Raises:
            StageFailed: no GPU is left, nor will one come.
        """
        import ray

        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        self._held = {place: held for place, held in self._held.items() if place[0] in nodes}
        for place in self._found:
            if place[0] in nodes and place not in self._held:
                holders = _holders(*place, draws=int(nodes[place[0]].get("GPU", 0)))
                if len(holders) == len(place[1].split(",")):
                    self._held[place] = holders
        there = sum(node.get("GPU", 0) for node in nodes.values())
        held = sum(len(holders) for holders in self._held.values())
        if held and held >= there and not more_may_come:
            said = "; ".join(self._found.values())
            raise StageFailed("GPUs", f"none is left: {said}", "mend them and try again")


def _holders(node_id: str, gpus: str, draws: int) -> list[Any]:
    """Actors that have these GPUs of a node; others that are drawn meanwhile go back."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(_Holder).options(
        num_cpus=0,
        num_gpus=1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )
    drawn = [actor.remote() for _ in range(draws)]
    numbers = {holder.gpu.remote(): holder for holder in drawn}
    ready, _ = ray.wait(list(numbers), num_returns=draws, timeout=HOLD_SECONDS, fetch_local=False)
    return [numbers[one] for one in ready if _number(one) in gpus.split(",")]


def _number(answer: Any) -> str:
    import ray

    try:
        return str(ray.get(answer))
    except ray.exceptions.RayError:
        return ""  # the node has just gone


class _Holder:
    def gpu(self) -> str:
        """Its number, as trials on the node see it."""
        return os.environ["CUDA_VISIBLE_DEVICES"]
