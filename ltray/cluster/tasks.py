"""Work given to the cluster's tasks: what they give back, and what their errors become."""

import logging
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

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
Done = TypeVar("Done", bound=HasRows)


def results_of(tasks: Sequence[Any], stage: str) -> Iterator[Any]:
    """What each task gave, in their order; none goes on when they are not asked for any more.

    Args:
        stage: what the work is called in errors.

    Raises:
        LtrayError: as the task raised it.
        StageFailed: it could not read or write something, or was lost.
    """
    import ray

    try:
        for task in tasks:
            yield ray.get(task)
    except ray.exceptions.RayError as error:
        raise stage_error(stage, error) from error
    finally:
        _end(tasks)


def _end(tasks: Sequence[Any]) -> None:
    import ray

    _, running = ray.wait(list(tasks), num_returns=len(tasks), timeout=0, fetch_local=False)
    for task in running:
        ray.cancel(task, force=True)
    if running:
        ray.wait(running, num_returns=len(running), timeout=END_SECONDS, fetch_local=False)


def on_each_part(
    work: Callable[[Part], Done], parts: Sequence[Part], stage: str, say: Say
) -> list[Done]:
    """What `work` gives for each part, in any order; needs a session.

    A Ray Data job in which one row is one part, so that a part is one task's whatever the
    cluster. Lines say from time to time how far it is.

    Args:
        stage: what the work is called in lines and errors.

    Raises:
        LtrayError: as `work` raised it for some part.
        StageFailed: `work` could not read or write something, or a task was lost.
    """
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # our own lines tell
    rows = [{"part": pickle.dumps(part)} for part in parts]
    data_set = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
        _on_row, fn_kwargs={"work": work}
    )
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
                say(f"{stage}: {_progress(len(done), len(rows), images, now - started)}")
    except Exception as error:
        raise stage_error(stage, error) from error
    return done


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
