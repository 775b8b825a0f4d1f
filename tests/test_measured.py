"""Rows of made-up trials, whose speed-up and idle time are worked out by hand."""

import random
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_page import launch
from test_results import NOON, experiment_of, failed_row, ticket_row

from ltray.analysis.columns import Row
from ltray.analysis.measured import (
    REASONS,
    Retrainings,
    retrainings,
)
from ltray.analysis.plan_and_fact import Forecast, Speedup, forecasts, speedups
from ltray.analysis.planning.scaling_laws import karp_flatt
from ltray.analysis.serial_share import serial_share
from ltray.analysis.trials import has_times, of_sweeps, spans_of, trials_of
from ltray.analysis.usage import gpu_means, gpu_moments, mean_use, step_times
from ltray.analysis.whole_sweep import amdahl_points, whole_sweep
from ltray.files import write_json
from ltray.layout import RunFolder
from ltray.lottery.tickets import grid

TICKETS = grid(experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2), replicates=1))


def row(pack: str, start: float, end: float, **changes: Any) -> Row:
    """A ticket of a pack that trained from `start` to `end`, in seconds after noon."""
    times = {
        "started_at": (NOON + timedelta(seconds=start)).isoformat(),
        "finished_at": (NOON + timedelta(seconds=end)).isoformat(),
    }
    ticket = changes.pop("of", TICKETS[0])
    return ticket_row(ticket, **{"pack": pack, **times, **changes})


def gpu(pack: str, device: str, start: float, end: float, **changes: Any) -> Row:
    return row(pack, start, end, cuda_visible_devices=device, **changes)


def found(rows: Sequence[Row], launches: Sequence[dict[str, Any]] = ()) -> Retrainings:
    measured = retrainings(rows, launches)
    assert measured is not None
    return measured


def seconds(of: Retrainings) -> dict[str, float]:
    return {reason: time.total_seconds() for reason, time in of.idle.items()}


def launched(start: float, end: float | None, **stages: float) -> dict[str, Any]:
    return launch(
        started_at=(NOON + timedelta(seconds=start)).isoformat(),
        finished_at=None if end is None else (NOON + timedelta(seconds=end)).isoformat(),
        stages={name.replace("_", " "): each for name, each in stages.items()},
    )


# Two GPUs, five trials:  0: 0-10, 12-20, 23-30   1: 4-14, 15-25
FIVE = [
    gpu("a", "0", 0, 10),
    gpu("b", "1", 4, 14),
    gpu("c", "0", 12, 20),
    gpu("d", "1", 15, 25),
    gpu("e", "0", 23, 30),
]


def test_speedup_and_idle_time_by_hand() -> None:
    measured = found(FIVE)
    assert measured.work == timedelta(seconds=45)
    assert measured.makespan == timedelta(seconds=30)
    assert measured.workers == 2
    assert measured.speedup == 1.5
    assert measured.efficiency == 0.75
    assert seconds(measured) == {"start-up": 4, "waiting": 6, "failures": 0, "straggler": 5}


def test_tickets_of_a_pack_are_one_trial_and_its_parts_are_several() -> None:
    pack = [
        gpu("a", "0", 0, 10, of=TICKETS[0]),
        gpu("a", "0", 0, 11, of=TICKETS[1]),
        gpu("a", "0", 12, 20, of=TICKETS[2]),  # the second part
        gpu("a", "0", 12, 21, of=TICKETS[3]),
    ]
    trials = trials_of(pack)
    assert [(trial.busy.total_seconds(), len(trial.rows)) for trial in trials] == [(11, 2), (9, 2)]


def test_tickets_of_a_pack_whose_times_overlap_or_are_none_are_one_trial() -> None:
    (trial,) = trials_of([gpu("a", "0", 0, 10), gpu("a", "0", 8, 12)])
    assert trial.busy == timedelta(seconds=12)
    assert len(trials_of([gpu("a", "0", 5, 5), gpu("a", "0", 5, 5)])) == 1


def test_a_pack_of_each_replicate_is_a_trial_of_its_own() -> None:
    assert len(trials_of([row("a", 0, 10), row("a", 0, 10, replicate=1)])) == 2


