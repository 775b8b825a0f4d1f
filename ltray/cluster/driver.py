"""What every driver does: it holds its run, opens Ray, and writes down how long each stage took."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ltray.cluster.broken_gpus import BrokenGpus
from ltray.cluster.launches import Launch
from ltray.cluster.lease import Lease, only_driver
from ltray.cluster.nodes import check_nodes, demands
from ltray.cluster.resources import Cluster, awaited
from ltray.cluster.session import Connection, session
from ltray.cluster.tracking import Trackers
from ltray.files import remove_abandoned
from ltray.patience import check_writable, patiently
from ltray.run import Run
from ltray.say import Say


@contextmanager
def sole_driver(run: Run) -> Iterator[Lease]:
    """Hold the run's lease, where its root can be written to.

    Raises:
        LtrayError: another driver has it, or it cannot.
    """
    check_writable(run.folder.path.parent, "--root")
    with only_driver(run.folder) as lease:
        yield lease


@contextmanager
def launched(  # noqa: PLR0913, PLR0917 (what a launch needs)
    run: Run,
    lease: Lease,
    connection: Connection,
    say: Say,
    track: str | None = None,
    record: Path | None = None,
) -> Iterator[tuple[Launch, Cluster]]:
    """A Ray session, with how long each stage took written down however it ends.

    Args:
        record: the file that this is written to; the sweep's when None.

    Raises:
        LtrayError: another driver of the cluster is at work on the run; a node has another
            ltray than this process, or does not reach the root.
    """
    make_tracker = Trackers(track, run.folder.path.name) if track else None
    needed = demands(run.folder, lease.token)
    launch = Launch(record or run.folder.launches, needed, BrokenGpus(say), make_tracker)
    for folder in (run.folder.path, run.data.path):
        remove_abandoned(folder)
    with ExitStack() as stack:
        stack.callback(_write_launch, run, launch, lease)
        with launch.stage("start Ray"):
            cluster = stack.enter_context(session(connection, run.folder.path.name))
        if cluster.joined:
            cluster = awaited(cluster, say)
        launch.on(cluster)
        say(cluster_line(cluster))
        if cluster.joined:
            from ltray.cluster.lock import only_driver_here

            stack.enter_context(only_driver_here(run.folder))
            check_nodes(launch.demands)
        yield launch, cluster


def _write_launch(run: Run, launch: Launch, lease: Lease) -> None:
    lease.check()
    patiently(launch.write, run.folder.path)


def cluster_line(cluster: Cluster) -> str:
    """What a command has to work with, and how a person can look on."""
    where = f"{len(cluster.nodes)} node{'s' if len(cluster.nodes) > 1 else ''}"
    line = f"Ray: {cluster.cpus} CPUs and {cluster.gpus} GPUs on {where}"
    if not cluster.dashboard:
        return line
    line = f"{line}; dashboard at http://{cluster.dashboard}"
    if not cluster.asks_token:
        return line
    return f"{line}, which asks for the token that `ray get-auth-token` prints"
