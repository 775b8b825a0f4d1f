"""Barriers by reset point: means, intervals, where training is stable, and the page of it all."""

from pathlib import Path
from typing import Any

import pytest
from test_results import experiment_of, ticket_row

from ltray.analysis.barriers import Barrier, barriers, first_stable
from ltray.analysis.results import Rows
from ltray.analysis.stability import write_stability
from ltray.data.pixels import Pixels
from ltray.files import write_json
from ltray.layout import DataFolder, RunFolder
from ltray.lottery.pairs import Pair, pairs_of, with_copies
from ltray.run import Run

POINTS = (0, 1, 2, 4)


def barrier(
    reset_epoch: float, *heights: float, missing: int = 0, diverged: bool = False
) -> Barrier:
    rows = [
        {
            "val_barrier": height,
            "val_barrier_low": height - 0.01,
            "val_barrier_high": height + 0.01,
            "val_errors": [0.1, 0.1 + height, 0.1],
        }
        for height in heights
    ]
    return Barrier(0.0, reset_epoch, tuple(rows), (0.9,), diverged, ("not measured",) * missing)


def test_one_replicate_has_an_interval_over_images_and_several_over_replicates() -> None:
    one, three = barrier(0, 0.05), barrier(0, 0.05, 0.06, 0.07)
    assert one.over == "images"
    assert interval(one) == pytest.approx((0.04, 0.06))
    assert three.over == "replicates"
    assert three.height("val") == pytest.approx(0.06)
    # Student's t of three: 4.303 x 0.01 / sqrt(3).
    assert interval(three)[0] == pytest.approx(0.06 - 0.02484, abs=1e-4)
    assert three.errors == pytest.approx([0.1, 0.16, 0.1])
    assert interval(barrier(0, 0.01, 0.06))[0] == 0  # no barrier is lower
    assert barrier(0, 0.01, 0.01).interval("val") is None  # equal ones are no sign of no spread


def interval(of: Barrier) -> tuple[float, float]:
    found = of.interval("val")
    assert found is not None
    return found.low, found.high


def test_what_the_ends_alone_put_into_a_barrier_is_told() -> None:
    rows = {"val_errors": [0.4, 0.3, 0.1], "val_barrier": 0.15}
    falling = Barrier(0.0, 0.0, (rows,), (0.9,), diverged=False, missing=())
    assert falling.of_ends("val") == pytest.approx(0.15) == falling.height("val")
    assert barrier(0, 0.05).of_ends("val") == 0


def test_stable_is_from_a_point_on_and_not_at_a_point() -> None:
    heights = (0.3, 0.01, 0.05, 0.02)
    line = [barrier(point, height) for point, height in zip(POINTS, heights, strict=True)]
    found = first_stable(line)
    assert found is not None
    assert found.reset_epoch == 4
    assert first_stable([barrier(0, 0.01), barrier(1, 0.021)]) is None
    assert first_stable([]) is None


def test_what_was_not_measured_is_not_known_to_be_stable() -> None:
    line = [barrier(0, 0.01), barrier(1, missing=1), barrier(2, 0.01)]
    found = first_stable(line)
    assert found is not None
    assert found.reset_epoch == 2
    assert first_stable([barrier(0, 0.01), barrier(1, missing=1)]) is None


def test_where_a_copy_diverged_the_others_do_not_make_it_stable() -> None:
    line = [barrier(0, 0.01, missing=1, diverged=True), barrier(1, 0.01, 0.01)]
    found = first_stable(line)
    assert found is not None
    assert found.reset_epoch == 1


def run_of(folder: Path, **changes: Any) -> Run:
    pixels = Pixels(image_size=8, channels=1, resize="crop", encoding="raw")
    run = RunFolder(folder / "digits-00000000")
    return Run(experiment_of(**changes), "0" * 64, pixels, run, DataFolder(folder / "data"))


def write_line(run: Run, pair: Pair, height: float) -> None:
    """A measured line, and the copies that it lies between."""
    replicate = run.folder.replicate(pair.one.replicate)
    for ticket in (pair.one, pair.other):
        folder = replicate.ticket(ticket.name)
        write_json(folder.done, {"sha256": {folder.weights.name: ticket.name}})
    row: dict[str, Any] = {
        "replicate": pair.one.replicate,
        "ticket": pair.one.name,
        "other": pair.other.name,
        "sparsity": pair.one.sparsity,
        "reset_epoch": pair.one.reset_epoch,
        "at": [0.0, 0.5, 1.0],
        "device": "cpu",
        "node": "here",
        "seconds": 1.0,
        "finished_at": "2026-01-01T00:00:00.000000+00:00",
    }
    for split in ("val", "test"):
        row |= {
            f"{split}_errors": [0.1, 0.1 + height, 0.1],
            f"{split}_barrier": height,
            f"{split}_barrier_low": height / 2,
            f"{split}_barrier_high": height * 2,
        }
    path = run.folder.stability.line(pair.one.replicate, pair.one.name)
    write_json(path, {"between": [pair.one.name, pair.other.name], "row": row})


