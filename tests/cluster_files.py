"""What is wrong with a cluster file, beyond what Ray itself looks at before it starts paying."""

import copy
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import click
import jsonschema
import ray.autoscaler._private
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start

ROOT = Path(__file__).parents[1]
File = dict[str, Any]
COMMANDS = (
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)

PROVIDERS = Path(ray.autoscaler._private.__file__).parent
READ_FROM_PROVIDER = re.compile(
    r"""(?:provider_config|provider_cfg|\["provider"\])\s*(?:\[|\.\s*get\(\s*)"(\w+)\""""
)
# Not RunInstances', but read and taken out by Ray before it calls that.
RAYS_NODE_KEYS = {"SubnetIds"}


def read(name: str) -> File:
    """A cluster file of the repository."""
    content: File = yaml.safe_load((ROOT / name).read_text())
    return content


def all_commands(config: File) -> list[str]:
    """All that Ray runs on nodes."""
    return [command for key in COMMANDS for command in config.get(key, [])]


def start_commands(config: File) -> list[str]:
    """Those that start Ray."""
    return [command for command in all_commands(config) if "ray start" in command]


def put(config: File, place: str, value: Any) -> None:
    """Set what lies at a dotted place; a number is a place in a list."""
    *folders, last = place.split(".")
    at: Any = config
    for folder in folders:
        at = at[int(folder) if folder.isdigit() else folder]
    at[last] = value


def problems(config: File) -> list[str]:
    """All that is wrong with a file for `ray up`, each with the place in it."""
    return [
        *_ray_says(config),
        *_provider_problems(config["provider"]),
        *(
            problem
            for name, kind in config.get("available_node_types", {}).items()
            for problem in node_problems(f"available_node_types.{name}", kind["node_config"])
        ),
        *_start_problems(config),
    ]


def _ray_says(config: File) -> Iterator[str]:
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
    except ValueError as error:
        yield str(error)


def provider_keys(kind: str) -> set[str]:
    """What Ray's code for a provider, and its code for all of them, reads from `provider`."""
    files = [*PROVIDERS.glob("*.py"), *(PROVIDERS / kind).rglob("*.py")]
    return {key for file in files for key in READ_FROM_PROVIDER.findall(file.read_text())}


def _provider_problems(provider: File) -> Iterator[str]:
    known = provider_keys(provider["type"])
    for key in provider:
        if key not in known:
            yield f"provider.{key}: Ray's {provider['type']} provider does not read it"


def node_problems(where: str, node_config: File) -> Iterator[str]:
    """What RunInstances would not take, by botocore's model of it."""
    shape = botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances")
    called_with = {key: node_config[key] for key in node_config if key not in RAYS_NODE_KEYS}
    called_with |= {"MinCount": 1, "MaxCount": 1}  # Ray adds these
    report = ParamValidator().validate(called_with, shape.input_shape).generate_report()
    for line in report.splitlines():
        yield f"{where}.node_config: {line}"
    yield from _other_values(f"{where}.node_config", called_with, shape.input_shape)


def _other_values(where: str, value: Any, shape: Any) -> Iterator[str]:
    """Texts that are none of a shape's values; botocore itself does not look."""
    if shape.type_name == "structure" and isinstance(value, dict):
        for key in value.keys() & shape.members.keys():
            yield from _other_values(f"{where}.{key}", value[key], shape.members[key])
    elif shape.type_name == "list" and isinstance(value, list):
        for inner in value:
            yield from _other_values(where, inner, shape.member)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{where}: {value!r} is none of RunInstances' values"


def _start_problems(config: File) -> Iterator[str]:
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        for command in config[key]:
            if "ray start" in command:
                yield from start_problems(key, shlex.split(start_options(command)))


def start_options(command: str) -> str:
    """What follows `ray start` in a start command."""
    return re.split("[;&|>]", command.partition("ray start ")[2])[0]


def start_problems(where: str, options: list[str]) -> Iterator[str]:
    """What `ray start` would not take."""
    try:
        start.make_context("start", list(options))
    except click.UsageError as error:
        yield f"{where}: {error.format_message()}"