def test_overlapping_packs_of_a_cpu_node_take_the_fewest_lanes() -> None:
    rows = [row("a", 0, 10), row("b", 1, 4), row("c", 4, 9), row("d", 5, 8), row("e", 10, 12)]
    (span,) = spans_of(trials_of(rows), [])
    lanes = {slot.name: [trial.pack for trial in slot.trials] for slot in span.slots}
    assert lanes == {
        "node-1 worker 1": ["a", "e"],
        "node-1 worker 2": ["b", "c"],
        "node-1 worker 3": ["d"],
    }


def test_slots_of_two_nodes_and_of_several_gpus() -> None:
    rows = [
        gpu("a", "0,1", 0, 10),
        gpu("b", "1,2", 11, 20),
        gpu("c", "3", 0, 5),
        gpu("d", "10", 0, 5),
        gpu("e", "0", 0, 10, node="node-2"),
        gpu("f", "0", 2, 12, node="node-2"),  # half a GPU each
    ]
    (span,) = spans_of(trials_of(rows), [])
    assert [slot.name for slot in span.slots] == [
        "node-1 GPU 0,1,2",
        "node-1 GPU 3",
        "node-1 GPU 10",
        "node-2 GPU 0 (1)",
        "node-2 GPU 0 (2)",
    ]


def test_a_straggler_leaves_the_others_idle() -> None:
    rows = [gpu(str(number), str(number), 0, 10) for number in range(3)]
    measured = found([*rows, gpu("slow", "3", 0, 100)])
    assert seconds(measured)["straggler"] == 270
    assert measured.speedup == 1.3


def test_time_above_the_usual_before_a_trial_begun_again_is_put_down_to_failures() -> None:
    rows = [
        gpu("a", "0", 0, 10),
        gpu("b", "0", 12, 20),  # 2 s: usual
        gpu("c", "0", 22, 30),  # 2 s
        gpu("d", "1", 0, 10),
        gpu("e", "1", 19, 20, attempts=3),  # 9 s, of which 7 are not usual
        gpu("f", "1", 28, 30, attempts=2),  # 8 s, of which 6 are not usual
        gpu("g", "1", 35, 36, attempts=2),  # 5 s, of which 3 are not usual
    ]
    idle = {"start-up": 0, "waiting": 10, "failures": 16, "straggler": 6}
    assert seconds(found(rows)) == idle


def test_lost_attempts_of_an_earlier_launch_are_not_seen_in_the_next() -> None:
    launches = [launched(-10, 15), launched(20, 60)]
    first = [gpu("a", "0", 0, 10), gpu("b", "1", 5, 10, attempts=2)]
    later = [gpu("c", "0", 30, 40), gpu("d", "1", 35, 40, attempts=2)]
    measured = found([*first, *later], launches)
    assert seconds(measured) == {"start-up": 5, "waiting": 0, "failures": 5, "straggler": 0}


def test_launches_are_summed_without_the_time_between() -> None:
    launches = [launched(-10, 31), launched(1000, 1050), launched(2000, None)]
    later = [gpu("f", "0", 1010, 1020), gpu("g", "1", 2010, 2015), gpu("h", "2", 2010, 2020)]
    measured = found([*FIVE, *later], launches)
    assert [span.launch for span in measured.spans] == [0, 1, 2]
    assert measured.makespan == timedelta(seconds=50)
    assert measured.work == timedelta(seconds=70)
    assert measured.slot_time == timedelta(seconds=90)  # 2 x 30 + 1 x 10 + 2 x 10
    assert measured.workers == pytest.approx(90 / 50)
    assert measured.efficiency == pytest.approx(70 / 90)


