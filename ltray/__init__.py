"""Lottery-ticket sweeps on Ray.

experiment = ltray.load_experiment("experiments/digits.yaml")
results = ltray.run_sweep(experiment, say=print)
results.tickets  # a pandas data frame, one row per ticket
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltray.analysis.results import Results, read_results
    from ltray.api import load_experiment, run_sweep
    from ltray.errors import LtrayError
    from ltray.experiment import Experiment

__all__ = [
    "Experiment",
    "LtrayError",
    "Results",
    "load_experiment",
    "read_results",
    "run_sweep",
]

# Imported when they are first asked for: `import ltray` and `--help` must stay quick.
_HOMES = {
    "Experiment": "ltray.experiment",
    "LtrayError": "ltray.errors",
    "Results": "ltray.analysis.results",
    "load_experiment": "ltray.api",
    "read_results": "ltray.analysis.results",
    "run_sweep": "ltray.api",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'ltray' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
