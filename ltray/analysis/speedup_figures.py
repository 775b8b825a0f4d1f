"""Figures of a measured speed-up: Amdahl's curve, the time of a step, GPU use."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING

from ltray.analysis.drawing import (
    INK,
    LINES,
    density_axis,
    look,
    new_axes,
    percent_axis,
    styled,
    svg_of,
)
from ltray.analysis.measured import Retrainings
from ltray.analysis.usage import GpuMoment, StepTime
from ltray.analysis.whole_sweep import WholeSweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_MOMENTS = 400


def amdahl_curve(found: Retrainings, whole: WholeSweep) -> str:
    """What Amdahl's law gives the sweep with p workers, and what was measured."""
    most = 2 * max(2, ceil(whole.workers))
    counts = [1 + (most - 1) * number / 60 for number in range(61)]
    curve = [whole.amdahl_on(count) for count in counts]
    highest = max(*curve, whole.speedup, found.speedup)
    with styled():
        figure, axes = new_axes()
        axes.plot([1, most], [1, most], color=INK, linewidth=1, linestyle="--")
        axes.plot(counts, curve, color=LINES[0], linewidth=1.5)
        axes.plot([found.workers], [found.speedup], **{**look(2), "markersize": 10})
        axes.plot([whole.workers], [whole.speedup], **{**look(1), "markersize": 6})
        axes.set_xlim(1, most)
        axes.set_ylim(0, min(most, 1.35 * highest) * 1.02)
        axes.set_xlabel("workers p")
        axes.set_ylabel("speed-up S(p)")
        axes.tick_params(length=0)
        alt = (
            f"Speed-up against workers. Amdahl's law with a serial share of "
            f"{100 * whole.serial_share:.1f} % gives {whole.amdahl:.2f} on {whole.workers:.3g} "
            f"workers; the whole sweep came to {whole.speedup:.2f}, the retrainings alone to "
            f"{found.speedup:.2f}."
        )
        return svg_of(figure, "amdahl", alt)


def step_time_curves(times: Sequence[StepTime]) -> str:
    """Milliseconds per step of a ticket over the share of weights kept, a line per backend."""
    backends = sorted({one.backend for one in times})
    with styled():
        figure, axes = new_axes()
        # Before there is data: matplotlib warns where a log scale comes to a single place.
        density_axis(axes, [1 - one.sparsity for one in times])
        for number, backend in enumerate(backends):
            line = [one for one in times if one.backend == backend]
            kept = [1 - one.sparsity for one in line]
            axes.plot(kept, [one.milliseconds for one in line], **look(number))
        axes.set_ylim(0, 1.1 * max(one.milliseconds for one in times))
        axes.set_ylabel("ms per step and ticket")
        alt = (
            "Milliseconds per training step of one ticket against the share of weights kept, by "
            f"{', '.join(backends)}."
        )
        return svg_of(figure, "steps", alt)


def gpu_use_over_time(moments: Sequence[GpuMoment]) -> str:
    """The mean GPU use of the trials that ran, over the time since the first of them."""
    start = moments[0].start
    with styled():
        figure, axes = new_axes()
        for stretch in _stretches(_moments_to_draw(moments)):
            times = [time for left, right, _ in stretch for time in (left, right)]
            uses = [use for *_, use in stretch for _ in range(2)]
            axes.fill_between(times, uses, color=LINES[0], alpha=0.25, lw=0)
            axes.plot(times, uses, color=LINES[0], linewidth=1.5)
        axes.set_ylim(0, 1.02)
        percent_axis(axes)
        axes.set_ylabel("GPU use, mean of running trials")
        time_axis(axes, (moments[-1].end - start).total_seconds())
        lowest, highest = (f(one.utilisation for one in moments) for f in (min, max))
        alt = f"GPU use over time, between {100 * lowest:.0f} % and {100 * highest:.0f} %."
        return svg_of(figure, "gpu-use", alt)


def time_axis(axes: "Axes", seconds: float) -> None:
    """Time since the first start, in the unit that fits its length."""
    units = ((120, "seconds", 1), (7200, "minutes", 60), (259_200, "hours", 3600))
    fitting = ((name, each) for most, name, each in units if seconds <= most)
    name, each = next(fitting, ("days", 86_400))
    axes.set_xlim(0, seconds or 1.0)
    steps = _ticks((seconds or 1.0) / each)
    axes.set_xticks([step * each for step in steps], [f"{step:g}" for step in steps])
    axes.set_xlabel(f"{name} since the first trial began")
    axes.tick_params(length=0)


def spread(left: float, right: float, width: float, bins: int) -> Iterator[tuple[int, float]]:
    """(bin, how much of it lies between left and right), of bins of one width from 0 on."""
    for number in range(int(left / width), min(bins, ceil(right / width))):
        part = min((number + 1) * width, right) - max(number * width, left)
        if part > 0:
            yield number, part


def _ticks(most: float) -> list[float]:
    """Round numbers from 0 to `most`, about eight."""
    scales = (scale * 10.0**power for power in range(-6, 7) for scale in (1, 2, 5))
    step = next(scale for scale in scales if most / scale <= 8)
    return [round(number * step, 9) for number in range(int(most / step) + 1)]


def _moments_to_draw(moments: Sequence[GpuMoment]) -> list[tuple[float, float, float]]:
    """(left, right, utilisation) in seconds; of many, means over equal times."""
    start = moments[0].start
    exact = [
        ((one.start - start).total_seconds(), (one.end - start).total_seconds(), one.utilisation)
        for one in moments
    ]
    if len(exact) <= _MOST_MOMENTS:
        return exact
    width = exact[-1][1] / _MOST_MOMENTS
    seconds, used = ([0.0] * _MOST_MOMENTS for _ in range(2))
    for left, right, use in exact:
        for number, part in spread(left, right, width, _MOST_MOMENTS):
            seconds[number] += part
            used[number] += part * use
    return [
        (number * width, (number + 1) * width, used[number] / seconds[number])
        for number in range(_MOST_MOMENTS)
        if seconds[number]
    ]


def _stretches(
    moments: Sequence[tuple[float, float, float]],
) -> list[list[tuple[float, float, float]]]:
    """The moments cut where one does not follow on the other."""
    found = [[moments[0]]]
    for earlier, later in pairwise(moments):
        if later[0] > earlier[1] + 1e-9 * abs(earlier[1]):
            found.append([])
        found[-1].append(later)
    return found
