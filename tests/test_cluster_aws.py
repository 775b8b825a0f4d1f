"""What Ray makes of cluster.yaml on an imitation of AWS, and what docs/cluster.md says of it."""

import gc
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cluster_files import ROOT, File, read

pytestmark = pytest.mark.long

GPU_KINDS = ["gpu_spot", "gpu_on_demand"]
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def filled() -> File:
    """cluster.yaml with what Ray asks AWS about its instance types; moto takes seconds over it."""
    moto = pytest.importorskip("moto")
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = read("cluster.yaml")
    config["provider"]["region"] = "us-west-2"
    with moto.mock_aws():
        found: File = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config))
    validate_config(found)
    return found


@pytest.fixture
def aws(
    filled: File, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[[], File]]:
    """An imitation of AWS; a function that has Ray prepare cluster.yaml for it as `ray up` does."""
    moto = pytest.importorskip("moto")
    from ray.autoscaler._private.aws.config import bootstrap_aws

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")

    def bootstrapped() -> File:
        forget_connections()
        result: File = bootstrap_aws(filled)
        return result

    with moto.mock_aws():
        yield bootstrapped


def forget_connections() -> None:
    """Those that Ray and boto3 keep, with the credentials that they were made with."""
    from ray.autoscaler._private.aws.config import _get_subnets_or_die
    from ray.autoscaler._private.aws.utils import client_cache, resource_cache

    for cache in (client_cache, resource_cache, _get_subnets_or_die):
        cache.cache_clear()
    pytest.importorskip("boto3").setup_default_session()


def test_a_forgotten_region_is_an_error_before_anything_is_started() -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config

    with pytest.raises(Exception, match="FILL_IN_REGION"):
        bootstrap_aws(prepare_config(read("cluster.yaml")))


def ec2() -> Any:
    return pytest.importorskip("boto3").client("ec2", region_name="us-west-2")


def group() -> File:
    """The security group by the name that cluster.yaml has."""
    name = read("cluster.yaml")["provider"]["security_group"]["GroupName"]
    filters = [{"Name": "group-name", "Values": [name]}]
    (found,) = ec2().describe_security_groups(Filters=filters)["SecurityGroups"]
    return dict(found)


def from_outside(of: File) -> list[tuple[Any, ...]]:
    """Protocol, ports and addresses of each rule that is not about the group itself."""
    return [
        (rule["IpProtocol"], rule.get("FromPort"), rule.get("ToPort"), one["CidrIp"])
        for rule in of["IpPermissions"]
        for one in rule["IpRanges"]
    ]


def test_only_ssh_comes_in_from_outside_the_group(aws: Callable[[], File]) -> None:
    config = aws()
    made = group()
    assert from_outside(made) == [("tcp", 22, 22, "0.0.0.0/0")]
    for rule in made["IpPermissions"]:
        assert not rule["Ipv6Ranges"]
        assert not rule["PrefixListIds"]
    inside = [
        pair["GroupId"] for rule in made["IpPermissions"] for pair in rule["UserIdGroupPairs"]
    ]
    assert inside == [made["GroupId"]]
    for kind in config["available_node_types"].values():
        assert kind["node_config"]["SecurityGroupIds"] == [made["GroupId"]]


def test_a_group_with_narrower_ssh_is_left_as_it_is(aws: Callable[[], File]) -> None:
    network = ec2().describe_vpcs()["Vpcs"][0]["VpcId"]
    mine = ec2().create_security_group(GroupName="ltray", Description="mine", VpcId=network)
    mine_only = [{"CidrIp": "192.0.2.7/32"}]
    rules = [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": mine_only},
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": mine["GroupId"]}]},
    ]  # fmt: skip
    ec2().authorize_security_group_ingress(GroupId=mine["GroupId"], IpPermissions=rules)
    aws()
    assert from_outside(group()) == [("tcp", 22, 22, "192.0.2.7/32")]


