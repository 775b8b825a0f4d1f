"""One Ray session for a command: what it is started with, what the cluster has."""

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ltray.cluster.autoscaling import NodeType, node_types, told
from ltray.errors import LtrayError
from ltray.experiment import Sweep
from ltray.say import Say

# Ray reads these when it is imported, or when its first process starts.
SETTINGS = {
    # Under `uv run` Ray would upload the working folder, runs included, and build a second
    # environment on every node.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing of a run is told to anyone
    # ray.init waits for the processes that it starts in advance, and for ever if one is killed.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's banners go; our own lines say how far it is
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # leave CUDA_VISIBLE_DEVICES alone without GPUs
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C reaches us, who write the tables
    "TUNE_GLOBAL_CHECKPOINT_S": "60",  # how often TensorBoard files reach the run's folder
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


NODES_COME_SECONDS = 180.0
ANSWER_SECONDS = 10.0


@dataclass(frozen=True)
class Connection:
    """How a command comes to its cluster.

    Attributes:
        address: host:port of a running one, or auto; None starts Ray on this machine.
        ship_code: send this process's ltray to the workers, in place of the one that they have.
    """

    address: str | None = None
    ship_code: bool = False


@dataclass(frozen=True)
class Cluster:
    """What Ray says it has.

    Attributes:
        nodes: CPUs and GPUs of each.
        joined: whether it was there before; one that was started for this session is this machine.
        asks_token: whether the dashboard shows itself only to who has the cluster's token.
        to_come: the kinds of nodes that an autoscaler may add.
    """

    nodes: tuple[tuple[int, int], ...]
    gpu_names: tuple[str, ...]
    dashboard: str
    joined: bool
    asks_token: bool = False
    to_come: tuple[NodeType, ...] = ()

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
    def cpus_per_gpu(self) -> int:
        """On the GPU node that has fewest, or will have; 0 without GPUs."""
        return min((cpus // gpus for cpus, gpus in self.shapes if gpus), default=0)


@contextmanager
def session(connection: Connection, job_name: str = "ltray") -> Iterator[Cluster]:
    """Join the cluster at the address, or start one on this machine; leave it at the end.

    A session that the process has already, a notebook's for instance, is used and left alone.

    Args:
        job_name: by which a person finds it among the dashboard's jobs.

    Raises:
        LtrayError: there is no cluster at the address.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    address = connection.address
    import ray

    if ray.is_initialized():
        context = ray.init(ignore_reinit_error=True, logging_level="ERROR")
        yield _cluster(context.dashboard_url or "", joined=True)
        return
    if address not in (None, "auto"):
        _check_answers(str(address))
    if address is not None:
        _send_token_if_asked(address)
    shipped = {"py_modules": [str(Path(__file__).parents[1])]} if connection.ship_code else None
    try:
        context = ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=shipped,
            job_config=ray.job_config.JobConfig(metadata={"job_name": job_name}),
        )
    except ConnectionError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise _no_cluster(str(address), reason) from None
    in_main = threading.current_thread() is threading.main_thread()
    # By SIGTERM job managers and services stop.
    before = signal.signal(signal.SIGTERM, _interrupt) if in_main else None
    try:
        yield _cluster(context.dashboard_url or "", joined=address is not None)
    finally:
        ray.shutdown()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: object) -> None:
    """End as by Ctrl-C; Ray's own handler would leave at once."""
    raise KeyboardInterrupt


def _send_token_if_asked(address: str) -> None:
    """Have this process show the token that it has to a cluster that asks for one.

    Who joins a cluster sends none by itself. Sent to one that was started without, it would do
    harm: this process would then ask its workers for it. An environment variable would do only
    before Ray is imported, which a notebook may have.
    """
    from ray._private import services
    from ray._private.authentication import authentication_token_setup as tokens

    try:
        host_and_port = services.canonicalize_bootstrap_address(address)
    except ConnectionError:
        return  # ray.init says so
    if host_and_port and _asks_for_token(host_and_port):
        logging.getLogger(tokens.__name__).setLevel(logging.ERROR)  # it warns that all is well
        tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)


def _asks_for_token(host_and_port: str) -> bool:
    """Whether the head refuses who has none; yes where it does not understand the question."""
    import grpc
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    with grpc.insecure_channel(host_and_port) as channel:
        stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
        try:
            stub.GetClusterId(gcs_service_pb2.GetClusterIdRequest(), timeout=ANSWER_SECONDS)
        except grpc.RpcError as error:
            silent = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
            return error.code() not in silent
    return False


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes to reach an address where nobody listens."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise _no_cluster(address, "not of the form host:port")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


def _no_cluster(address: str, reason: str) -> LtrayError:
    mend = "start one with `ray start --head` and name its host:port, or leave --address out"
    return LtrayError("--address", f"no Ray cluster at {address}: {reason}", mend)


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
    there_now = sum(min(node[0] // cpus, node[1]) for node in cluster.nodes)
    to_come = sum(
        one.at_most * min(one.shape[0] // cpus, one.shape[1])
        for one in cluster.to_come
        if one.shape
    )
    processes = max(there_now, to_come)
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


def _cluster(dashboard: str, joined: bool) -> Cluster:
    import ray

    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
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
        cluster = _cluster(cluster.dashboard, cluster.joined)
    return cluster


def _may_get_gpus(cluster: Cluster) -> bool:
    """Whether it shows no GPU, while nodes may come that do not tell beforehand."""
    unknown = any(one.shape is None for one in cluster.to_come)
    return unknown and not any(gpus for _, gpus in cluster.shapes)
