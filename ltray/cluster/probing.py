"""Trying an experiment's training on a cluster, on as many workers at a time as share a machine."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from ltray.cluster.resources import Cluster, awaited, processes_on, trial_resources
from ltray.cluster.session import Connection, session
from ltray.data.expected import ExpectedImages
from ltray.errors import LtrayError, StageFailed
from ltray.experiment import Experiment
from ltray.own_code import OwnCode
from ltray.say import Say
from ltray.training.probe import Probe

if TYPE_CHECKING:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

Found = TypeVar("Found")

MOST_AT_ONCE = 8
ROOM_SECONDS = 10.0  # for which nothing is said of waiting
# For starts and tries: with the command's imports before and what it prints after, a minute.
MOST_SECONDS = 52.0


@dataclass(frozen=True)
class Tried:
    """What was found.

    Attributes:
        beside: probes that ran at the same time on one machine.
        alone: those that ran alone, one after the other; none where that would have taken too long.
        workers: how many trials the cluster runs at a time.
        apart: how many of them can have a machine each.
        ray_seconds: until the session was there.
        process_seconds: until each of the workers was.
    """

    beside: list[Probe]
    alone: list[Probe]
    workers: int
    apart: int
    ray_seconds: float
    process_seconds: list[float]


def try_out(
    experiment: Experiment,
    images: ExpectedImages,
    network: OwnCode | None,
    connection: Connection,
    say: Say,
) -> Tried:
    """Try it for a few seconds, as trials of a sweep would train it.

    Raises:
        LtrayError: no node has what a trial needs, or the network cannot be trained there.
        StageFailed: a worker was lost.
    """
    started = time.perf_counter()
    with session(connection, f"plan {experiment.name}") as found:
        ray_seconds = time.perf_counter() - started
        cluster = awaited(found, say) if found.joined else found
        sweep = experiment.sweep
        resources = trial_resources(sweep, cluster, sweep.gpus_per_trial)
        workers, apart = _slots(cluster, resources)
        at_once = min(MOST_AT_ONCE, cluster.most_on_a_node(resources["cpu"], resources["gpu"]))
        say(f"trying {experiment.model.arch} for a few seconds on {at_once} of {workers} workers")
        with _room(at_once, resources, say) as room:
            call = partial(_on_workers, room=room, resources=resources)
            there = time.perf_counter()
            submitted = time.time()
            # By the clocks of two machines, which may differ a little.
            process_seconds = [max(0.1, at - submitted) for at in call(_ready_at, at_once)]
            probe = partial(_probe, experiment, images, network, resources["gpu"], resources["cpu"])
            began = time.perf_counter()
            beside = call(probe, at_once)
            alone = beside if at_once == 1 else []
            if is_time_for_another(ray_seconds + began - there, time.perf_counter() - began):
                say(f"trying it once more{' on one worker alone' if at_once > 1 else ''}")
                alone = alone + call(probe, 1)
    return Tried(beside, alone, workers, apart, ray_seconds, process_seconds)


def is_time_for_another(starts: float, first: float) -> bool:
    """Whether a second try, as long as the first, would end soon enough.

    Args:
        starts: seconds until there was a session, and until its workers were ready.
        first: that the first try took.
    """
    return starts + 2 * first < MOST_SECONDS


def _slots(cluster: Cluster, resources: Mapping[str, int]) -> tuple[int, int]:
    """How many trials run at a time, and on how many nodes."""
    each = resources["cpu"], resources["gpu"]
    nodes = sum(processes_on(node, *each) > 0 for node in cluster.nodes)
    return max(1, cluster.room(*each)), max(1, nodes)


@contextmanager
def _room(
    at_once: int, resources: Mapping[str, int], say: Say
) -> "Iterator[PlacementGroupSchedulingStrategy]":
    """A place for so many trials on one node, held until the end."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    bundle = {"CPU": resources["cpu"]} | ({"GPU": resources["gpu"]} if resources["gpu"] else {})
    group = placement_group([bundle] * at_once, strategy="STRICT_PACK")
    try:
        if not group.wait(ROOM_SECONDS):
            say("waiting for room: others use the cluster, or its nodes are still to come")
            ray.get(group.ready())
        yield PlacementGroupSchedulingStrategy(placement_group=group)
    finally:
        remove_placement_group(group)


def _on_workers(
    work: Callable[[], Found],
    at_once: int,
    room: "PlacementGroupSchedulingStrategy",
    resources: Mapping[str, int],
) -> list[Found]:
    """What so many workers give at the same time; processes that are there are used again."""
    import ray
    from ray.exceptions import RayError

    call = ray.remote(_call).options(
        num_cpus=resources["cpu"],
        num_gpus=resources["gpu"],
        scheduling_strategy=room,
        max_retries=1,
    )
    try:
        found: list[Found] = ray.get([call.remote(work) for _ in range(at_once)])
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, LtrayError):
            raise cause from None
        reason = str(error).strip().splitlines()[-1]
        raise StageFailed("plan", reason, "mend that and give the same command again") from error
    return found


def _call(work: Callable[[], Found]) -> Found:
    return work()


def _ready_at() -> float:
    """Seconds since 1970 when this process has imported all that training needs."""
    import ltray.training.probe  # noqa: F401 (for what it takes)

    return time.time()


def _probe(
    experiment: Experiment,
    images: ExpectedImages,
    network: OwnCode | None,
    gpus: int,
    cpus: int,
) -> Probe:
    from ltray.training.place import this_place
    from ltray.training.probe import probe

    return probe(experiment, images, network, this_place(gpus, cpus))
