"""Trackers of other makers, which a person asks for: each trial's plain numbers go there, too."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from ltray.errors import LtrayError

ROWS = ["rows", "records", "stage_failed"]  # ours, as JSON text: nothing to plot
PROJECT = "ltray"

MakeTracker = Callable[[], Any]
"""Gives a new Tune callback."""


def check_tracker(name: str | None) -> None:
    """Make sure that a tracker can be used, before anything starts.

    Raises:
        LtrayError: its package is not installed.
    """
    if name is not None and find_spec(name) is None:
        mend = f"pip install 'ltray[{name}]', or leave --track out"
        raise LtrayError("--track", f"{name} is not installed", mend)


def tracker_of(name: str, run: str) -> Any:
    """A Tune callback that hands reports on; the package's own settings say where to.

    Args:
        name: wandb or mlflow.
        run: the run's name, under which a person finds its trials.

    Raises:
        LtrayError: the package lacks a setting, or does not reach its server.
    """
    try:
        tracker = _made(name, run)
        tracker.setup()
    except Exception as error:  # whatever the package raises
        mend = "give it what it asks for, or leave --track out"
        raise LtrayError("--track", f"{name}: {error}", mend) from error
    return tracker


def _made(name: str, run: str) -> Any:
    if name == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        return WandbLoggerCallback(project=PROJECT, group=run, excludes=ROWS)
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(experiment_name=run, tags={"project": PROJECT})
