"""Trackers of other makers, which a person asks for: each trial's plain numbers go there, too."""

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from ltray.errors import LtrayError

# Ours, as text: nothing to plot.
ROWS = ["rows", "records", "stage_failed", "broken", "leaves", "waits"]
PROJECT = "ltray"

MakeTracker = Callable[[], Any]
"""Gives a new Tune callback, or None where there is none any more."""


def check_tracker(name: str | None) -> None:
    """Make sure that a tracker can be used, before anything starts.

    Raises:
        LtrayError: its package is not installed.
    """
    if name is not None and find_spec(name) is None:
        mend = f"pip install 'ltray[{name}]', or leave --track out"
        raise LtrayError("--track", f"{name} is not installed", mend)


class Trackers:
    """A tracker for each stage; only of the first is it an error that it cannot be made."""

    def __init__(self, name: str, run: str) -> None:
        self._name = name
        self._run = run
        self._made = False

    def __call__(self) -> Any:
        """Make one; None, with a warning, where one was made before.

        Raises:
            LtrayError: of the first.
        """
        try:
            tracker = tracker_of(self._name, self._run)
        except LtrayError as error:
            if not self._made:
                raise
            warnings.warn(f"nothing is tracked from here on: {error}", RuntimeWarning, stacklevel=2)
            return None
        self._made = True
        return tracker


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
