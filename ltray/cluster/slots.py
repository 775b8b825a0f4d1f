"""What trials run on: the resources of each, what they wait for, and the GPUs that are broken."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ltray.cluster.autoscaling import NodeType, told
from ltray.cluster.broken_gpus import BrokenGpus
from ltray.cluster.resources import Cluster, processes_on
from ltray.errors import StageFailed
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
        cluster: as the command found it.
        broken: the launch's.
        on_counts: told again and again how many trials run and how many wait.
        group: how many processes a trial waits for that do its work, and `cpu` and `gpu` of each;
            None where it does the work itself.

    Attributes:
        displaced: the values of the last trials that only kept hold of a broken GPU.
        room: how many trials the cluster holds at a time, as far as it tells.
    """

    def __init__(  # noqa: PLR0913, PLR0917 (what trials run on, and who is told)
        self,
        resources: Mapping[str, int],
        cluster: Cluster,
        broken: BrokenGpus,
        say: Say,
        on_counts: OnCounts = untold,
        group: tuple[int, Mapping[str, int]] | None = None,
    ) -> None:
        self.resources = resources
        self.broken = broken
        self.displaced: set[Any] = set()
        self._processes, self._each = group or (1, resources)
        held = cluster.room(self._each["cpu"], self._each["gpu"])
        self.room = max(1, held // self._processes)
        self._to_come = cluster.to_come
        self.say = say
        self._on_counts = on_counts
        self._due = time.monotonic() + FIRST_AFTER_SECONDS

    def keep_from_broken(self) -> None:
        """See that no trial is given a broken GPU; call when none runs.

        Raises:
            StageFailed: too few GPUs are left, nor will others come.
        """
        left = self.broken.hold()
        if left is None or _fitting(self._each, self._to_come):
            return
        each = self._each["cpu"], self._each["gpu"]
        if sum(processes_on(node, *each) for node in left) < self._processes:
            found = f"not enough are left: {self.broken}"
            raise StageFailed("GPUs", found, "mend them and try again")

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

    def say_group_waits(self) -> None:
        """Say what a trial has not got for the processes that do its work."""
        found = f"not each of {self._processes} processes of a dense run has"
        self.say(line(found, self._each, *_cluster(), self._to_come))


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
    enough = all(free.get(name, 0) >= count for name, count in names.items())
    givers = "its process is starting" if enough else _givers(names, there, to_come)
    return f"waiting: {found} {wanted}; {', '.join(parts)}; {givers}"


def _givers(names: Mapping[str, int], there: Mapping[str, Any], to_come: Sequence[NodeType]) -> str:
    fitting = _fitting({"cpu": names["CPU"], "gpu": names["GPU"]}, to_come)
    if fitting:
        return f"the autoscaler may start nodes ({told(fitting)}); `ray status` says how far it is"
    if any(there.get(name, 0) < count for name, count in names.items()):
        return "no node that is left has them: `ray start` one, or stop this and ask for less"
    return (
        f"other jobs{', or what keeps broken GPUs,' if there.get('GPU', 0) else ''} hold the rest:"
        " `ray status` and the dashboard's Actors page name them"
    )


def _fitting(resources: Mapping[str, int], to_come: Sequence[NodeType]) -> list[NodeType]:
    """The kinds of nodes that may have so much."""
    return [
        one
        for one in to_come
        if one.shape is None
        or (one.shape[0] >= resources["cpu"] and one.shape[1] >= resources["gpu"])
    ]
