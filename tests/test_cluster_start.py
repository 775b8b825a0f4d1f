"""Ray as cluster-onprem.yaml and cluster-slurm.sh start it, here."""

import json
import os
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from cluster_files import ROOT, read, start_commands
from commands import only_run, rows, wait_until
from conftest import small_document

BIN = Path(sys.executable).parent
TEMPORARY = Path("/tmp") / f"ltray-{os.getpid()}"  # sockets' paths must be short
HEARD_FROM_OTHER_NODES = (
    "port",
    "object-manager-port",
    "node-manager-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "metrics-export-port",
)
LOOPBACK = ("127.0.0.1", "::1", "::ffff:127.0.0.1")


def free_port() -> int:
    """One that the system does not give to anybody by itself meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with suppress(OSError), socket.create_server(("", port)):
            return port


def with_free_ports(command: str) -> str:
    """A start command with other ports, since those of the file may be taken here."""
    ports = r"(--(?!min-worker|max-worker)[a-z-]*port)=\d+"
    return re.sub(ports, lambda found: f"{found[1]}={free_port()}", command)


def option(command: str, name: str) -> str:
    (found,) = re.findall(rf" --{name}=(\S+)", command)
    return str(found)


def status_of(url: str, token: str | None) -> int:
    request = urllib.request.Request(url)
    if token is not None:
        request.add_header("Authorization", f"Bearer {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def processes_of(folder: Path) -> list[psutil.Process]:
    """Those of a Ray whose temporary folder it is, and those that they started."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if any(str(folder) in part for part in process.cmdline()):
                found |= {process, *process.children(recursive=True)}
    return [process for process in found if process.pid != os.getpid()]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder with a token and the file that `ray up` puts on the head."""
    from ray.autoscaler._private.util import prepare_config

    folder = tmp_path_factory.mktemp("home")
    config = read("cluster-onprem.yaml")
    config["provider"].update(head_ip="127.0.0.1", worker_ips=[])
    config["file_mounts"] = {}
    (folder / "ray_bootstrap_config.yaml").write_text(json.dumps(prepare_config(config)))
    (folder / ".ray").mkdir()
    (folder / ".ray" / "auth_token").write_text("1" * 64)
    return folder


@pytest.fixture(scope="module")
def head(home: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A head as cluster-onprem.yaml starts it: the command, and the environment that it got."""
    (command,) = [one for one in start_commands(read("cluster-onprem.yaml")) if "--head" in one]
    command = with_free_ports(command)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(home),
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "RAY_enable_autoscaler_v2": "1",  # as `ray up` sets
        "RAY_NUM_REDIS_GET_RETRIES": "3",  # strangers give up sooner
    }
    try:
        subprocess.run(
            ["bash", "-c", f"{command} --num-cpus=1 --temp-dir={TEMPORARY}"],
            env=environment,
            check=True,
            capture_output=True,
        )
        yield command, environment
    finally:
        for process in processes_of(TEMPORARY):
            process.kill()
        shutil.rmtree(TEMPORARY, ignore_errors=True)


