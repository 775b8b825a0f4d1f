"""The figures of a measured speed-up, and the section of the page that they stand in."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from test_measured import FIVE, found, gpu, launched, listed, row
from test_page import EVIL, Page, page_of
from test_results import NOON, experiment_of, failed_row, ticket_row, write_run

from ltray.analysis.columns import Row
from ltray.analysis.gantt import gantt, is_grouped
from ltray.analysis.page import write_report
from ltray.analysis.speedup_figures import amdahl_curve, gpu_use_over_time, step_time_curves
from ltray.analysis.speedup_section import speedup_content
from ltray.analysis.trials import trials_of
from ltray.analysis.usage import gpu_moments, step_times
from ltray.analysis.whole_sweep import whole_sweep
from ltray.files import write_json
from ltray.lottery.tickets import Ticket

SMALL = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2))
STAGES = {"start_Ray": 5.0, "dense_run": 10.0, "retrainings": 34.0}


def words(svg: str) -> list[str]:
    """The figure's title and labels; it must be whole markup, with no colour left to fill in."""
    Page(svg)
    assert "#0401" not in svg
    return [unescape(found) for found in re.findall(r"<(?:title|text)[^>]*>([^<]*)<", svg)]


def bars(svg: str) -> list[int]:
    """How many closed outlines each path that is filled with a line's colour has."""
    paths = re.findall(r'<path d="([^"]*)"[^>]*fill: var\(--line-\d', svg)
    return [path.count("z") for path in paths]


def heights(svg: str, colour: str) -> list[float]:
    """Of every outline that is filled with a colour."""
    paths = re.findall(rf'<path d="([^"]*)"[^>]*fill: var\(--{colour}', svg)
    outlines = [outline for path in paths for outline in path.split("z")[:-1]]
    sides = [[float(y) for y in re.findall(r"[\d.]+ ([\d.]+)", one)] for one in outlines]
    return [round(max(ys) - min(ys), 2) for ys in sides]