# KubeRay's fields as its reference lists them (v1.6), and Kubernetes' own: those that are used.


def _object(required: str = "", **properties: Any) -> File:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": required.split(),
        "properties": properties,
    }


def _list(item: File) -> File:
    return {"type": "array", "items": item}


TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
YES_NO = {"type": "boolean"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
AMOUNTS = {"type": "object", "additionalProperties": {"type": ["string", "integer"]}}
RESOURCES = _object(requests=AMOUNTS, limits=AMOUNTS)
NAMED = _object("name", name=TEXT)
CONTAINER = _object(
    "name image",
    name=TEXT,
    image=TEXT,
    ports=_list(
        _object(
            "containerPort",
            containerPort={"type": "integer", "minimum": 1, "maximum": 65535},
            name={"type": "string", "maxLength": 15},
        )
    ),
    env=_list(_object("name value", name=TEXT, value=TEXT)),
    envFrom=_list(_object(secretRef=NAMED)),
    resources=RESOURCES,
    volumeMounts=_list(_object("name mountPath", name=TEXT, mountPath=TEXT)),
)
POD = _object(
    "spec",
    spec=_object(
        "containers",
        restartPolicy={"enum": ["Always", "OnFailure", "Never"]},
        tolerations=_list(
            _object(
                key=TEXT,
                operator={"enum": ["Exists", "Equal"]},
                effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            )
        ),
        containers=_list(CONTAINER),
        volumes=_list(
            _object(
                "name", name=TEXT, emptyDir=_object(medium={"enum": ["", "Memory"]}, sizeLimit=TEXT)
            )
        ),
    ),
)
RAY_CLUSTER = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayCluster"},
    metadata=NAMED,
    spec=_object(
        "headGroupSpec rayVersion",
        rayVersion=TEXT,
        authOptions=_object(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
        enableInTreeAutoscaling=YES_NO,
        autoscalerOptions=_object(
            version={"enum": ["v1", "v2"]}, idleTimeoutSeconds=COUNT, resources=RESOURCES
        ),
        headGroupSpec=_object(
            "template rayStartParams",
            serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
            rayStartParams=TEXTS,
            template=POD,
        ),
        workerGroupSpecs=_list(
            _object(
                "groupName template rayStartParams",
                groupName=TEXT,
                replicas=COUNT,
                minReplicas=COUNT,
                maxReplicas=COUNT,
                rayStartParams=TEXTS,
                template=POD,
            )
        ),
    ),
)
LABELS = _object("matchLabels", matchLabels=TEXTS)
NETWORK_POLICY = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "networking.k8s.io/v1"},
    kind={"const": "NetworkPolicy"},
    metadata=NAMED,
    spec=_object(
        "podSelector policyTypes",
        podSelector=LABELS,
        policyTypes=_list({"enum": ["Ingress", "Egress"]}),
        ingress=_list(_object("from", **{"from": _list(_object(podSelector=LABELS))})),
    ),
)
MANIFESTS = {"RayCluster": RAY_CLUSTER, "NetworkPolicy": NETWORK_POLICY}


def read_manifests() -> dict[str, File]:
    """Kind -> document of cluster-kuberay.yaml."""
    documents = yaml.safe_load_all((ROOT / "cluster-kuberay.yaml").read_text())
    return {document["kind"]: document for document in documents}


def manifest_problems(document: File) -> list[str]:
    """What is wrong with a manifest, each with the place in it."""
    validator = jsonschema.Draft202012Validator(MANIFESTS[document["kind"]])
    found = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message}"
        for error in validator.iter_errors(document)
    ]
    return found or [
        problem
        for group in _groups(document)
        for problem in start_problems("rayStartParams", as_options(group["rayStartParams"]))
    ]


def _groups(document: File) -> list[File]:
    if document["kind"] != "RayCluster":
        return []
    return [document["spec"]["headGroupSpec"], *document["spec"]["workerGroupSpecs"]]


def as_options(parameters: dict[str, str]) -> list[str]:
    """rayStartParams as the operator gives them to `ray start`: a flag's `true` is left out."""
    return [
        f"--{key}" if value == "true" else f"--{key}={value}" for key, value in parameters.items()
    ]
