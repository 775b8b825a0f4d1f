"""What trials run on: the resources of each, what they wait for, and the GPUs that are broken."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltray.cluster.autoscaling import NodeType, told
from ltray.cluster.broken_gpus import BrokenGpus
from ltray.say import Say

FIRST_AFTER_SECONDS = 20.0  # a worker that starts on a slow disk takes less
AGAIN_AFTER_SECONDS = 120.0


OnCounts = Callable[[int, int], None]
"""Takes how many trials have a process, and how many wait for one."""


def untold(_running: int, _waiting: int) -> None:
    """Count for nobody."""


class Slots:
    """What trials of one kind run on; says now and then what they wait for while none runs.

    Args:
        resources: `cpu` and `gpu` of a trial.
        to_come: the kinds of nodes that an autoscaler may add.
        broken: the launch's.
        on_counts: told again and again how many trials run and how many wait.

    Attributes:
        displaced: the values of the last trials that only kept hold of a broken GPU.
    """

    def __init__(
        self,
        resources: Mapping[str, int],
        to_come: Sequence[NodeType],
        broken: BrokenGpus,
        say: Say,
        on_counts: OnCounts = untold,
    ) -> None:
        self.resources = resources
        self.broken = broken
        self.displaced: set[Any] = set()
        self._to_come = to_come
        self.say = say
        self._on_counts = on_counts
        self._due = time.monotonic() + FIRST_AFTER_SECONDS

    def keep_from_broken(self) -> None:
        """See that no trial is given a broken GPU; call when none runs.

        Raises:
            StageFailed: no GPU is left, nor will one come.
        """
        self.broken.hold(any(one.shape and one.shape[1] for one in self._to_come))

    def look(self, running: int, waiting: int) -> None:
        """Say a line when it is time.

        Args:
            running: how many trials have a worker.
            waiting: how many have none.
        """
        self._on_counts(running, waiting)
        now = time.monotonic()
        if running or not waiting:
            self._due = now + FIRST_AFTER_SECONDS
        elif now > self._due:
            self._due = now + AGAIN_AFTER_SECONDS
            found = f"none of {waiting} trials has"
            self.say(line(found, self.resources, *_cluster(), self._to_come))

    def say_group_waits(self, processes: int, resources: Mapping[str, int]) -> None:
        """Say what a trial that only waits for processes of its own has not got for them.

        Args:
            resources: of each process.
        """
        found = f"not each of {processes} processes of a dense run has"
        self.say(line(found, resources, *_cluster(), self._to_come))


def _cluster() -> tuple[Mapping[str, float], Mapping[str, float]]:
    """What the session's cluster has, and what of it nobody uses."""
    import ray

    return ray.cluster_resources(), ray.available_resources()


def line(
    found: str,
    resources: Mapping[str, int],
    there: Mapping[str, float],
    free: Mapping[str, float],
    to_come: Sequence[NodeType],
) -> str:
    """What is said.

    Args:
        found: who has not what it needs.
        there: resource -> how much the cluster has.
        free: of it.
    """
    names = {"CPU": resources["cpu"], "GPU": resources["gpu"]}
    wanted = " and ".join(
        f"{count} {name}{'s' if count > 1 else ''}" for name, count in names.items() if count
    )
    parts = [
        f"{free.get(name, 0):g} of the cluster's {there.get(name, 0):g} {name}s are free"
        for name, count in names.items()
        if count
    ]
    givers = _givers(names, there, to_come)
    return f"waiting: {found} {wanted}; {', '.join(parts)}; {givers}"


def _givers(names: Mapping[str, int], there: Mapping[str, Any], to_come: Sequence[NodeType]) -> str:
    fitting = [
        one
        for one in to_come
        if one.shape is None or (one.shape[0] >= names["CPU"] and one.shape[1] >= names["GPU"])
    ]
    if fitting:
        return f"the autoscaler may start nodes ({told(fitting)}); `ray status` says how far it is"
    if any(there.get(name, 0) < count for name, count in names.items()):
        return "no node that is left has them: `ray start` one, or stop this and ask for less"
    return (
        "other jobs, or what keeps broken GPUs, hold the rest: `ray status` and the dashboard's"
        " Actors page name them"
    )