def test_nodes_have_profiles_in_place_of_keys_and_workers_one_of_their_own(
    aws: Callable[[], File],
) -> None:
    config = aws()
    kinds = config["available_node_types"]
    profiles = {name: kind["node_config"]["IamInstanceProfile"] for name, kind in kinds.items()}
    assert profiles == {
        "head": {"Name": "ltray-head"},
        **{name: {"Name": "ltray-worker"} for name in GPU_KINDS},
    }
    assert not config["head_node"], "Ray added a profile of its own, with full rights"
    iam = pytest.importorskip("boto3").client("iam")
    assert not iam.list_roles()["Roles"]


def test_images_go_to_aws_by_name_and_nothing_is_left_when_nodes_end(
    aws: Callable[[], File],
) -> None:
    config = aws()
    for kind in config["available_node_types"].values():
        node = kind["node_config"]
        assert node["ImageId"].startswith("resolve:ssm:/aws/service/deeplearning/ami/x86_64/")
        assert node["ImageId"].endswith("/latest/ami-id")
        assert node["InstanceInitiatedShutdownBehavior"] == "terminate"
        (disk,) = node["BlockDeviceMappings"]
        assert disk["Ebs"]["DeleteOnTermination"]
        assert disk["Ebs"]["Encrypted"]
        assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert config["provider"]["cache_stopped_nodes"] is False


def launches(config: File, demand: dict[str, int], count: int, **more: Any) -> dict[str, int]:
    """Kind -> nodes that Ray's autoscaler would start, beside the head, for waiting tasks."""
    from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
    from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
    from ray.autoscaler.v2.utils import ResourceRequestUtil

    config = {key: value for key, value in config.items() if key != "head_node"}
    parsed = AutoscalingConfig(config, skip_content_hash=True)
    waiting = [ResourceRequestUtil.make(demand) for _ in range(count)]
    request = SchedulingRequest(
        node_type_configs=parsed.get_node_type_configs(),
        max_num_nodes=parsed.get_max_num_worker_nodes(),
        resource_requests=ResourceRequestUtil.group_by_count(waiting),
        disable_launch_config_check=False,
        **more,
    )
    reply = ResourceDemandScheduler().schedule(request)
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def test_trials_get_spot_nodes_and_on_demand_ones_only_while_those_cannot_be_had(
    aws: Callable[[], File],
) -> None:
    config = aws()
    trial = {"GPU": 1, "CPU": 8}
    assert launches(config, trial, 3) == {"gpu_spot": 3}
    assert launches(config, trial, 100) == {"gpu_spot": 8}
    failed = {"recoverable_resource_availabilities": {"gpu_spot": 0.0}}
    assert launches(config, trial, 2, **failed) == {"gpu_on_demand": 2}
    assert launches(config, trial, 5, **failed) == {"gpu_on_demand": 2, "gpu_spot": 3}
    assert launches(config, {"CPU": 1}, 8) == {"head": 1}, "a GPU node for what the head can do"
    assert launches(config, {}, 0) == {}


def tagged(config: File, kind: str, role: str) -> dict[str, str]:
    from ray.autoscaler import tags

    return {
        tags.TAG_RAY_NODE_KIND: role,
        tags.TAG_RAY_USER_NODE_TYPE: kind,
        tags.TAG_RAY_NODE_NAME: f"ray-{config['cluster_name']}-{role}",
        tags.TAG_RAY_LAUNCH_CONFIG: "hash",
        tags.TAG_RAY_NODE_STATUS: "uninitialized",
    }


def start_node(provider: Any, config: File, kind: str, role: str = "worker") -> None:
    """As Ray's autoscaler does; moto knows no parameters of AWS's own, so the image is another."""
    node = {**config["available_node_types"][kind]["node_config"], "ImageId": "ami-12c6146b"}
    provider.create_node(node, tagged(config, kind, role), 1)


