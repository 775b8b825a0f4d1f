"""Running the commands as a person does, and looking at what they left behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from ltray.cluster.session import SETTINGS
from ltray.files import read_json, sha256_of

HANGS = 1200.0  # seconds: what takes longer has stopped, on the slowest machine too


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        cpu_seconds: of itself and of the processes that it waited for.
    """

    status: int
    out: str
    err: str
    cpu_seconds: float


def start(command: str, *arguments: object, folder: Path) -> subprocess.Popen[str]:
    """Start `python -m ltray.<command>` in a process group of its own, as a terminal does."""
    # Tests that a script runs in its background ignore SIGINT, and would hand that on.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", f"ltray.{command}", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = HANGS) -> Outcome:
    """Wait for a command to end by itself."""
    before = _cpu_seconds()
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return Outcome(process.returncode, out, err, _cpu_seconds() - before)


def _cpu_seconds() -> float:
    """Of all processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command: str, *arguments: object, folder: Path) -> Outcome:
    """`python -m ltray.<command>` from start to end."""
    return finish(start(command, *arguments, folder=folder))


@contextmanager
def pretended_gpus(count: int, cpus: int = 2) -> Iterator[tuple[str, int]]:
    """A Ray cluster of its own with GPUs that are not there: its address, and its session."""
    code = (
        "import ray, sys\n"
        # Without an address Ray would join a cluster that another test has started.
        f"ray.init('local', num_cpus={cpus}, num_gpus={count},"
        " include_dashboard=False, log_to_driver=False)\n"
        "print(ray.get_runtime_context().gcs_address, flush=True)\n"
        "sys.stdin.read()"
    )
    cluster = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=SETTINGS | os.environ,
        start_new_session=True,
    )
    assert cluster.stdout is not None
    try:
        yield cluster.stdout.readline().strip(), cluster.pid
    finally:
        cluster.communicate()


@contextmanager
def local_cluster(*environments: dict[str, str], gpus: Sequence[int] = ()) -> Iterator[str]:
    """A Ray cluster of nodes with 2 CPUs each on this machine: its address.

    Args:
        environments: variables of each node's processes, the head's first.
        gpus: pretended GPUs of each node; none when empty.
    """
    code = (
        "import json, sys\n"
        "from ray._private.authentication import authentication_token_setup as tokens\n"
        "from ray.cluster_utils import Cluster\n"
        "tokens.maybe_enable_token_auth_if_token_available(warn_if_disabled=False)\n"
        "cluster = Cluster()\n"
        "for variables, gpus in json.loads(sys.argv[1]):\n"
        "    cluster.add_node(num_cpus=2, num_gpus=gpus, env_vars=variables,"
        " include_dashboard=False)\n"
        "cluster.wait_for_nodes()\n"
        "print(cluster.address, flush=True)\n"
        "sys.stdin.read()\n"
        "cluster.shutdown()"
    )
    nodes = list(zip(environments, gpus or [0] * len(environments), strict=True))
    cluster = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(nodes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert cluster.stdout is not None
    try:
        yield cluster.stdout.readline().strip()
    finally:
        cluster.communicate()


def write_experiment(path: Path, document: dict[str, Any]) -> Path:
    """An experiment file."""
    path.write_text(yaml.safe_dump(document))
    return path


def only_run(root: Path, name: str) -> Path:
    """The folder of the one run of an experiment's name."""
    (folder,) = root.glob(f"{name}-*")
    return folder


def rows(run_folder: Path) -> list[dict[str, Any]]:
    """The rows of tickets.parquet."""
    found: list[dict[str, Any]] = pq.read_table(run_folder / "tickets.parquet").to_pylist()
    return found


def final_bits(run_folder: Path) -> dict[str, str]:
    """Ticket folder -> sha256 of its trained weights."""
    weights = run_folder.glob("replicate-*/tickets/*/weights.safetensors")
    return {str(path.parent.relative_to(run_folder)): sha256_of(path) for path in weights}


def done_tickets(root: Path) -> list[Path]:
    """Every ticket.json below a root."""
    return sorted(root.glob("*/replicate-*/tickets/*/ticket.json"))


def attempts_in_training(root: Path) -> list[int]:
    """How often each ticket below a root that was begun and is not done has been begun."""
    noted = root.glob("*/replicate-*/tickets/*/attempts.json")
    undone = [path for path in noted if not path.with_name("ticket.json").exists()]
    return [begun for path in undone if (begun := read_json(path)["attempts"])]


def wait_until(
    condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = HANGS
) -> None:
    """Wait for a moment of a running command; its early end is a failure of the test."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "that moment never came"
        time.sleep(0.02)


def trial_workers(driver: int) -> list[int]:
    """Processes of a driver's session that are Tune trials, by the title that Ray gives them."""
    return [pid for pid, title in ray_workers(driver) if title.startswith("ray::ImplicitFunc")]


def halt_in_training(root: Path, process: subprocess.Popen[str], attempts: int = 1) -> list[int]:
    """Halt a driver's trial workers while one of them surely trains a ticket: their numbers.

    One in training when it is looked for may be done a moment later: what is to meet a training
    ticket, such as SIGKILL, is sent while its worker stands still.

    Args:
        root: where the ticket is.
        process: the driver.
        attempts: how often that ticket must have been begun, at least.
    """
    halted: list[int] = []

    def halts_in_training() -> bool:
        halted[:] = [pid for pid in trial_workers(process.pid) if _signalled(pid, signal.SIGSTOP)]
        for worker in halted:
            while not _is_halted(worker):  # what it was writing is written
                time.sleep(0.001)
        if halted and max(attempts_in_training(root), default=0) >= attempts:
            return True
        for worker in halted:
            _signalled(worker, signal.SIGCONT)
        return False

    wait_until(halts_in_training, process)
    return halted


def kill(processes: Iterable[int]) -> None:
    """End processes by SIGKILL, in their order."""
    for pid in processes:
        _signalled(pid, signal.SIGKILL)


def _signalled(pid: int, number: signal.Signals) -> bool:
    """Send a signal; False if the process has ended, as idle workers do."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _is_halted(pid: int) -> bool:
    """Whether no thread of a process runs, or it has ended."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return all(text.rpartition(")")[2].split()[0] in "TXZ" for text in threads)


def group_workers(driver: int) -> list[int]:
    """Processes of a driver's session that train one network together."""
    return [pid for pid, title in ray_workers(driver) if title.startswith("ray::RayTrainWorker")]


def ray_workers(driver: int) -> list[tuple[int, str]]:
    """Number and title of the processes of a driver's session that run its tasks and actors."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            title = (path / "cmdline").read_bytes().rstrip(b"\0").decode(errors="replace")
            belongs = int((path / "stat").read_text().rpartition(")")[2].split()[3])
        except (FileNotFoundError, ProcessLookupError):
            continue
        if title.startswith("ray::") and "Agent" not in title and belongs == driver:
            found.append((int(path.name), title))
    return found
