"""How long packs take on p workers, as Ray Tune starts them."""

from collections.abc import Sequence
from heapq import heapreplace


def makespan(
    trials: Sequence[float], workers: int, first: float = 0.0, between: float = 0.0
) -> float:
    """Seconds until all trials have ended.

    Trials start in their order, each on the worker that is free first (list scheduling, Graham
    1966); Tune does the same with trials of equal resources.

    Args:
        trials: seconds of each.
        workers: how many run at a time, at least 1.
        first: seconds from the beginning until a worker's first trial trains.
        between: seconds between two trials of a worker.
    """
    free = [0.0] * min(workers, len(trials))  # a heap: when each worker's last trial ended
    for number, seconds in enumerate(trials):
        # The heap's zeros are taken before any worker is given a second trial.
        begins = first if number < len(free) else free[0] + between
        heapreplace(free, begins + seconds)
    return max(free, default=0.0)
