"""A Ray cluster of several nodes on this machine, a store beside it, and what can befall them."""

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

import psutil
from s3fs import S3FileSystem

BUCKET = "s3://bucket"


class Nodes:
    """A head without resources, which drivers join, and nodes that can be lost and replaced.

    Args:
        count: of nodes beside the head.
        resources: of each, as `ray start` takes them.
    """

    def __init__(self, count: int, **resources: float) -> None:
        from ray._private.authentication import authentication_token_setup as tokens
        from ray.cluster_utils import Cluster

        tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)  # as `ray start`
        self._resources = resources
        self._cluster = Cluster()
        self._cluster.add_node(num_cpus=0, num_gpus=0, include_dashboard=False)
        self.address: str = self._cluster.address
        self.session = Path(self._cluster.head_node.get_session_dir_path())
        self.nodes = [self._started() for _ in range(count)]

    def _started(self) -> Any:
        return self._cluster.add_node(wait=False, include_dashboard=False, **self._resources)

    def replace(self, lost: Any) -> None:
        """Start a node in place of one that was lost."""
        self.nodes[self.nodes.index(lost)] = self._started()

    def kill_raylet(self, node: Any) -> None:
        """The node's own process dies; its workers notice and follow."""
        with suppress(psutil.NoSuchProcess):
            raylet_of(node).kill()

    def kill(self, node: Any) -> None:
        """All of the node's processes die at once, as of a machine that loses its power."""
        for worker in workers_of(node):
            with suppress(psutil.NoSuchProcess):
                worker.kill()
        self._cluster.remove_node(node, allow_graceful=False)

    def shutdown(self) -> None:
        """End all that is left."""
        self._cluster.shutdown()


def raylet_of(node: Any) -> psutil.Process:
    """The process that is the node to the rest of the cluster."""
    infos = node.all_processes.get("raylet")
    if not infos:
        raise psutil.NoSuchProcess(0, "raylet")
    return psutil.Process(infos[0].process.pid)


def workers_of(node: Any) -> list[psutil.Process]:
    """The processes that the node has started."""
    with suppress(psutil.NoSuchProcess):
        return raylet_of(node).children(recursive=True)
    return []


def trials(workers: list[psutil.Process]) -> list[psutil.Process]:
    """Those that are Tune trials, by the title that Ray gives them."""
    found = []
    for worker in workers:
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if worker.cmdline()[:1] and worker.cmdline()[0].startswith("ray::ImplicitFunc"):
                found.append(worker)
    return found


class Silence:
    """The node and its workers stand still for some seconds, as behind a cut cable."""

    def __init__(self, node: Any) -> None:
        self._halted = [*workers_of(node)]
        with suppress(psutil.NoSuchProcess):
            self._halted.insert(0, raylet_of(node))

    def __enter__(self) -> None:
        self._signal(signal.SIGSTOP)

    def __exit__(self, *_ended: object) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self._halted:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


class Store:
    """An S3-compatible store behind a proxy that counts its requests and can be cut."""

    def __init__(self) -> None:
        self._server, port = _moto()
        self._target = ("127.0.0.1", port)
        self._open = Event()
        self._open.set()
        self._lock = Lock()
        self._connections: set[socket.socket] = set()
        self.requests: dict[str, int] = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        host, at = self._listener.getsockname()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{host}:{at}",
            "AWS_ACCESS_KEY_ID": "benchmarks",
            "AWS_SECRET_ACCESS_KEY": "benchmarks",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Hang up on everybody, and on whoever comes."""
        self._open.clear()
        with self._lock:
            for connection in list(self._connections):
                _hang_up(connection)

    def mend(self) -> None:
        """Answer again."""
        self._open.set()

    def close(self) -> None:
        """End the store; what it held is gone."""
        _hang_up(self._listener)
        self._listener.close()
        self._server.kill()
        self._server.wait()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self._open.is_set():
                    Thread(target=self._connect, args=(client,), daemon=True).start()
                else:
                    _hang_up(client)
                    client.close()

    def _connect(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(self._target) as server:
            with self._lock:
                self._connections |= {client, server}
            answering = Thread(target=self._hand_on, args=(server, client), daemon=True)
            answering.start()
            self._hand_on(client, server, count=True)
            answering.join()
            with self._lock:
                self._connections -= {client, server}

    def _hand_on(self, source: socket.socket, target: socket.socket, count: bool = False) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                if count:
                    self._count(content)
                target.sendall(content)
        _hang_up(source)
        _hang_up(target)

    def _count(self, content: bytes) -> None:
        """Count what begins as a request does; botocore sends each head by itself."""
        verb = content[:8].partition(b" ")[0].decode("latin-1")
        if verb in {"GET", "PUT", "HEAD", "DELETE", "POST"}:
            with self._lock:
                self.requests[verb] = self.requests.get(verb, 0) + 1


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _moto() -> tuple[subprocess.Popen[bytes], int]:
    """A store in a process of its own, with one empty bucket; where it listens."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        "import logging, sys, threading\n"
        "from moto.server import ThreadedMotoServer\n"
        "logging.getLogger('werkzeug').setLevel(logging.ERROR)\n"
        "server = ThreadedMotoServer('127.0.0.1', int(sys.argv[1]), verbose=False)\n"
        "server.start()\n"
        "threading.Event().wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(port)])
    import boto3

    for _ in range(100):
        with suppress(Exception):
            boto3.client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{port}",
                aws_access_key_id="benchmarks",
                aws_secret_access_key="benchmarks",
                region_name="us-east-1",
            ).create_bucket(Bucket=BUCKET.removeprefix("s3://"))
            return process, port
        time.sleep(0.2)
    process.kill()
    raise RuntimeError("the store does not answer")


@contextmanager
def stored() -> Iterator[Store]:
    """A store that this process and those it starts from now on reach."""
    store = Store()
    os.environ.update(store.environment)
    try:
        yield store
    finally:
        store.close()
        S3FileSystem.clear_instance_cache()  # the next one listens elsewhere


def one_of(chance: random.Random, things: list[Any]) -> Any:
    """One of them, drawn; None of none."""
    return chance.choice(things) if things else None