def test_a_killed_launch_left_no_record_and_is_a_span_of_its_own() -> None:
    launches = [launched(-10, 31), launched(1000, 1050)]
    killed = [gpu("f", "0", 500, 510)]
    measured = found([*FIVE, *killed, gpu("g", "0", 1010, 1020)], launches)
    assert [span.launch for span in measured.spans] == [0, None, 1]
    assert measured.makespan == timedelta(seconds=50)
    running = found([gpu("a", "0", 0, 5)], [])
    assert [span.launch for span in running.spans] == [None]


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3),  # GPU; 0 stands for CPUs
            st.integers(0, 10**9),
            st.integers(0, 10**8),
            st.integers(1, 3),
        ),
        min_size=1,
        max_size=30,
    ),
    st.lists(st.integers(1, 10**9), max_size=2, unique=True),
)
def test_busy_and_idle_time_fill_the_slots_exactly(
    drawn: list[tuple[int, int, int, int]], cuts: list[int]
) -> None:
    rows = [
        gpu(str(n), str(device or ""), start / 1e6, (start + length) / 1e6, attempts=attempts)
        for n, (device, start, length, attempts) in enumerate(drawn)
    ]
    measured = found(rows, [launched(cut / 1e6, None) for cut in sorted(cuts)])
    assert measured.work + sum(measured.idle.values(), timedelta()) == measured.slot_time
    for span, uses in zip(measured.spans, measured.uses, strict=True):
        for use in uses:
            parts = [(one.start, one.end) for one in use.slot.trials]
            parts += [(one.start, one.end) for one in use.idle]
            ends = sorted(part for part in parts if part[0] < part[1])
            assert all(left[1] == right[0] for left, right in pairwise(ends))
            assert not ends or (ends[0][0], ends[-1][1]) == (span.start, span.end)
    assert 0 <= measured.efficiency <= 1


def test_rows_without_times_are_left_out() -> None:
    backwards = row("b", 10, 5)
    unknown = row("c", 0, 5, started_at=None)
    for one in (failed_row(TICKETS[0]), backwards, unknown):
        assert not has_times(one)
    assert retrainings([failed_row(TICKETS[0]), backwards, unknown], []) is None
    assert retrainings([], [launch()]) is None
    assert len(trials_of([row("a", 0, 1, attempts=None), backwards])) == 1


def test_copies_that_tell_of_stability_are_no_trials_of_a_sweep(tmp_path: Path) -> None:
    import pandas as pd

    run = RunFolder(tmp_path)
    rows = [*FIVE, gpu("copy", "0", 100, 110), failed_row(TICKETS[0])]
    assert of_sweeps(run, rows) == rows
    run.stability.path.mkdir(parents=True)
    write_json(run.stability.launches, {"launches": [launched(90, 120)]})
    assert of_sweeps(run, rows) == [*FIVE, rows[-1]]
    frame = pd.DataFrame(rows)
    for column in ("started_at", "finished_at"):
        frame[column] = pd.to_datetime(frame[column])
    left = of_sweeps(run, frame.to_dict("records"))
    assert [row["status"] for row in left] == ["done"] * 5 + ["failed"]


def test_a_data_frames_rows_give_the_same() -> None:
    import pandas as pd

    rows = [*FIVE, failed_row(TICKETS[1])]
    frame = pd.DataFrame(rows)
    for column in ("started_at", "finished_at"):
        frame[column] = pd.to_datetime(frame[column])
    from_frame = found(frame.to_dict("records"))
    assert from_frame.work == found(rows).work
    assert from_frame.idle == found(rows).idle
    assert from_frame.spans[0].trials[0].gpu_utilisation is None


def test_whole_sweep_by_hand() -> None:
    stages = {"start_Ray": 5.0, "dense_run": 10.0, "retrainings": 34.0}
    launches = [launched(-15, 35, **stages)]
    whole = whole_sweep(found(FIVE, launches), launches, [])
    assert whole is not None
    assert whole.serial_seconds == 15
    assert whole.wall_seconds == 50
    assert whole.speedup == pytest.approx((15 + 45) / 50)
    assert whole.serial_share == pytest.approx(0.25)
    assert whole.amdahl == pytest.approx(1 / (0.25 + 0.75 / 2))
    assert whole.limit == pytest.approx(4)
    assert (whole.around_seconds, whole.unstaged_seconds) == (4, 1)
    assert whole.gustafson == pytest.approx(0.4 + 0.6 * 2)
    assert amdahl_points(whole) == [(1.0, 1.0), (2.0, whole.amdahl), (4.0, pytest.approx(16 / 7))]