def measured(run: Run, pairs: list[Pair], heights: dict[float, float]) -> Rows:
    rows = Rows()
    for pair in pairs:
        for ticket in (pair.one, pair.other):
            rows.put(ticket_row(ticket), [])
        if pair.one.reset_epoch in heights:
            write_line(run, pair, heights[pair.one.reset_epoch])
    return rows


def test_the_page_says_from_which_point_on_training_is_stable(tmp_path: Path) -> None:
    run = run_of(tmp_path, sparsities=(0.5, 0.9), reset_epochs=POINTS)
    (dense,) = with_copies(run.experiment, [])
    pairs = pairs_of(dense)
    rows = measured(run, pairs, {0: 0.3, 1: 0.1, 2: 0.01, 4: 0.005})
    assert write_stability(run, pairs, rows) == 0
    page = run.folder.stability.report.read_text()
    assert "<strong>from epoch 2 on</strong>, with a barrier of 1.0 points there" in page
    assert page.count("<svg") == 3


def test_the_page_of_several_replicates_has_each_line(tmp_path: Path) -> None:
    run = run_of(tmp_path, sparsities=(0.5,), reset_epochs=(0,), replicates=2)
    (dense,) = with_copies(run.experiment, [])
    pairs = pairs_of(dense)
    rows = measured(run, pairs, {0: 0.3})
    assert write_stability(run, pairs, rows) == 0
    page = run.folder.stability.report.read_text()
    assert "Each line, with its interval over images" in page
    lines = page.partition("Each line")[2].partition("</table>")[0]
    assert lines.count('<th scope="row">') == len(pairs) == 2


def test_a_line_of_copies_that_are_others_by_now_does_not_count(tmp_path: Path) -> None:
    run = run_of(tmp_path, sparsities=(0.5,), reset_epochs=(0,))
    (dense,) = with_copies(run.experiment, [])
    (pair,) = pairs_of(dense)
    rows = measured(run, [pair], {0: 0.3})
    folder = run.folder.replicate(0).ticket(pair.one.name)
    write_json(folder.done, {"sha256": {folder.weights.name: "another"}})
    assert write_stability(run, [pair], rows) == 1
    assert "not measured" in run.folder.stability.report.read_text()


def test_a_copy_that_diverged_is_said_and_is_no_failure(tmp_path: Path) -> None:
    run = run_of(tmp_path, sparsities=(0.5,), reset_epochs=(0, 1))
    (dense,) = with_copies(run.experiment, [])
    pairs = pairs_of(dense)
    rows = measured(run, pairs, {1: 0.01})
    rows.tickets[0, pairs[0].one.name]["status"] = "diverged"
    assert write_stability(run, pairs, rows) == 0
    assert "replicate 0: a copy diverged" in run.folder.stability.report.read_text()
    (first, _) = barriers(pairs, {pair.name: None for pair in pairs}, rows)
    assert first.missing == ("replicate 0: a copy diverged",)
    assert first.diverged


def test_what_was_measured_before_is_shown_beside_what_is_asked_for(tmp_path: Path) -> None:
    run = run_of(tmp_path, sparsities=(0.5, 0.9), reset_epochs=(0,))
    dense, tickets = with_copies(run.experiment, [0.9])
    rows = measured(run, [*pairs_of(dense), *pairs_of(tickets)], {0: 0.3})
    write_stability(run, pairs_of(dense), rows)
    page = run.folder.stability.report.read_text()
    assert "tickets at 90" in page
    assert "tickets at 50" not in page
    assert "--sparsities 0.9" in page


def test_a_search_does_not_search_among_copies(tmp_path: Path) -> None:
    run = run_of(tmp_path, sparsities=(0.5, 0.9), reset_epochs=(0,))
    prune = run.experiment.prune.model_copy(update={"search": "matching"})
    experiment = run.experiment.model_copy(update={"prune": prune})
    assert {one.prune.search for one in with_copies(experiment, [0.5, 0.9])} == {"grid"}
