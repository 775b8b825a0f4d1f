"""The cluster files say nothing that nobody reads, and a slip of the pen is refused by name."""

import copy
import os
import re
import shlex
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from cluster_files import (
    ROOT,
    all_commands,
    manifest_problems,
    problems,
    provider_keys,
    put,
    read,
    read_manifests,
    start_commands,
    start_options,
)

BIN = Path(sys.executable).parent
LAUNCHED = ["cluster.yaml", "cluster-onprem.yaml"]
GPU_KINDS = ["gpu_spot", "gpu_on_demand"]
HEAD, SPOT, ON_DEMAND = (
    f"available_node_types.{kind}.node_config" for kind in ("head", *GPU_KINDS)
)
POD = "spec.workerGroupSpecs.0.template.spec"


def test_files_for_ray_up_have_nothing_that_nobody_reads() -> None:
    assert problems(read("cluster.yaml")) == []
    rack = read("cluster-onprem.yaml")
    rack["provider"]["head_ip"] = "node-1"
    rack["auth"]["ssh_user"] = "me"
    assert problems(rack) == []


@pytest.mark.parametrize("place", ["provider.head_ip", "auth.ssh_user"])
def test_a_rack_that_is_not_filled_in_is_refused_at_once(place: str) -> None:
    rack = read("cluster-onprem.yaml")
    for one in {"provider.head_ip", "auth.ssh_user"} - {place}:
        put(rack, one, "filled in")
    (problem,) = problems(rack)
    assert problem.startswith(f"{place}: None is not of type 'string'")


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        ("cache_stopped_nodes", False, "cache_stopped_nodes"),
        ("idle_timeout_minute", 15, "idle_timeout_minute"),
        ("idle_timeout_minutes", "15", "idle_timeout_minutes"),
        ("max_workers", -1, "max_workers"),
        ("head_node_type", "haed", "head_node_type"),
        ("provider.cache_stoped_nodes", False, "cache_stoped_nodes"),
        ("provider.cache_stopped_nodes", "no", "cache_stopped_nodes"),
        ("provider.availability_zones", "us-west-2a", "availability_zones"),
        ("provider.worker_ips", [], "worker_ips"),
        ("provider.security_group.IpPermission", [], "IpPermission"),
        ("auth.ssh_usr", "ubuntu", "ssh_usr"),
        ("available_node_types.gpu_spot.min_worker", 0, "min_worker"),
        ("available_node_types.gpu_spot.priority", "1", "priority"),
        (f"{HEAD}.InstanceTyp", "m6i.2xlarge", "InstanceTyp"),
        (f"{HEAD}.InstanceType", "m6i.2xlrge", "m6i.2xlrge"),
        (f"{HEAD}.IamInstanceProfile.Nam", "x", "Nam"),
        (f"{SPOT}.InstanceMarketOptions.SpotOption", {}, "SpotOption"),
        (f"{SPOT}.InstanceMarketOptions.MarketType", "sopt", "sopt"),
        (
            f"{SPOT}.InstanceMarketOptions.SpotOptions.SpotInstanceType",
            "once",
            "once",
        ),
        (f"{ON_DEMAND}.MetadataOptions.HttpToken", "required", "HttpToken"),
        (f"{ON_DEMAND}.BlockDeviceMappings.0.Ebs.VolumeSise", 9, "VolumeSise"),
        (f"{ON_DEMAND}.BlockDeviceMappings.0.Ebs.VolumeSize", "9", "VolumeSize"),
        (f"{ON_DEMAND}.ImageId", 7, "ImageId"),
        ("head_start_ray_commands", ["ray start --dashbord-host=::"], "dashbord-host"),
        ("worker_start_ray_commands", ["ray start --metrics-export-port=many"], "many"),
    ],
)  # fmt: skip
def test_a_slip_of_the_pen_is_refused_by_name(place: str, value: Any, named: str) -> None:
    config = copy.deepcopy(read("cluster.yaml"))
    put(config, place, value)
    found = problems(config)
    assert found
    assert any(named in problem for problem in found), found