@pytest.mark.parametrize(
    ("dense", "took", "speedup", "serial", "at_most"),
    [
        # Ten runs of 60 s beside each other and 6,000 s of trials, on ten workers.
        ([(0, 60)] * 10, 60, 10.0, 60, 10.0),
        # Two after each other on the same worker, beside a longer one; 5 s of starts.
        ([(5, 35), (35, 65), (5, 45)], 65, (5 + 100 + 6000) / 665, 5 + 40, 6105 / (45 + 600)),
        # One alone, with 2 s before it and 3 s after it.
        ([(2, 57)], 60, 6060 / 660, 60, 6060 / 660),
        # None of this launch.
        ([(-100, -40)], 60, 6060 / 660, 60, 6060 / 660),
    ],
)
def test_dense_runs_side_by_side_are_work_for_one_worker(
    dense: list[tuple[float, float]], took: float, speedup: float, serial: float, at_most: float
) -> None:
    launches = [launched(0, took + 600, dense_run=took, retrainings=600)]
    trials = [gpu(str(number), str(number), took, took + 600) for number in range(10)]
    runs = [row("none", start, end) for start, end in dense]
    whole = whole_sweep(found(trials, launches), launches, runs)
    assert whole is not None
    assert whole.speedup == pytest.approx(speedup)
    assert whole.serial_seconds == pytest.approx(serial)
    assert whole.amdahl == pytest.approx(at_most)
    assert whole.limit == pytest.approx(whole.alone_seconds / serial)


def test_whole_sweep_counts_launches_that_ended() -> None:
    dense_only = launched(-100, -80, dense_run=15.0)
    launches = [dense_only, launched(-15, 35, start_Ray=5.0, retrainings=34.0), launched(90, None)]
    measured = found([*FIVE, gpu("f", "0", 100, 200)], launches)
    whole = whole_sweep(measured, launches, [])
    assert whole is not None
    assert (whole.launches, whole.serial_seconds, whole.wall_seconds) == (2, 20, 70)
    assert (whole.work_seconds, whole.workers) == (45, 2)
    assert whole_sweep(measured, [launched(-15, None)], []) is None
    assert whole_sweep(measured, [], []) is None


def test_plan_against_fact() -> None:
    planned = {"after": 10.0, "seconds": 40.0, "low": 30.0, "high": 50.0}
    launches = [
        launched(0, 20),
        {**launched(30, 80), "planned": planned, "reached_report": True},
        {**launched(90, 200, report=1.0), "planned": planned},  # as records were once
        {**launched(300, None), "planned": planned, "reached_report": True},
    ]
    assert forecasts(launches) == [Forecast(**planned, took=50.0), Forecast(**planned, took=110.0)]
    assert [one.held for one in forecasts(launches)] == [True, False]


def test_no_plan_is_judged_by_a_launch_that_was_interrupted() -> None:
    planned = {"after": 10.0, "seconds": 40.0, "low": 30.0, "high": 50.0}
    cut_off = {**launched(0, 20, retrainings=5.0), "planned": planned}
    assert forecasts([cut_off, cut_off | {"reached_report": False}]) == []


def test_planned_speedups_beside_the_measured_and_amdahls() -> None:
    planned = {"after": 12.0, "seconds": 40.0, "low": 30.0, "high": 50.0}
    on = {"workers": 3, "seconds_on_one": 60.0, "retrainings": 20.0, "retrainings_on_one": 50.0}
    stages = {"start_Ray": 5.0, "dense_run": 10.0, "retrainings": 34.0}
    old = {**launched(-15, 35, **stages), "planned": planned, "reached_report": True}
    new = old | {"planned": planned | on}
    launches = [launched(-200, -100), new, launched(90, None)]
    assert speedups(found(FIVE, launches), launches, []) == [
        Speedup("the retrainings", 2.5, 1.5, None, 3, 2.0),
        Speedup("the whole launch", 1.5, (15 + 45) / 50, 1 / (0.25 + 0.75 / 2), 3, 2.0),
    ]
    for launch_ in (old, new | {"reached_report": False}):
        assert speedups(found(FIVE, [launch_]), [launch_], []) == []


def listed(durations: Sequence[float], slots: int, pause: float) -> list[Row]:
    """Trials given to GPUs as these become free, each after a pause."""
    free = [0.0] * slots
    rows = []
    for number, duration in enumerate(durations):
        slot = free.index(min(free))
        start = free[slot] + pause
        rows.append(gpu(str(number), str(slot), start, start + duration))
        free[slot] = start + duration
    return rows


def sweep_of_chance(seed: int, trials: int = 24, slots: int = 4) -> Retrainings:
    chance = random.Random(seed)
    durations = [100 * chance.lognormvariate(0, 0.3) for _ in range(trials)]
    return found(listed(durations, slots, pause=5))


