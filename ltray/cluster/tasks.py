"""Work without GPUs: where it is done, what it gives back, and what its errors become."""

import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from ltray.cluster.resources import Cluster
from ltray.cluster.slots import AGAIN_AFTER_SECONDS, FIRST_AFTER_SECONDS
from ltray.errors import LtrayError, StageFailed
from ltray.say import Say

SAID_EVERY_SECONDS = 10.0
END_SECONDS = 30.0
TELLING = (LtrayError, OSError, MemoryError)  # errors that tell a person enough by their text


class HasRows(Protocol):
    """What is given back for a part tells how many images it has."""

    @property
    def rows(self) -> int: ...


Part = TypeVar("Part")
Result = TypeVar("Result")
Done = TypeVar("Done", bound=HasRows)


class CpuWork:
    """Gives work without GPUs to a cluster's CPUs: to nodes without GPUs, where it has some.

    On another node it could take the last CPU that a trial's GPU waits for, of this sweep or of
    someone else's. Where all nodes have GPUs it is done there.
    """

    def __init__(self, cluster: Cluster, say: Say) -> None:
        self._say = say
        self._cpus = cluster.cpus_apart
        self._options: dict[str, Any] = {}
        if self._cpus and cluster.gpu_nodes:
            # Not the ids of the others: a node that takes the place of a lost one is as good.
            elsewhere = f"!in({','.join(cluster.gpu_nodes)})"
            self._options = {"label_selector": {"ray.io/node-id": elsewhere}}

    def on_each(
        self, work: Callable[[Part], Result], parts: Sequence[Part], stage: str
    ) -> Iterator[Result]:
        """What `work` gives for each part, in their order, each in a task of its own.

        None goes on when results are not asked for any more.

        Args:
            stage: what the work is called in lines and errors.

        Raises:
            LtrayError: as the task raised it.
            StageFailed: it could not read or write something, or was lost.
        """
        import ray

        self._wait_for_a_cpu(stage)
        call = ray.remote(_call).options(**self._options)
        at_once = self._cpus or len(parts)  # more would have an autoscaler start nodes with GPUs
        tasks: list[Any] = []
        try:
            for number in range(len(parts)):
                ahead = parts[len(tasks) : number + at_once]
                tasks += [call.remote(work, part) for part in ahead]
                self._wait(tasks[number], stage)
                yield ray.get(tasks[number])
        except ray.exceptions.RayError as error:
            raise stage_error(stage, error) from error
        finally:
            _end(tasks)

    def on_each_part(
        self, work: Callable[[Part], Done], parts: Sequence[Part], stage: str
    ) -> list[Done]:
        """What `work` gives for each part, in any order.

        A Ray Data job in which one row is one part, so that a part is one task's whatever the
        cluster. Lines say from time to time how far it is.

        Args:
            stage: what the work is called in lines and errors.

        Raises:
            LtrayError: as `work` raised it for some part.
            StageFailed: `work` could not read or write something, or a task was lost.
        """
        import ray.data

        self._wait_for_a_cpu(stage)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False  # our own lines tell
        rows = [{"part": pickle.dumps(part)} for part in parts]
        data_set = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _on_row, fn_kwargs={"work": work}, **self._options
        )
        if self._cpus:  # without a limit Ray Data has an autoscaler start nodes of all kinds
            self._say(f"{stage}: on the {self._cpus} CPUs of nodes without GPUs")
            limit = ray.data.ExecutionResources(cpu=self._cpus)
            data_set.context.execution_options.resource_limits = limit
        done: list[Done] = []
        images = 0
        said = started = time.perf_counter()
        try:
            for row in data_set.iter_rows():
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, Exception):
                    raise outcome
                done.append(outcome)
                images += outcome.rows
                now = time.perf_counter()
                if now - said > SAID_EVERY_SECONDS:
                    said = now
                    self._say(f"{stage}: {_progress(len(done), len(rows), images, now - started)}")
        except Exception as error:
            raise stage_error(stage, error) from error
        return done

    def _wait_for_a_cpu(self, stage: str) -> None:
        """Return when a task can start, and say now and then what is missing until then."""
        import ray

        first = ray.remote(_nothing).options(**self._options).remote()
        patience = FIRST_AFTER_SECONDS
        while not ray.wait([first], timeout=patience, fetch_local=False)[0]:
            patience = AGAIN_AFTER_SECONDS
            free = ray.available_resources().get("CPU", 0)
            where = f" on nodes without GPUs, which have {self._cpus}" if self._cpus else ""
            self._say(
                f"waiting: {stage} has no CPU{where}; {free:g} of the cluster's"
                f" {ray.cluster_resources().get('CPU', 0):g} CPUs are free; `ray status` names"
                " what holds the rest"
            )

    def _wait(self, task: Any, stage: str) -> None:
        """Return when a task has ended, and say when the nodes that it is meant for are gone."""
        import ray

        while not ray.wait([task], timeout=AGAIN_AFTER_SECONDS, fetch_local=False)[0]:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            if self._cpus and not any("CPU" in one and "GPU" not in one for one in nodes):
                self._say(f"waiting: {stage} has no node without GPUs any more; start one")


def _call(work: Callable[[Part], Result], part: Part) -> Result:
    return work(part)


def _nothing() -> None: ...


def _end(tasks: Sequence[Any]) -> None:
    import ray

    if not tasks:
        return
    _, running = ray.wait(list(tasks), num_returns=len(tasks), timeout=0, fetch_local=False)
    for task in running:
        ray.cancel(task, force=True)
    if running:
        ray.wait(running, num_returns=len(running), timeout=END_SECONDS, fetch_local=False)


def _on_row(row: dict[str, Any], work: Callable[[Any], object]) -> dict[str, bytes]:
    """What `work` gives, or the error that its caller is to hear: Ray Data would lose it."""
    outcome: object
    try:
        outcome = work(pickle.loads(row["part"]))
    except TELLING as error:
        outcome = error
    return {"outcome": pickle.dumps(outcome)}


def _progress(parts: int, of: int, images: int, seconds: float) -> str:
    left = seconds / parts * (of - parts)
    rate = images / seconds
    return f"{parts}/{of} parts, {rate:,.0f} images/s, about {left:,.0f} s left"


def stage_error(stage: str, error: BaseException) -> LtrayError:
    """What to raise for an error of a task: a person's mistake stays one."""
    reason = _reason_of(error)
    if isinstance(reason, LtrayError):
        return reason
    return StageFailed(stage, str(reason), "mend that and give the same command again")


def _reason_of(error: BaseException) -> BaseException:
    """The error that a task raised, out of the ones that Ray wrapped around it.

    A wrapper is of the same class as what it wraps, with Ray's frames in its text.
    """
    from ray.exceptions import RayError

    seen = []
    inner: BaseException | None = error
    while inner is not None and inner not in seen:
        seen.append(inner)
        if isinstance(inner, TELLING) and not isinstance(inner, RayError):
            return inner
        inner = getattr(inner, "cause", None) or inner.__cause__
    return seen[-1]
