"""`ray up`, a sweep, `ray down` on three hosts over ssh that share no disk, only a store."""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from commands import Outcome, write_experiment
from hosts import Host, Rack, missing, processes_in, rack
from paced import paced_experiment
from placement import devices, most_at_once, overlaps

if TYPE_CHECKING:
    from pandas import DataFrame

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "all is there")

CHECKOUT = Path(__file__).parents[1]
GPUS = 2  # of each host, pretended
STORE = "http://10.77.0.1:5000"
RUNS = "s3://bucket/runs"
AT_REST_SECONDS = 60.0  # a worker's Ray ends when it has not seen its head for a while

# What follows runs on the laptop or on the head.
MAKE_BUCKET = "import boto3; boto3.client('s3').create_bucket(Bucket='bucket')"
WAIT_FOR_GPUS = f"""
import ray, time
ray.init("auto", log_to_driver=False)
until = time.monotonic() + 120
while ray.cluster_resources().get("GPU", 0) < {3 * GPUS} and time.monotonic() < until:
    time.sleep(0.2)
print(ray.cluster_resources()["GPU"], "GPUs")
"""
FETCH_TABLE = f"""
from pathlib import Path
from ltray.files import at
(table,) = at("{RUNS}", "").glob("paced-*/tickets.parquet")
Path("tickets.parquet").write_bytes(table.read_bytes())
print(table.parent)
"""


def cluster_document(hosts: Rack, mounts: dict[str, str]) -> dict[str, Any]:
    """cluster-onprem.yaml as a person fills it in, on hosts that have everything installed.

    Args:
        mounts: further files, as on every host -> as on the laptop.
    """
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "cluster-onprem.yaml").read_text())
    head, *workers = [host.address for host in hosts.hosts]
    document["provider"].update(head_ip=head, worker_ips=workers)
    document["auth"] = {"ssh_user": "root", "ssh_private_key": str(hosts.key)}
    document["file_mounts"] = {"~/.ray/auth_token": "~/token", **mounts}
    document["setup_commands"] = []  # they download
    here = f"--num-cpus={GPUS} --num-gpus={GPUS} --object-store-memory=100000000"
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        document[commands] = [
            # Sooner than after a minute a worker believes that its head is gone.
            command.replace("export ", "export RAY_gcs_rpc_server_reconnect_timeout_s=10 ", 1)
            .replace("ray start --head", f"ray start --head {here}")
            .replace("ray start --address", f"ray start {here} --address")
            for command in document[commands]
        ]
    return document


@dataclass(frozen=True)
class Swept:
    """What came of it.

    Attributes:
        ended: what each step said and how it ended.
        rows: of tickets.parquet, as read from the store by the laptop.
        left: host -> what still runs there after `ray down`.
        refused: what the refused sweep has left in its root, on the head.
    """

    hosts: list[Host]
    ended: dict[str, Outcome]
    rows: "DataFrame"
    left: dict[str, dict[int, str]]
    refused: list[str]


