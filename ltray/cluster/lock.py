"""One driver per run within a cluster: an actor with the run's name, which dies with its driver.

The lease in the root (lease.py) also knows drivers of other clusters, but not every store can say
who of two was first; the cluster's head can.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ltray.errors import LtrayError
from ltray.layout import RunFolder

NAMESPACE = "ltray"
DIES_WITHIN_SECONDS = 20.0  # an actor, after its driver


@contextmanager
def only_driver_here(run: RunFolder) -> Iterator[None]:
    """Hold the run's name in the session's cluster while the block runs.

    Raises:
        LtrayError: another driver of the cluster holds it.
    """
    actor = _actor(f"driver of {run.path}")
    if actor is None:
        found = "another driver of this cluster is at work on this run"
        mend = "wait for it, or stop it first: one driver per run"
        raise LtrayError(str(run.path), found, mend)
    yield  # the actor goes with the last handle of it, or with this process


def _actor(name: str) -> Any:
    """An actor of that name, or None where another one has it for longer than the dead do."""
    until = time.monotonic() + DIES_WITHIN_SECONDS
    # On the driver's own node: it goes with the driver or not at all.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    holder = ray.remote(num_cpus=0, scheduling_strategy=here)(_Holder)
    while time.monotonic() < until:
        try:
            return holder.options(name=name, namespace=NAMESPACE).remote()
        except ValueError:
            time.sleep(0.5)
    return None


class _Holder:
    """Is there."""