def side_by_side(**changes: Any) -> Callable[[Ticket], Row]:
    """Tickets of a pack each, on four GPUs, each after the other by a second."""
    places: dict[str, int] = {}

    def row_of(ticket: Ticket) -> Row:
        number = places.setdefault(ticket.name, len(places))
        start = NOON + timedelta(seconds=20.0 * (number // 4) + number % 4)
        end = start + timedelta(seconds=15)
        times = {"started_at": start.isoformat(), "finished_at": end.isoformat()}
        where = {"pack": str(number), "cuda_visible_devices": str(number % 4)}
        return ticket_row(ticket, **{**times, **where, **changes})

    return row_of


def test_gantt_has_a_bar_for_each_trial_and_each_idle_time() -> None:
    svg = gantt(found(FIVE))
    said = words(svg)
    assert said[0] == (
        "When each of 2 slots trained: 5 trials in 30.0\N{NARROW NO-BREAK SPACE}s, 75.0 % of the "
        "slots' time busy."
    )
    assert {"node-1 GPU 0", "node-1 GPU 1"} < set(said)
    assert bars(svg) == [1, 3, 1, 5]  # start-up, waiting, straggler, trials


def test_gantt_colours_replicates_and_divides_launches() -> None:
    rows = [*FIVE, gpu("f", "0", 1010, 1020, replicate=1)]
    svg = gantt(found(rows, [launched(-10, 31), launched(1000, 1050)]))
    assert bars(svg) == [1, 3, 1, 5, 1]
    assert svg.count("stroke-dasharray") == 1


def test_names_of_hosts_are_shortened_and_are_no_formulas() -> None:
    hosts = ["gpu-7.example.org", "10.0.0.12", "a$b$c", "a-host-with-a-very-long-name-12"]
    said = words(gantt(found([gpu(host, "0", 0, 10, node=host) for host in hosts])))
    short = ["gpu-7", "10.0.0.12", "a$b$c", "…a-very-long-name-12"]
    assert {f"{host} GPU 0" for host in short} <= set(said)


def test_many_slots_are_drawn_in_groups_and_many_trials_as_shares() -> None:
    slots = found([gpu(str(n), str(n), 0, 10 + n) for n in range(41)])
    assert is_grouped(slots)
    said = words(gantt(slots))
    assert "slots 1 to 2" in said
    assert "slots 41 to 41" in said
    trials = found(listed([10.0] * 2001, 2, pause=1))
    assert is_grouped(trials)
    svg = gantt(trials)
    assert "node-1 GPU 1" in words(svg)
    assert len(svg) < 100_000
    assert not is_grouped(found(FIVE))


def test_share_of_a_group_is_that_of_its_slots() -> None:
    half = [gpu(str(n), str(n), 0, 10) for n in range(0, 80, 2)]
    rest = [gpu(str(n), str(n), 10, 20) for n in range(1, 80, 2)]
    svg = gantt(found([*half, *rest]))
    (back, *_), filled = (heights(svg, colour) for colour in ("rule", "line-0"))
    assert len(filled) == 40 * 120
    assert {min(filled), max(filled)} <= {round(back / 2 + nudge, 2) for nudge in (-0.01, 0, 0.01)}


def test_amdahl_figure_says_what_it_shows() -> None:
    launches = [launched(-15, 35, **STAGES)]
    measured = found(FIVE, launches)
    whole = whole_sweep(measured, launches, [])
    assert whole is not None
    said = words(amdahl_curve(measured, whole))
    assert said[0] == (
        "Speed-up against workers. Amdahl's law with a serial share of 25.0 % gives 1.60 on 2 "
        "workers; the whole sweep came to 1.20, the retrainings alone to 1.50."
    )


def test_figures_of_steps_and_gpu_use() -> None:
    rows = [row("a", 0, 10, sparsity=level) for level in (0.5, 0.9)]
    rows += [row("a", 0, 10, sparsity=0.99, backend=EVIL)]
    svg = step_time_curves(step_times(rows))
    assert words(svg)[0].endswith(f"by {EVIL}, loop.")
    busy = [
        gpu("a", "0", 0, 10, gpu_utilisation=0.5),
        gpu("b", "0", 20, 30, gpu_utilisation=0.9),
    ]
    svg = gpu_use_over_time(gpu_moments(trials_of(busy)))
    assert words(svg)[0] == "GPU use over time, between 50 % and 90 %."
    assert len(re.findall(r"stroke: var\(--line-0", svg)) == 2  # a line for each stretch


def test_long_gpu_use_is_thinned_out_to_means() -> None:
    rows = [gpu(str(n), "0", 10 * n, 10 * n + 10, gpu_utilisation=n % 2) for n in range(2000)]
    svg = gpu_use_over_time(gpu_moments(trials_of(rows)))
    assert "hours since the first trial began" in words(svg)
    assert len(svg) < 80_000
    # Each of 400 times has five trials, of which two or three have 1 and the others 0.
    (line,) = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--line-0', svg)
    levels = {round(float(y), 1) for y in re.findall(r"[\d.]+ ([\d.]+)", line)}
    high, low = sorted(levels)  # y grows downwards
    bottom, top = 235.9, 235.9 - 232.9 / 1.02  # of the axes, from 0 to 1.02
    assert (bottom - low) / (bottom - top) == pytest.approx(0.4, abs=0.01)
    assert (bottom - high) / (bottom - top) == pytest.approx(0.6, abs=0.01)


def test_section_of_a_finished_sweep(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, side_by_side(gpu_utilisation=0.8))
    told = launched(-15, 35, **STAGES) | {"reached_report": True}
    planned = {"after": 12.0, "seconds": 40.0, "low": 30.0, "high": 60.0, "workers": 4}
    planned |= {"seconds_on_one": 80.0, "retrainings": 20.0, "retrainings_on_one": 70.0}
    write_json(run.launches, {"launches": [{**told, "planned": planned}]})
    page = page_of(run, SMALL)
    # Each trial is 15 s long, the last one ends after 18 s.
    assert "4 trials, each a process that trains tickets together, trained 4 tickets" in page.text
    assert "One after the other they would have taken 1 min 00 s" in page.text
    assert "together they took 18.0 s: a speed-up of 3.33" in page.text
    assert "18.0 s = 1 min 12 s of workers" in page.text
    assert "40.0 s (30.0 s to 1 min 00 s). It took 50.0 s, within that range." in page.text
    assert "the retrainings3.50 (87.5 % of 4)3.33 (83.3 % of 4)" in page.text
    assert "the whole launch2.00 (50.0 % of 4)" in page.text
    assert "would explain their speed-up, by Karp and Flatt" in page.text
    assert "80.0 % in the mean over the trials" in page.text
    assert page.tags.count("svg") == 3 + 4
    assert "left no record" not in page.text


def test_section_without_launches_workers_or_plan(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, SMALL), SMALL)
    assert "No launch has been recorded." in page.text
    assert "A launch left no record" in page.text
    assert "The plan" not in page.text
    assert "GPU use" not in page.text
    one = write_run(tmp_path / "one", SMALL, lambda ticket: ticket_row(ticket, pack="only"))
    text = page_of(one, SMALL).text
    assert "1 worker side by side" in text
    assert "Karp" not in text


def test_section_of_a_sweep_in_which_all_failed(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, failed_row)
    write_json(run.launches, {"launches": [launched(-15, 35, **STAGES)]})
    page = page_of(run, SMALL)
    assert "No retraining has finished that could be timed." in page.text
    assert "The last launch took 50.0 s from start to end." in page.text
    assert page.tags.count("svg") == 1  # the dense run's learning curve


def test_section_says_how_many_tickets_have_no_times(tmp_path: Path) -> None:
    def row_of(ticket: Ticket) -> Row:
        return failed_row(ticket) if ticket.sparsity == 0.9 else ticket_row(ticket)

    run = write_run(tmp_path, SMALL, row_of)
    assert "2 tickets without times (failed, or with a clock set back)" in page_of(run, SMALL).text


def test_names_of_nodes_devices_and_packs_are_escaped(tmp_path: Path) -> None:
    foreign = {"node": EVIL, "device": EVIL, "backend": EVIL, "gpu_utilisation": 0.5}

    def row_of(ticket: Ticket) -> Row:
        numbered = {"pack": f"{EVIL}{ticket.sparsity}"}
        return side_by_side(**foreign, **numbered, cuda_visible_devices=EVIL)(ticket)

    run = write_run(tmp_path, SMALL, row_of)
    page = page_of(run, SMALL)
    assert "script" not in page.tags
    assert f"{EVIL}0.9" in page.text


def test_section_is_the_same_each_time() -> None:
    content = [speedup_content(FIVE, [], FIVE, [launched(-15, 35, **STAGES)]) for _ in range(2)]
    assert content[0] == content[1]


def test_report_of_500_tickets_stays_small(tmp_path: Path) -> None:
    levels = [number / 100 for number in range(50, 100)]
    experiment = experiment_of(sparsities=levels, reset_epochs=tuple(range(10)))
    run = write_run(tmp_path, experiment, side_by_side(gpu_utilisation=0.5))
    write_json(run.launches, {"launches": [launched(-15, 3000, **STAGES)]})
    assert write_report(run, experiment).stat().st_size < 2_000_000