@contextmanager
def store(laptop: Host) -> Iterator[None]:
    """An S3-compatible server on the laptop with an empty bucket."""
    host, _, port = STORE.removeprefix("http://").partition(":")
    # Into a file: it tells of every request, and would stop at a pipe that nobody reads.
    server = laptop.start("sh", "-c", f"exec moto_server -H {host} -p {port} > store.log 2>&1")
    try:
        made = laptop.run(sys.executable, "-c", MAKE_BUCKET)
        assert made.status == 0, made
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swept]:
    import pandas as pd

    variables = {
        "AWS_ENDPOINT_URL": STORE,
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with rack(tmp_path_factory.mktemp("rack"), 3, variables) as hosts, store(hosts.laptop):
        laptop, head = hosts.laptop, hosts.hosts[0]
        _write_files(hosts)
        ended = {"up": laptop.run("ray", "up", "-y", "cluster.yaml")}

        def on_head(command: str) -> Outcome:
            return laptop.run("ray", "exec", "cluster.yaml", f"{command}; echo status $?")

        sweep = "python -m ltray.sweep paced.yaml --address auto --root"
        ended["joined"] = on_head(f"python -c '{WAIT_FOR_GPUS}'")
        ended["refused"] = on_head(f"{sweep} runs")
        refused = sorted(path.name for path in (head.home / "runs").glob("*/*"))
        ended["sweep"] = on_head(f"{sweep} {RUNS}")
        ended["down"] = laptop.run("ray", "down", "-y", "cluster.yaml")
        left = {host.name: host.left_after(AT_REST_SECONDS) for host in hosts.hosts}
        ended["table"] = laptop.run(sys.executable, "-c", FETCH_TABLE)
        run = ended["table"].out.strip()
        ended["status"] = laptop.run(sys.executable, "-m", "ltray.sweep", run, "--status")
        rows = pd.read_parquet(laptop.home / "tickets.parquet")
        yield Swept(hosts.hosts, ended, rows, left, refused)


def _write_files(hosts: Rack) -> None:
    home = hosts.laptop.home
    document = paced_experiment(
        home,
        devices=3 * GPUS,
        meeting="s3://bucket/meeting",
        prune__sparsities=[number / 20 for number in range(1, 11)],
        reset__epochs=[0, 1],
        sweep__tickets_per_trial=2,
    )
    write_experiment(home / "paced.yaml", document)
    mounts = {f"~/{name}": f"~/{name}" for name in ("paced.yaml", "paced.py")}
    (home / "cluster.yaml").write_text(yaml.safe_dump(cluster_document(hosts, mounts)))
    (home / "token").write_text(secrets.token_hex(32))
    (home / "token").chmod(0o600)


@pytest.mark.ray
def test_ray_up_joins_every_host(swept: Swept) -> None:
    assert swept.ended["up"].status == 0, swept.ended["up"]
    assert f"{3 * GPUS}.0 GPUs" in swept.ended["joined"].out
    token = swept.hosts[2].home / ".ray/auth_token"
    assert token.stat().st_mode & 0o777 == 0o600


@pytest.mark.ray
def test_a_sweep_of_20_tickets_ends_well_on_hosts_that_share_only_a_store(swept: Swept) -> None:
    assert "status 0" in swept.ended["sweep"].out, swept.ended["sweep"]
    assert swept.rows["status"].tolist() == ["done"] * 20
    assert swept.rows["ticket"].nunique() == 20
    assert set(swept.rows["node"]) == {host.address for host in swept.hosts}


@pytest.mark.ray
def test_no_device_of_any_host_is_shared_and_none_is_idle_while_packs_are_ready(
    swept: Swept,
) -> None:
    assert overlaps(swept.rows) == []
    every = {(host.address, str(number)) for host in swept.hosts for number in range(GPUS)}
    assert devices(swept.rows) == every
    assert most_at_once(swept.rows) == len(every)


@pytest.mark.ray
def test_a_root_on_the_heads_own_disk_is_refused_before_the_first_trial(swept: Swept) -> None:
    refused = swept.ended["refused"]
    assert "status 2" in refused.out, refused
    for host in swept.hosts[1:]:
        assert f"{host.address}: does not see the driver's files in " in refused.out
    assert swept.refused, "it has not even begun"
    assert not [name for name in swept.refused if name.startswith("replicate-")]


@pytest.mark.ray
def test_status_is_told_by_a_machine_that_sees_nothing_but_the_store(swept: Swept) -> None:
    told = swept.ended["status"]
    assert told.status == 0, told
    assert "20 tickets: 20 done, 0 diverged, 0 failed, 0 to train" in told.out
    assert "no driver is at work" in told.out


@pytest.mark.ray
def test_ray_down_leaves_no_process_on_any_host(swept: Swept) -> None:
    assert swept.ended["down"].status == 0, swept.ended["down"]
    assert swept.left == {host.name: {} for host in swept.hosts}


def of_this_machine() -> list[str]:
    """Its network's interfaces, its named namespaces, and its mounts."""
    seen = [["ip", "-o", "link"], ["ip", "netns"], ["cat", "/proc/self/mounts"]]
    return [subprocess.run(one, capture_output=True, check=True).stdout.decode() for one in seen]


def test_hosts_reach_each_other_and_have_their_own_name_network_processes_and_disks(
    tmp_path: Path,
) -> None:
    with rack(tmp_path, count=2) as hosts:
        one, other = hosts.hosts
        (one.folder / "tmp/mine").touch()
        ask = "hostname; ip -4 -o address show eth0; ls /tmp/mine ~/mine; ps -e | grep -c cat; echo"
        told = hosts.laptop.run(
            *("ssh", "-i", hosts.key, "-o", "StrictHostKeyChecking=no"),
            *(f"root@{other.address}", ask),
        )
        assert told.out.startswith("rack-2\n")
        assert other.address in told.out
        assert "mine" not in told.out
        assert told.out.endswith("\n1\n\n"), told  # its own, and not that of the others
        without_key = hosts.laptop.run(
            *("ssh", "-o", "StrictHostKeyChecking=no", "-o", "BatchMode=yes"),
            *(f"root@{other.address}", "true"),
        )
        assert "Permission denied" in without_key.err


def test_nothing_of_the_hosts_is_left_when_the_block_fails(tmp_path: Path) -> None:
    before = of_this_machine()
    namespaces = []
    with pytest.raises(KeyboardInterrupt), rack(tmp_path, count=2) as hosts:  # noqa: PT012
        for host in (hosts.laptop, *hosts.hosts):
            host.run("sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 &")
            assert len(host.working()) == 1
            namespaces.append(host.processes)
        raise KeyboardInterrupt
    assert [processes_in(one) for one in namespaces] == [{}] * 3
    assert of_this_machine() == before


def test_hosts_end_with_the_process_that_made_them(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from hosts import rack\n"
        "with rack(Path(sys.argv[1]), count=1) as hosts:\n"
        "    print(hosts.laptop.processes, hosts.hosts[0].processes, flush=True)\n"
        "    time.sleep(1000)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    namespaces = owner.stdout.readline().split()
    there = [processes_in(one) for one in namespaces]
    assert all(there), there
    owner.kill()
    owner.communicate()
    until = time.monotonic() + 30
    while any(processes_in(one) for one in namespaces):
        assert time.monotonic() < until, [processes_in(one) for one in namespaces]
        time.sleep(0.05)