@pytest.mark.ray
def test_a_stranger_without_the_token_gets_401_and_cannot_join(
    head: tuple[str, dict[str, str]], home: Path
) -> None:
    command, environment = head
    dashboard = f"http://127.0.0.1:{option(command, 'dashboard-port')}"
    for path in ("/api/version", "/api/jobs/", "/api/cluster_status"):
        assert status_of(dashboard + path, None) == 401
        assert status_of(dashboard + path, "2" * 64) == 403
        assert status_of(dashboard + path, "1" * 64) == 200
    join = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); print(len(ray.nodes()))"
    address = f"{_own_address()}:{option(command, 'port')}"
    stranger = {**environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "2" * 64}
    waiting = [
        subprocess.Popen(started, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for started, variables in (
            ([sys.executable, "-c", join, address], stranger),
            ([sys.executable, "-c", join, address], {**environment, "RAY_AUTH_MODE": "disabled"}),
            ([str(BIN / "ray"), "start", f"--address={address}"], stranger),
        )
    ]
    known = {**environment, "RAY_AUTH_MODE": "token"}
    joined = subprocess.run(
        [sys.executable, "-c", join, address], check=False, env=known, capture_output=True
    )
    assert joined.stdout == b"1\n", joined.stderr
    for process in waiting:
        out, err = process.communicate(timeout=100)
        assert process.returncode != 0, out
        assert b"InvalidAuthToken" in err


@pytest.mark.ray
def test_a_firewall_knows_every_port_that_is_listened_on(head: tuple[str, dict[str, str]]) -> None:
    from ray.autoscaler._private.constants import AUTOSCALER_METRIC_PORT
    from ray.dashboard.consts import DASHBOARD_METRIC_PORT

    command, _ = head
    written = {int(port) for port in re.findall(r"port=(\d+)", command)}
    written |= {AUTOSCALER_METRIC_PORT, DASHBOARD_METRIC_PORT}
    inside = {int(option(command, name)) for name in HEARD_FROM_OTHER_NODES}
    until = time.monotonic() + 60
    while not inside <= listened_on(TEMPORARY) and time.monotonic() < until:
        time.sleep(0.5)  # the agents start last
    heard = listened_on(TEMPORARY)
    assert inside <= heard
    workers = range(*(int(option(command, f"{end}-worker-port")) for end in ("min", "max")))
    assert {port for port in heard - written if port not in workers} == set()
    assert int(option(command, "dashboard-port")) not in heard
    text = (ROOT / "cluster-onprem.yaml").read_text()
    assert f"{AUTOSCALER_METRIC_PORT} and {DASHBOARD_METRIC_PORT}" in text


def listened_on(folder: Path) -> set[int]:
    """Ports that another machine could reach."""
    found = set()
    for process in processes_of(folder):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            found |= {
                one.laddr.port
                for one in process.net_connections("tcp")
                if one.status == psutil.CONN_LISTEN and one.laddr.ip not in LOOPBACK
            }
    return found


def _own_address() -> str:
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


SRUN = """#!/bin/bash
# This machine is every node: each task is started here.
tasks=1
while [[ $1 == --* ]]; do
  [[ $1 == --ntasks=* ]] && tasks=${1#*=}
  shift
done
trap 'kill -TERM $(jobs -p)' TERM
for ((task = 0; task < tasks; task++)); do SLURM_PROCID=$task "$@" & done
while [[ -n $(jobs -pr) ]]; do wait; done
"""
SCONTROL = '#!/bin/bash\necho "$@" >> scontrol.log\n'


@pytest.fixture
def allocation(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a job on two nodes with imitations of Slurm's commands, in tmp_path."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = str(10_000_000 + os.getpid())
    yield {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(tmp_path),
        "PATH": f"{tmp_path}:{BIN}:{os.environ['PATH']}",
        "SLURM_JOB_ID": job,
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
        "SLURM_GPUS_ON_NODE": "1",
    }
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("SLURM_JOB_ID") == job:
                process.kill()


def submit(folder: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    (folder / "small.yaml").write_text(yaml.safe_dump(small_document({})))
    with (folder / "job.log").open("a") as log:
        return subprocess.Popen(
            ["bash", ROOT / "cluster-slurm.sh", "small.yaml"],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            text=True,
            start_new_session=True,
        )


def nothing_is_left(environment: dict[str, str]) -> None:
    temporary = Path(f"/tmp/ray-{environment['SLURM_JOB_ID']}")
    assert not temporary.exists()
    until = time.monotonic() + 20
    while processes_of(temporary) and time.monotonic() < until:
        time.sleep(0.5)
    assert not processes_of(temporary)


@pytest.mark.ray
@pytest.mark.slow
def test_a_slurm_job_sweeps_on_all_its_nodes_and_leaves_nothing_behind(
    tmp_path: Path, allocation: dict[str, str]
) -> None:
    job = submit(tmp_path, allocation)
    assert job.wait(600) == 0, (tmp_path / "job.log").read_text()
    said = (tmp_path / "job.log").read_text()
    assert "2 CPUs and 2 GPUs on 2 nodes" in said
    assert [row["status"] for row in rows(only_run(tmp_path / "runs", "small"))] == ["done"] * 6
    token = tmp_path / ".ray" / "auth_token"
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    assert token.read_text() not in said
    assert not (tmp_path / "scontrol.log").exists()
    nothing_is_left(allocation)


@pytest.mark.ray
@pytest.mark.slow
def test_a_slurm_job_whose_time_is_up_goes_back_to_the_queue_and_on_from_there(
    tmp_path: Path, allocation: dict[str, str]
) -> None:
    job = submit(tmp_path, allocation)
    wait_until(lambda: "prepared" in (tmp_path / "job.log").read_text(), job)
    os.kill(job.pid, signal.SIGTERM)
    assert job.wait(120) == 130, (tmp_path / "job.log").read_text()
    assert "interrupted: the same command goes on from here" in (tmp_path / "job.log").read_text()
    assert (tmp_path / "scontrol.log").read_text() == f"requeue {allocation['SLURM_JOB_ID']}\n"
    nothing_is_left(allocation)
    again = submit(tmp_path, allocation)
    assert again.wait(600) == 0, (tmp_path / "job.log").read_text()
    assert [row["status"] for row in rows(only_run(tmp_path / "runs", "small"))] == ["done"] * 6
    nothing_is_left(allocation)