def test_provider_keys_are_read_from_rays_own_source() -> None:
    assert {
        "region",
        "cache_stopped_nodes",
        "security_group",
        "availability_zone",
    } <= provider_keys("aws")
    assert {"head_ip", "worker_ips"} <= provider_keys("local")
    assert not {"head_ip", "worker_ips", "project_id"} & provider_keys("aws")


def test_places_to_fill_in_are_few_and_named_at_the_top() -> None:
    for name, places in (
        ("cluster.yaml", 2),
        ("cluster-onprem.yaml", 4),
        ("cluster-kuberay.yaml", 2),
    ):
        lines = (ROOT / name).read_text().splitlines()
        body = [line for line in lines if not line.startswith("#")]
        assert len(re.findall(r"FILL.IN.\w+", "\n".join(body))) == places, name
        assert any("To fill in" in line for line in lines[:12]), name


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_wheel_is_this_version_by_name(name: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    wheel = f"ltray-{version}-py3-none-any.whl"
    config = read(name)
    assert config["file_mounts"][f"~/wheels/{wheel}"] == f"dist/{wheel}"
    assert any(f"wheels/{wheel}" in command for command in config["setup_commands"])
    assert any("-c ~/wheels/constraints.txt" in command for command in config["setup_commands"])
    assert wheel in (ROOT / "docs" / "cluster.md").read_text()


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_node_starts_with_the_token_a_fixed_metrics_port_and_no_open_dashboard(
    name: str,
) -> None:
    started = start_commands(read(name))
    assert len(started) == 2
    for command in started:
        assert "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$HOME/.ray/auth_token" in command
        assert "--metrics-export-port=8080" in command
    (head,) = [command for command in started if "--head" in command]
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in " ".join(all_commands(read(name)))
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in head


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_token_goes_as_a_file_of_mode_600_and_is_in_no_command(name: str) -> None:
    config = read(name)
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert config["setup_commands"][0] == "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token"
    text = (ROOT / name).read_text()
    assert not re.search(r"RAY_AUTH_TOKEN\b", text)
    assert not re.search(r"[0-9a-f]{32}", text)
    readers = [one for one in all_commands(config) if "auth_token" in one and "PATH=" not in one]
    assert readers == config["setup_commands"][:1]


@pytest.mark.parametrize("name", LAUNCHED)
def test_set_up_commands_are_right_the_second_time_too(name: str, tmp_path: Path) -> None:
    """Those that install nothing are run; Ray runs them again with every `ray up`."""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    (tmp_path / ".bashrc").write_text("case $- in *i*) ;; *) return;; esac\nexport MINE=1\n")
    setup = read(name)["setup_commands"]
    for command in setup:
        subprocess.run(["bash", "-n", "-c", command], check=True)
    local = [one for one in setup if not re.search(r"\buv\b|s3fs", one)]
    assert len(local) == 3
    environment = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    for _ in range(2):
        for command in local:
            subprocess.run(["bash", "-c", command], check=True, env=environment)
    assert stat.S_IMODE((tmp_path / ".ray" / "auth_token").stat().st_mode) == 0o600
    assert (tmp_path / ".bashrc").read_text().splitlines().count(". ~/.ltray_env") == 1
    shell = ["bash", "-c", ". ~/.bashrc; echo $RAY_AUTH_MODE $RAY_AUTH_TOKEN_PATH $PATH"]
    said = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True).stdout
    assert said.startswith(f"token {tmp_path}/.ray/auth_token {tmp_path}/ltray/bin:")


def test_the_manifest_has_nothing_that_nobody_reads() -> None:
    manifests = read_manifests()
    assert list(manifests) == ["RayCluster", "NetworkPolicy"]
    for document in manifests.values():
        assert manifest_problems(document) == []