def test_serial_share_is_karp_and_flatts() -> None:
    share = serial_share(found(FIVE), random.Random(1))
    assert share is not None
    assert share.share == pytest.approx(karp_flatt(2, 1.5))
    assert share.share == pytest.approx(1 / 3)
    assert share.low <= share.share <= share.high
    assert share == serial_share(found(FIVE), random.Random(1))


def test_workers_slower_than_one_have_no_upside_down_interval() -> None:
    slow = serial_share(found([gpu("a", "0", 0, 10), gpu("b", "1", 90, 100)]), random.Random(1))
    assert slow is not None
    assert slow.share > 1
    assert slow.low <= slow.share <= slow.high


def test_95_of_100_intervals_cover_the_share_of_the_mean_sweep() -> None:
    many = [sweep_of_chance(seed) for seed in range(1000, 1600)]
    work = sum((one.work for one in many), timedelta())
    makespan = sum((one.makespan for one in many), timedelta())
    truth = karp_flatt(4, work / makespan)
    shares = [serial_share(one, random.Random(seed)) for seed, one in enumerate(many[:400])]
    covered = sum(one.low <= truth <= one.high for one in shares if one)
    assert 0.93 * 400 <= covered <= 0.97 * 400
    widths = sorted(one.high - one.low for one in shares if one)
    assert widths[200] < 0.06


def test_chance_in_the_pauses_alone_widens_the_interval() -> None:
    def width(pauses: Sequence[float]) -> float:
        rows, ends = [], [0.0, 0.0]
        for number, pause in enumerate(pauses):
            device = number % 2
            start = ends[device] + pause
            ends[device] = start + 100
            rows.append(gpu(str(number), str(device), start, ends[device]))
        share = serial_share(found(rows), random.Random(1))
        assert share is not None
        return share.high - share.low

    assert width([10] * 20) == pytest.approx(0, abs=1e-9)
    assert width([0, 20] * 10) > 0.01


def test_one_worker_has_no_serial_share() -> None:
    assert serial_share(found([row("a", 0, 10), row("b", 11, 20)]), random.Random(1)) is None
    at_once = found([gpu("a", "0", 5, 5), gpu("b", "1", 5, 5)])
    assert serial_share(at_once, random.Random(1)) is None
    assert (at_once.speedup, at_once.workers) == (1, 2)


def test_gpu_use_is_the_mean_of_the_trials_that_run() -> None:
    rows = [
        gpu("a", "0", 0, 10, gpu_utilisation=0.5),
        gpu("b", "1", 4, 14, gpu_utilisation=0.9),
        gpu("c", "0", 20, 40, gpu_utilisation=1.0),
        gpu("d", "1", 20, 30),
    ]
    moments = gpu_moments(trials_of(rows))
    assert [(one.seconds, one.trials) for one in moments] == [(4, 1), (6, 2), (4, 1), (20, 1)]
    assert [one.utilisation for one in moments] == pytest.approx([0.5, 0.7, 0.9, 1.0])
    assert mean_use(moments) == pytest.approx((5 + 9 + 20) / 40)
    means = gpu_means(trials_of(rows))
    assert [(one.devices, one.seconds) for one in means] == [("0", 30), ("1", 10)]
    assert [one.utilisation for one in means] == pytest.approx([25 / 30, 0.9])
    assert gpu_moments(trials_of(FIVE)) == []
    assert mean_use([]) is None


def test_step_times_are_medians_by_sparsity_and_backend() -> None:
    def timed(train_seconds: float | None, steps: int | None, **changes: Any) -> Row:
        return row("a", 0, 1, train_seconds=train_seconds, steps_trained=steps, **changes)

    rows = [timed(1.0, 500), timed(2.0, 500), timed(9.0, 500), timed(1.0, 1000, backend="fused")]
    rows += [timed(None, 500), timed(1.0, 0), timed(1.0, 250, sparsity=0.9)]
    said = [(one.sparsity, one.backend, one.milliseconds, one.n) for one in step_times(rows)]
    assert said == [(0.5, "fused", 1.0, 1), (0.5, "loop", 4.0, 3), (0.9, "loop", 4.0, 1)]


def test_reasons_are_those_of_idle_time() -> None:
    assert tuple(found(FIVE).idle) == REASONS
