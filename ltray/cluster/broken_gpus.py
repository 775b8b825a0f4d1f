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
from ltray.say import Say

SAYS_EVERY_SECONDS = 10.0
LOOK_SECONDS = 120.0
HOLD_SECONDS = 60.0
LOOK = """
import torch
for number in range(max(1, torch.cuda.device_count())):
    ones = torch.ones(64, 64, device=f"cuda:{number}")
    assert float((ones @ ones).sum()) == 64.0**3
"""


def is_gpu_error(error: BaseException) -> bool:
    """Whether the GPU, or what drives it, failed; too little memory is another matter."""
    told = ("CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS")
    return isinstance(error, RuntimeError) and any(part in str(error) for part in told)


def gpus_work() -> bool:
    """Whether a fresh process can compute on the GPUs that this one sees.

    After an error this process itself cannot, whoever made it.
    """
    try:
        ended = subprocess.run(
            [sys.executable, "-c", LOOK], capture_output=True, timeout=LOOK_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return ended.returncode == 0


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
        self._found: dict[tuple[str, str], str] = {}
        self._held: dict[tuple[str, str], list[Any]] = {}

    def see(self, report: Mapping[str, Any]) -> None:
        """Take in a trial's report; says it when a GPU is new."""
        if "broken" not in report:
            return
        broken = json.loads(report["broken"])
        key = broken["node_id"], broken["gpus"]
        if key not in self._found:
            self._found[key] = f"GPU {broken['gpus']} on {broken['node']}: {broken['error']}"
            self._say(
                f"warning: it is given no more work, its pack goes on elsewhere: {self._found[key]}"
            )

    def hold(self) -> None:
        """Keep them from the trials that come; call when none runs.

        Raises:
            StageFailed: no GPU is left.
        """
        import ray

        for key in [key for key in self._found if key not in self._held]:
            self._held[key] = _holders(*key)
        held = sum(len(holders) for holders in self._held.values())
        if held and held >= ray.cluster_resources().get("GPU", 0):
            said = "; ".join(self._found.values())
            raise StageFailed("GPUs", f"none is left: {said}", "mend them and try again")


def _holders(node_id: str, gpus: str) -> list[Any]:
    """Actors that have these GPUs of a node; others that were drawn meanwhile go back."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    actor = ray.remote(_Holder).options(
        num_cpus=0,
        num_gpus=1,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )
    wanted, drawn = set(gpus.split(",")), []
    until = time.monotonic() + HOLD_SECONDS
    while wanted and time.monotonic() < until:
        holder = actor.remote()
        try:
            number = ray.get(holder.gpu.remote(), timeout=HOLD_SECONDS)
        except (ray.exceptions.RayError, ray.exceptions.GetTimeoutError):
            break  # the node is gone, or has no more
        drawn.append((number, holder))
        wanted.discard(number)
    return [holder for number, holder in drawn if number in gpus.split(",")]


class _Holder:
    def gpu(self) -> str:
        """Its number, as trials on the node see it."""
        return os.environ["CUDA_VISIBLE_DEVICES"]
