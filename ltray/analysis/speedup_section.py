"""What the report's section on time and speed-up shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

from ltray.analysis import accounts, speedup_figures, wording
from ltray.analysis.accounts import Launch
from ltray.analysis.columns import Row
from ltray.analysis.drawing import GLYPHS
from ltray.analysis.gantt import IDLE_ALPHA, REASON_LINES, REPLICATE_LINES, gantt, is_grouped
from ltray.analysis.measured import (
    REASONS,
    Retrainings,
    SlotUse,
    retrainings,
)
from ltray.analysis.plan_and_fact import forecasts, speedups
from ltray.analysis.serial_share import serial_share
from ltray.analysis.trials import has_times
from ltray.analysis.usage import gpu_means, gpu_moments, mean_use, step_times
from ltray.analysis.whole_sweep import amdahl_points, whole_sweep

MOST_LISTED = 500
_SEED = 0  # the page is the same bytes each time it is made
TRAINING = "training"
# What each part of the slots' time is called, and what it is.
_PARTS = {
    TRAINING: ("training", "trials at work"),
    "start-up": ("start-up", "before a slot's first trial, while another trained already"),
    "waiting": (
        "between trials",
        "ending and starting a process, reading images, choosing a backend, reporting",
    ),
    "failures": (
        "lost attempts",
        "an estimate: what is above the usual before a trial that was begun more than once",
    ),
    "straggler": ("the last ones", "nothing left to do, while another slot still trained"),
}


@dataclass(frozen=True)
class Part:
    """One part of the slots' time; `line` and `opacity` are its colour in bar and chart."""

    name: str
    words: str
    seconds: float
    share: float
    line: int
    opacity: float


@dataclass(frozen=True)
class SlotRow:
    """One slot in one launch; `seconds` are those of each `Part`, `share` is that of training."""

    launch: int
    name: str
    trials: int
    share: float
    seconds: tuple[float, ...]


def speedup_content(
    rows: Sequence[Row], dense: Sequence[Row], done: Sequence[Row], launches: Sequence[Launch]
) -> dict[str, Any]:
    """The names of speedup.html.jinja.

    Args:
        rows: of all tickets of the run, whatever grid asked for them.
        dense, done: of the current grid's dense runs and finished tickets.
        launches: of launches.json.
    """
    found = retrainings(rows, launches)
    return {
        "launches": launches,
        "stages": accounts.stages(launches),
        "wall": accounts.wall_seconds(launches[-1]) if launches else None,
        "work": accounts.work(dense, done),
        "forecasts": forecasts(launches),
        "retrainings": found,
        "timeless": sum(not has_times(row) for row in rows),
        **(_parallel(found, rows, dense, launches) if found else {}),
    }


def _parallel(
    found: Retrainings, rows: Sequence[Row], dense: Sequence[Row], launches: Sequence[Launch]
) -> dict[str, Any]:
    trials = [trial for span in found.spans for trial in span.trials]
    whole = whole_sweep(found, launches, dense)
    moments = gpu_moments(trials)
    steps = step_times(rows)
    return {
        "workers_text": _workers_text(found.workers),
        "timed": sum(len(trial.rows) for trial in trials),
        "on_gpus": all(trial.devices for trial in trials),
        "whole": whole,
        "speedups": speedups(found, launches, dense),
        "serial": serial_share(found, Random(_SEED)),
        "parts": _parts(found),
        "slot_rows": _slot_rows(found),
        "trials": trials,
        "most_listed": MOST_LISTED,
        "gantt": gantt(found),
        "grouped": is_grouped(found),
        "replicate_lines": _replicate_lines(found),
        "amdahl_figure": speedup_figures.amdahl_curve(found, whole) if whole else None,
        "amdahl_points": amdahl_points(whole) if whole else [],
        "gpu_figure": speedup_figures.gpu_use_over_time(moments) if moments else None,
        "gpu_mean": mean_use(moments),
        "gpu_means": gpu_means(trials),
        "step_figure": speedup_figures.step_time_curves(steps) if steps else None,
        "steps": steps,
        "step_glyphs": _step_glyphs(sorted({one.backend for one in steps})),
    }


def _workers_text(workers: float) -> str:
    if workers.is_integer():
        return wording.quantity(int(workers), "worker")
    return f"{workers:.1f} workers (the mean over time)"


def _parts(found: Retrainings) -> list[Part]:
    looks: list[tuple[str, timedelta, int, float]] = [
        (TRAINING, found.work, REPLICATE_LINES[0], 1.0)
    ]
    looks += [
        (reason, time, REASON_LINES[reason], IDLE_ALPHA) for reason, time in found.idle.items()
    ]
    return [
        Part(*_PARTS[name], time.total_seconds(), _share(time, found.slot_time), line, alpha)
        for name, time, line, alpha in looks
    ]


def _share(time: timedelta, whole: timedelta) -> float:
    return time / whole if whole else 0.0


def _slot_rows(found: Retrainings) -> list[SlotRow]:
    return [
        SlotRow(
            launch=number,
            name=use.slot.name,
            trials=len(use.slot.trials),
            share=use.slot.busy / span.makespan if span.makespan else 1.0,
            seconds=(use.slot.busy.total_seconds(), *_idle_seconds(use)),
        )
        for number, (span, uses) in enumerate(zip(found.spans, found.uses, strict=True), 1)
        for use in uses
    ]


def _idle_seconds(use: SlotUse) -> list[float]:
    return [use.idle_for(reason).total_seconds() for reason in REASONS]


def _replicate_lines(found: Retrainings) -> list[tuple[int, int]]:
    """(replicate, its colour in the Gantt chart)."""
    numbers = sorted({trial.replicate for span in found.spans for trial in span.trials})
    return [(number, REPLICATE_LINES[number % len(REPLICATE_LINES)]) for number in numbers]


def _step_glyphs(backends: Sequence[str]) -> list[tuple[int, str, str]]:
    """(line, glyph, backend) of the figure of steps."""
    return [
        (number % len(GLYPHS), GLYPHS[number % len(GLYPHS)], backend)
        for number, backend in enumerate(backends)
    ]