def provider_of(config: File) -> Any:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    return AWSNodeProvider(config["provider"], config["cluster_name"])


@pytest.fixture
def profiles(aws: Callable[[], File]) -> None:
    """The instance profiles that docs/cluster.md makes."""
    iam = pytest.importorskip("boto3").client("iam")
    for name in ("ltray-head", "ltray-worker"):
        iam.create_instance_profile(InstanceProfileName=name)


@pytest.mark.usefixtures("profiles")
@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # Ray leaves a file open
def test_the_head_can_end_the_workers_when_the_sweep_is_over(
    aws: Callable[[], File], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`ray down -y --workers-only ~/ray_bootstrap_config.yaml` of docs/cluster.md, on the head."""
    from ray.autoscaler._private import commands as ray_commands

    config = aws()
    provider = provider_of(config)
    for kind in GPU_KINDS:
        start_node(provider, config, kind)
    start_node(provider, config, "head", "head")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(ray_commands, "POLL_INTERVAL", 0)
    for mount in config["file_mounts"].values():
        (tmp_path / Path(mount).name).touch()
    _, mounted = ray_commands._set_up_config_for_head_node(config, provider, no_restart=False)
    ray_commands.teardown_cluster(
        mounted.name,
        yes=True,
        workers_only=True,
        override_cluster_name=None,
        keep_min_workers=False,
    )
    gc.collect()  # or the next test gets Ray's warning
    running = ec2().describe_instances(
        Filters=[{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    )
    left = [one for batch in running["Reservations"] for one in batch["Instances"]]
    assert [one["InstanceType"] for one in left] == ["m6i.2xlarge"]
    text = (ROOT / "docs" / "cluster.md").read_text()
    assert "ray stop; ray down -y --workers-only ~/ray_bootstrap_config.yaml; sudo shutdown" in text


def test_ray_exec_with_stop_would_leave_the_workers() -> None:
    """Why docs/cluster.md warns of it; when Ray mends it, the text can go."""
    from ray.autoscaler._private import commands as ray_commands
    from ray.scripts.scripts import cli

    assert '"ray teardown ~/' in Path(ray_commands.__file__).read_text()
    assert "teardown" not in cli.commands


def policies() -> dict[str, File]:
    """File name -> policy of docs/cluster.md."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    blocks = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    worker, head = (json.loads(block.replace("FILL-IN-BUCKET", "bucket")) for block in blocks)
    return {"ltray-worker": worker, "ltray-head": head}


@contextmanager
def only_allowed(policy: File, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is asked of the imitation meanwhile must be allowed by a policy."""
    from moto import settings
    from moto.core.authorization import ActionAuthenticatorMixin

    iam = pytest.importorskip("boto3").client("iam")
    iam.create_user(UserName="node")
    iam.put_user_policy(UserName="node", PolicyName="p", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="node")["AccessKey"]
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        patch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
        patch.setattr(ActionAuthenticatorMixin, "request_count", 0)
        forget_connections()
        yield
    forget_connections()


def without_limits(policy: File) -> File:
    """Its actions alone, since moto knows neither the conditions nor the resources of EC2."""
    statements = [
        {**{key: one[key] for key in ("Effect", "Action")}, "Resource": "*"}
        for one in policy["Statement"]
    ]
    return {**policy, "Statement": statements}


def run_a_worker(config: File) -> None:
    """All that the head asks of EC2 for one."""
    provider = provider_of(config)
    start_node(provider, config, "gpu_spot")
    (worker,) = provider.non_terminated_nodes({})
    provider.set_node_tags(worker, {"ray-node-status": "up-to-date"})
    provider.terminate_nodes([worker])
    assert provider.non_terminated_nodes({}) == []


@pytest.mark.usefixtures("profiles")
def test_the_heads_permissions_are_enough_for_workers_and_each_is_needed(
    aws: Callable[[], File], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = aws()
    policy = without_limits(policies()["ltray-head"])
    with only_allowed(policy, monkeypatch):
        run_a_worker(config)
    iam = pytest.importorskip("boto3").client("iam")
    for action in ("RunInstances", "CreateTags", "TerminateInstances", "DescribeInstances"):
        iam.delete_access_key(**_only_key(iam))
        iam.delete_user_policy(UserName="node", PolicyName="p")
        iam.delete_user(UserName="node")
        less = json.loads(json.dumps(policy).replace(f'"ec2:{action}"', '"ec2:Nothing"'))
        with only_allowed(less, monkeypatch), pytest.raises((Exception, SystemExit)):
            run_a_worker(config)


def _only_key(iam: Any) -> dict[str, str]:
    (key,) = iam.list_access_keys(UserName="node")["AccessKeyMetadata"]
    return {"UserName": "node", "AccessKeyId": key["AccessKeyId"]}


def test_permissions_name_this_cluster_and_these_instance_types() -> None:
    config = read("cluster.yaml")
    head = json.dumps(policies()["ltray-head"])
    name = config["cluster_name"]
    for key in ("aws:RequestTag", "ec2:ResourceTag"):
        assert f'"{key}/ray-cluster-name": "{name}"' in head
    kinds = config["available_node_types"]
    workers = {kinds[kind]["node_config"]["InstanceType"] for kind in GPU_KINDS}
    assert {f'"ec2:InstanceType": "{one}"' in head for one in workers} == {True}
    assert "arn:aws:iam::*:role/ltray-worker" in head
    parameter = kinds["head"]["node_config"]["ImageId"].removeprefix("resolve:ssm:")
    (allowed,) = re.findall(r"arn:aws:ssm:\*::parameter(/[^*]*)\*", head)
    assert parameter.startswith(allowed)
    for policy in policies().values():
        actions = [one["Action"] for one in policy["Statement"]]
        assert "*" not in re.sub(r"[\[\]' ]", "", str(actions))


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an S3-compatible server with a bucket."""
    moto_server = pytest.importorskip("moto.server")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "tests"),
        ("AWS_SECRET_ACCESS_KEY", "tests"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    pytest.importorskip("boto3").client("s3").create_bucket(Bucket="bucket")
    yield f"http://{host}:{port}"
    server.stop()


def test_the_buckets_permissions_are_enough_for_files_and_for_nothing_else(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    from ltray.files import at, names_below, read_range, remove, write_whole

    large = b"x" * 60_000_000  # put in parts
    with only_allowed(policies()["ltray-worker"], monkeypatch):
        s3fs.S3FileSystem.clear_instance_cache()
        folder = at("s3://bucket/ltray/run", "--root")
        write_whole(folder / "small", b"small")
        write_whole(folder / "large", large)
        assert names_below(folder) == ["large", "small"]
        assert read_range(folder / "large", 7, 3) == b"xxx"
        remove(folder / "small")
        assert not (folder / "small").exists()
        with pytest.raises(PermissionError):
            s3fs.S3FileSystem().ls("")
        with pytest.raises(PermissionError):
            write_whole(at("s3://other/ltray", "--root"), b"small")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_forgotten_bucket_stops_the_set_up_of_the_node(store: str, tmp_path: Path) -> None:
    (check,) = [one for one in read("cluster.yaml")["setup_commands"] if "s3fs" in one]
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{BIN}:{os.environ['PATH']}"}
    (make,) = [one for one in read("cluster.yaml")["setup_commands"] if "LTRAY_ROOT" in one][:1]
    for bucket, right in (("bucket", True), ("FILL-IN-BUCKET", False)):
        filled = make.replace("FILL-IN-BUCKET", bucket)
        subprocess.run(["bash", "-c", filled], check=True, env=environment)
        ended = subprocess.run(
            ["bash", "-c", check], check=False, env=environment, capture_output=True
        )
        assert (ended.returncode == 0) is right, ended.stderr
