"""Whether each node can do its part: it has the driver's code, and reaches its root."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ltray.cluster.lease import holder
from ltray.errors import LtrayError
from ltray.files import check_takes_files
from ltray.layout import RunFolder
from ltray.patience import is_storage_error

ANSWER_SECONDS = 120.0  # a node may have to import from a cold disk first
PACKAGES = ("torch", "torchvision", "numpy")  # whose versions may change the bits of a result
FAULTS_SAID = 5
CANNOT_FETCH = (
    "cannot fetch objects from this process: its ports are closed to the node, or it asks for a"
    " token (there is one in ~/.ray) that the cluster was started without: RAY_AUTH_MODE=disabled"
)


@dataclass(frozen=True)
class Demands:
    """What the driver asks of every process that works for it.

    Attributes:
        token: of the driver's lease, which must be seen in the run's folder.
        versions: (package, version), and a hash of ltray's own files.
    """

    run: RunFolder
    token: str
    versions: tuple[tuple[str, str], ...]

    def check(self, node: str) -> None:
        """Raise when this process does not meet them; looked at once a process.

        Args:
            node: what to call the machine.

        Raises:
            LtrayError: saying all that is wrong.
            OSError: storage does not answer, which may pass.
        """
        if self in _MET:
            return
        faults = _faults(self)
        if faults:
            raise LtrayError(f"node {node}", "; ".join(faults), MEND)
        _MET.add(self)


_MET: set[Demands] = set()
MEND = (
    "install the same versions on every node, or send this ltray along with --ship-code; name a"
    " --root that every node reaches: a shared folder, s3://... or gs://..."
)


def demands(run: RunFolder, token: str) -> Demands:
    """What the process of the driver with this token asks: that others are like it."""
    return Demands(run, token, _versions())


def check_nodes(wanted: Demands) -> None:
    """Ask every node of the session's cluster, side by side.

    Raises:
        LtrayError: naming the nodes that do not meet the demands.
    """
    faults = [f"{node}: {fault}" for node, fault in _answers(wanted)]
    if faults:
        more = len(faults) - FAULTS_SAID
        said = "; ".join(faults[:FAULTS_SAID]) + (f"; and {more} more" if more > 0 else "")
        raise LtrayError("nodes", said, MEND)


def _answers(wanted: Demands) -> Iterator[tuple[str, str]]:
    """(node, fault) of all faults; a node that goes away meanwhile has none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    ask = ray.remote(_said_faults)
    put = ray.put(wanted)  # which nodes fetch from this process, as they will fetch packs
    asked = {
        node["NodeID"]: ask.options(
            num_cpus=0,
            max_retries=2,  # a worker may be killed just now, for whatever reason
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(put)
        for node in nodes
    }
    answered, _ = ray.wait(
        list(asked.values()), num_returns=len(asked), timeout=ANSWER_SECONDS, fetch_local=False
    )
    there = {node["NodeID"] for node in ray.nodes() if node["Alive"]}
    for node in nodes:
        if node["NodeID"] in there:
            task = asked[node["NodeID"]]
            for fault in _answer(task) if task in answered else ["does not answer"]:
                yield node["NodeManagerAddress"], fault


def _answer(task: Any) -> list[str]:
    import ray

    # Before the head itself knows that a node is dead, who asks it may be told so.
    gone = (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError)
    try:
        faults: list[str] = ray.get(task)
    except ray.exceptions.RayError as error:
        if isinstance(error, gone):
            return []
        if isinstance(error, ray.exceptions.OwnerDiedError):
            return [CANNOT_FETCH]
        reason = str(error).strip().splitlines()[-1]
        return [f"cannot run this ltray: {reason}"]
    return faults


def _said_faults(wanted: Demands) -> list[str]:
    try:
        return _faults(wanted)
    except Exception as error:
        if not isinstance(error, OSError) and not is_storage_error(error):
            raise
        return [f"cannot read and write {wanted.run.path}: {error}"]


def _faults(wanted: Demands) -> list[str]:
    return [*_other_versions(wanted), *_root_faults(wanted)]


def _other_versions(wanted: Demands) -> Iterator[str]:
    mine = dict(_versions())
    for package, expected in wanted.versions:
        if mine[package] != expected:
            yield f"has {package} {mine[package]}, the driver {expected}"


def _root_faults(wanted: Demands) -> Iterator[str]:
    lease = holder(wanted.run)
    if lease is None:
        yield f"does not see the driver's files in {wanted.run.path}"
    elif lease["token"] != wanted.token:
        yield f"{wanted.run.path} has the files of another driver, on {lease['host']}"
    else:
        check_takes_files(wanted.run.path)


@lru_cache(maxsize=1)
def _versions() -> tuple[tuple[str, str], ...]:
    packages = ((name, version(name).partition("+")[0]) for name in PACKAGES)
    return ("ltray's code", _code()), *packages


def _code() -> str:
    """8 hex digits of the content of ltray's own files."""
    package = Path(__file__).parents[1]
    hasher = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        hasher.update(path.relative_to(package).as_posix().encode() + b"\0")
        hasher.update(path.read_bytes() + b"\0")
    return hasher.hexdigest()[:8]
