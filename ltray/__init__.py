"""Lottery-ticket sweeps on Ray.

experiment = ltray.load_experiment("experiments/digits.yaml")
results = ltray.run_sweep(experiment, say=print)
results.tickets  # a pandas data frame, one row per ticket

model, mask = ltray.load_ticket("folder")  # of `python -m ltray.export`
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ltray.analysis.results import Results, read_results
    from ltray.api import load_experiment, run_sweep
    from ltray.errors import LtrayError
    from ltray.experiment import Experiment
    from ltray.lottery.exported import (
        apply_mask,
        keep_masked,
        load_ticket,
        network_inputs,
        read_about,
        to_torch_prune,
    )

__all__ = [
    "Experiment",
    "LtrayError",
    "Results",
    "apply_mask",
    "keep_masked",
    "load_experiment",
    "load_ticket",
    "network_inputs",
    "read_about",
    "read_results",
    "run_sweep",
    "to_torch_prune",
]

# Imported when they are first asked for: `import ltray` and `--help` must stay quick.
_HOMES = {
    "Experiment": "ltray.experiment",
    "LtrayError": "ltray.errors",
    "Results": "ltray.analysis.results",
    "load_experiment": "ltray.api",
    "read_results": "ltray.analysis.results",
    "run_sweep": "ltray.api",
    **dict.fromkeys(
        (
            "apply_mask",
            "keep_masked",
            "load_ticket",
            "network_inputs",
            "read_about",
            "to_torch_prune",
        ),
        "ltray.lottery.exported",
    ),
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'ltray' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)
