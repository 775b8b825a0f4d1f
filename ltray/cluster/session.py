"""One Ray session for a command: what it is started with, and how it comes to its cluster."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ltray.cluster.resources import Cluster, cluster_of
from ltray.errors import LtrayError

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

    _keep_uv_out()
    if ray.is_initialized():
        context = ray.init(ignore_reinit_error=True, logging_level="ERROR")
        yield cluster_of(context.dashboard_url or "", joined=True)
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
        yield cluster_of(context.dashboard_url or "", joined=address is not None)
    finally:
        ray.shutdown()
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _interrupt(_signal: int, _frame: object) -> None:
    """End as by Ctrl-C; Ray's own handler would leave at once."""
    raise KeyboardInterrupt


def _keep_uv_out() -> None:
    """Have the setting count in a process, such as a notebook's, that imported Ray before.

    Ray reads it on import, and under `uv run` would build workers 7 GB of environment each session.
    """
    from ray._private import ray_constants

    name = "RAY_ENABLE_UV_RUN_RUNTIME_ENV"
    ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV = ray_constants.env_bool(name, default=False)


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