@pytest.mark.parametrize(
    ("kind", "place", "value", "named"),
    [
        ("RayCluster", "spec.enableInTreeAutoscalling", True, "enableInTreeAutoscalling"),
        ("RayCluster", "spec.enableInTreeAutoscaling", "yes", "enableInTreeAutoscaling"),
        ("RayCluster", "spec.authOptions.mod", "token", "mod"),
        ("RayCluster", "spec.authOptions.mode", "tokens", "tokens"),
        ("RayCluster", "spec.autoscalerOptions.idleTimeoutSecond", 9, "idleTimeoutSecond"),
        ("RayCluster", "spec.headGroupSpec.rayStartParams.metrics-export-port", 8080, "8080"),
        ("RayCluster", "spec.headGroupSpec.rayStartParams.dashbord-host", "x", "dashbord-host"),
        ("RayCluster", "spec.workerGroupSpecs.0.maxReplica", 8, "maxReplica"),
        ("RayCluster", "spec.workerGroupSpecs.0.maxReplicas", "8", "maxReplicas"),
        ("RayCluster", f"{POD}.restartPolicy", "No", "restartPolicy"),
        ("RayCluster", f"{POD}.toleration", [], "toleration"),
        ("NetworkPolicy", "spec.podSelector.matchLabel", {}, "matchLabel"),
        ("NetworkPolicy", "spec.policyType", [], "policyType"),
    ],
)  # fmt: skip
def test_a_slip_in_the_manifest_is_refused_by_name(
    kind: str, place: str, value: Any, named: str
) -> None:
    document = copy.deepcopy(read_manifests()[kind])
    put(document, place, value)
    found = manifest_problems(document)
    assert any(named in problem for problem in found), found


def test_pods_ask_for_a_token_and_only_pods_of_the_cluster_reach_them() -> None:
    manifests = read_manifests()
    spec = manifests["RayCluster"]["spec"]
    assert spec["authOptions"] == {"mode": "token", "secretName": "ltray-token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    for one in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert one["rayStartParams"]["metrics-export-port"] == "8080"
    ours = {"matchLabels": {"ray.io/cluster": manifests["RayCluster"]["metadata"]["name"]}}
    assert manifests["NetworkPolicy"]["spec"] == {
        "podSelector": ours,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": ours}]}],
    }
    assert not re.search(r"[0-9a-f]{32}", (ROOT / "cluster-kuberay.yaml").read_text())


def test_rays_version_is_the_one_that_is_installed_everywhere() -> None:
    import ray

    assert read_manifests()["RayCluster"]["spec"]["rayVersion"] == ray.__version__
    text = (ROOT / "docs" / "cluster.md").read_text()
    assert set(re.findall(r"ray\[default\]==([\d.]+)", text)) == {ray.__version__}


def test_every_command_and_option_of_the_text_is_there() -> None:
    """Of ray's and ltray's commands in docs/cluster.md."""
    from ray.scripts.scripts import cli

    text = (ROOT / "docs" / "cluster.md").read_text()
    mentioned = set(
        re.findall(r"`ray ([a-z-]+)|^ray ([a-z-]+)|; ray ([a-z-]+)", text, re.MULTILINE)
    )
    named = {name for found in mentioned for name in found if name}
    assert {"up", "down", "exec", "attach", "dashboard", "rsync-up", "job"} <= named
    assert named - set(cli.commands) <= {"teardown"}
    for command, options in (
        ("exec", ["--tmux", "--screen", "--stop"]),
        ("attach", ["--tmux"]),
        ("down", ["-y", "--workers-only"]),
        ("get-auth-token", ["--generate"]),
        ("up", ["-y"]),
    ):
        known = {name for one in cli.commands[command].params for name in one.opts}
        assert set(options) <= known
    submit_options = {
        name for one in cli.commands["job"].commands["submit"].params for name in one.opts
    }
    assert {"--no-wait", "--working-dir", "--address"} <= submit_options
    assert shlex.split(start_options("x; ray start --head --port=1")) == ["--head", "--port=1"]


def test_the_slurm_script_is_bash() -> None:
    script = ROOT / "cluster-slurm.sh"
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    directives = re.findall(r"^#SBATCH (--[\w-]+)", script.read_text(), re.MULTILINE)
    assert len(directives) == len(set(directives)) == 10
    before_commands = script.read_text().partition("\nset -euo")[0]
    assert before_commands.count("#SBATCH") == 10, "sbatch looks no further than the first command"
