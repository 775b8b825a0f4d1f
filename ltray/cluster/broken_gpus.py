"""GPUs that fail under a trial: found out by a look from a fresh process, and given no more work.

A trial on a GPU that answers no more keeps hold of it, since Ray would hand it to the next trial,
and the next; it lets go when nothing else waits. Its pack comes in the next round, for which an
actor holds the GPU.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ltray.memory import is_out_of_memory
from ltray.say import Say

LOOK_SECONDS = 300.0  # a cold disk may take a while to give torch
TAKEN = ("out of memory", "_ALLOC_FAILED", "busy or unavailable")
HOLD_SECONDS = 60.0
Place = tuple[str, str]
"""a node's id, and the numbers of its broken GPUs"""
LOOK = """
import torch
for number in range(max(1, torch.cuda.device_count())):
    try:
        ones = torch.ones(64, 64, device=f"cuda:{number}")
        assert float((ones @ ones).sum()) == 64.0**3, "wrong sums"
    except Exception as error:
        print(number, str(error).partition(chr(10))[0], flush=True)
"""


def is_gpu_error(error: BaseException) -> bool:
    """Whether the GPU, or what drives it, failed; too little memory is another matter."""
    told = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS")
    failed = isinstance(error, RuntimeError) and any(part in str(error) for part in told)
    return failed and not is_out_of_memory(error)


def failing_gpus(gpus: Sequence[str]) -> list[str]:
    """The GPUs on which a fresh process cannot compute, of those that this one sees.

    After an error this process itself cannot, whoever made it. That it holds the GPU's memory, or
    the GPU for itself alone, says nothing of the GPU.

    Args:
        gpus: their numbers on the node.
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
        return list(gpus)
    if ended.returncode:
        return list(gpus)
    found = [line.partition(" ") for line in ended.stdout.splitlines()]
    taken = [number for number, _, error in found if any(part in error for part in TAKEN)]
    return [gpus[int(number)] for number, _, _ in found if number not in taken]


class GpuBroken(Exception):
    """This process's GPU is; the argument says where it is, as BrokenGpus.see reads it."""


@contextmanager
def broken_gpus_found() -> Iterator[None]:
    """Look at the GPUs when a block's error may be theirs.

    Raises:
        GpuBroken: one of them does not work.
    """
    import ray

    try:
        yield
    except RuntimeError as error:
        if not is_gpu_error(error):
            raise
        failing = failing_gpus(os.environ.get("CUDA_VISIBLE_DEVICES", "").split(","))
        if not failing:
            raise
        told = {
            "node": ray.util.get_node_ip_address(),
            "node_id": ray.get_runtime_context().get_node_id(),
            "gpus": ",".join(failing),
            "error": str(error).strip().splitlines()[0],
        }
        raise GpuBroken(json.dumps(told)) from error


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

    def __str__(self) -> str:
        """Which they are, and what is wrong with each."""
        return "; ".join(self._found.values())

    def hold(self) -> list[tuple[int, int]] | None:
        """Keep them from the trials that come; call when none runs.

        Returns:
            CPUs and working GPUs of each node; None where no GPU is held.
        """
        import ray

        nodes = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
        self._held = {place: held for place, held in self._held.items() if place[0] in nodes}
        for place in self._found:
            if place[0] in nodes and place not in self._held:
                holders = _holders(*place, draws=int(nodes[place[0]].get("GPU", 0)))
                if len(holders) == len(place[1].split(",")):
                    self._held[place] = holders
        if not self._held:
            return None
        broken = Counter[str]()
        for place, holders in self._held.items():
            broken[place[0]] += len(holders)
        return [
            (int(there.get("CPU", 0)), int(there.get("GPU", 0)) - broken[node])
            for node, there in nodes.items()
        ]


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
