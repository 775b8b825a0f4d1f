import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import HANGS
from conftest import MakeRun
from per_image import write_all_correct, write_bits
from test_controls import with_retrainings
from test_page import EVIL, Page, launch, plain
from test_results import VAL_IMAGES, experiment_of, failed_row, ticket_row, write_run

from ltray.analysis.columns import Row
from ltray.analysis.comparison import same_images, settings_that_differ, write_comparison
from ltray.analysis.intervals import two_means
from ltray.data.pixels import pixels_of
from ltray.errors import LtrayError
from ltray.experiment import Experiment, SourceFacts
from ltray.files import write_json
from ltray.layout import DataFolder
from ltray.lottery.tickets import Ticket, grid
from ltray.record import write_experiment
from ltray.run import Run

ONE_CELL = experiment_of(sparsities=(0.9,), reset_epochs=(0,))


def run_of(
    root: Path,
    name: str,
    experiment: Experiment,
    row_of: Callable[[Ticket], Row | None] = ticket_row,
    data: str = "digits-01234567",
) -> Run:
    facts = SourceFacts(fingerprint="f", image_size=8, channels=1)
    return Run(
        experiment=experiment,
        fingerprint="f",
        pixels=pixels_of(experiment.data, facts),
        folder=write_run(root / name, experiment, row_of),
        data=DataFolder(root / "data" / data),
    )


def page_of(one: Run, other: Run) -> Page:
    return Page(write_comparison(one, other).read_text())


def right(count: int) -> Callable[[Ticket], Row]:
    def row_of(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=count / VAL_IMAGES, test_top1=0.976)

    return row_of


def test_single_seeds_are_paired_over_the_same_images(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a-1", ONE_CELL, right(188))
    b = run_of(tmp_path, "b-2", ONE_CELL, right(180))
    for run, validation in ((a, range(188)), (b, range(180))):
        replicate = run.folder.replicate(0)
        write_bits(replicate.dense_correct, {"validation": range(190), "test": range(488)})
        name = grid(ONE_CELL)[0].name
        write_bits(replicate.ticket(name).correct, {"validation": validation, "test": range(488)})
    page = write_comparison(a, b)
    assert page == tmp_path / "compare-a-1-b-2.html"
    text = Page(page.read_text()).text
    # B loses 8 of A's images and gains none: p = 2 / 2^8, and Tango's interval.
    assert "-4.1-7.9 to -2.1" in text
    assert "B lies below A in 1 and above it in 0 by more than chance in these images" in text
    assert "not over seeds" in text
    assert "Intervals are over images, not over seeds." in text


def test_replicates_are_compared_by_welch(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0,), replicates=3)

    def better(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=0.97 + 0.001 * ticket.replicate)

    def worse(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=0.94 + 0.001 * ticket.replicate)

    a = run_of(tmp_path, "a-1", experiment, better)
    b = run_of(tmp_path, "b-2", experiment, worse)
    text = page_of(a, b).text
    # Standard error sqrt(2 / 3) / 1000 with 4 degrees of freedom: t(0.975) = 2.776.
    assert "-3.0-3.2 to -2.8" in text
    assert "s t), where both have at least two that differ" in text
    assert "B lies below A in 1" in text
    assert "One seed" not in text


@pytest.mark.parametrize("replicates", [1, 3])
def test_one_seed_s_retrainings_are_not_compared_by_welch(tmp_path: Path, replicates: int) -> None:
    """Whatever the other side has: it may be several seeds, or one that is retrained too."""
    plainly = experiment_of(sparsities=(0.9,), reset_epochs=(0,))
    retrained = with_retrainings(plainly, 3)
    other = retrained.model_copy(update={"replicates": replicates})

    def better(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=0.97 + 0.001 * (ticket.replicate + ticket.retraining))

    def worse(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=0.94 + 0.001 * ticket.retraining)

    a = run_of(tmp_path, "a-1", other, better)
    b = run_of(tmp_path, "b-2", retrained, worse)
    text = page_of(a, b).text
    assert "more than chance" not in text
    assert "There are no intervals: chance over seeds needs at least two finished" in text
    assert "not reckoned over retrainings of one seed" in text
    assert "nothing here is called significant" in text


def test_welch_by_hand() -> None:
    # Means 2 and 5, variances 1 and 4: error sqrt(1/3 + 4/3), freedom (5/3)^2 / (1/18 + 16/18).
    found = two_means([1, 2, 3], [3, 5, 7])
    assert found is not None
    interval, p = found
    freedom = (5 / 3) ** 2 / (17 / 18)
    assert freedom == pytest.approx(2.941, abs=1e-3)
    assert (interval.low + interval.high) / 2 == pytest.approx(3)
    assert (interval.high - 3) / (5 / 3) ** 0.5 == pytest.approx(3.217, abs=2e-3)
    assert p == pytest.approx(0.1036, abs=2e-3)
    assert two_means([1], [1, 2]) is None
    assert two_means([1, 1], [2, 2]) is None


@pytest.mark.parametrize(
    ("data", "changed"),
    [
        ("digits-99999999", {}),
        ("digits-01234567", {"validation_fraction": 0.2}),
        ("digits-01234567", {"classes": (0, 1)}),
    ],
)
def test_other_images_are_never_paired(tmp_path: Path, data: str, changed: dict[str, Any]) -> None:
    section = ONE_CELL.data.model_copy(update=changed)
    other = ONE_CELL.model_copy(update={"data": section})
    a, b = run_of(tmp_path, "a-1", ONE_CELL), run_of(tmp_path, "b-2", other, data=data)
    write_all_correct(a.folder)
    write_all_correct(b.folder)
    assert not same_images(a, b)
    text = page_of(a, b).text
    assert "Their images differ" in text
    assert "There are no intervals: the validation images differ" in text


def test_a_crop_or_a_recipe_changes_no_image(tmp_path: Path) -> None:
    section = ONE_CELL.data.model_copy(update={"augment": "random_crop", "train_limit": 100})
    other = ONE_CELL.model_copy(update={"data": section})
    a, b = run_of(tmp_path, "a-1", ONE_CELL), run_of(tmp_path, "b-2", other)
    assert same_images(a, b)
    assert settings_that_differ(a, b) == [
        ("data.augment", "none", "random_crop"),
        ("data.train_limit", "none", "100"),
    ]


def test_grids_are_joined_and_compared_where_both_have_a_cell(tmp_path: Path) -> None:
    one = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2))
    other = experiment_of(sparsities=(0.9, 0.95), reset_epochs=(2, 4), margin=0.01)

    a = run_of(tmp_path, "a-1", one)
    b = run_of(tmp_path, "b-2", other, lambda ticket: ticket_row(ticket, val_top1=0.5))
    write_json(a.folder.launches, {"launches": [launch()]})
    page = page_of(a, b)
    assert "in the 1 cell that both have" in page.text
    assert "not in its grid" in page.text
    assert "no matching ticket" in page.text
    assert "report.margin0.020.01" in page.text
    assert "1 node, 2 CPUs (Fast CPU), no GPU" in page.text
    assert page.tags.count("svg") == 1
    assert "B495 %5 %50.00 %" in page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "is missing" in page.text
    assert "what each network has right, image by image, cannot be read" in page.text


def test_controls_stand_beside_the_tickets_of_their_run(tmp_path: Path) -> None:
    kinds = ("shuffled_mask", "random_init")
    one = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2), controls=kinds)
    other = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2), controls=kinds[1:])
    plain_one = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2))
    top1 = {"none": 0.9, "shuffled_mask": 0.8125, "random_init": 0.75}

    def row_of(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=top1[ticket.control])

    a, b, c = (
        run_of(tmp_path, name, experiment, row_of)
        for name, experiment in (("a-1", one), ("b-2", other), ("c-3", plain_one))
    )
    page = page_of(a, b)
    dashes = "stroke-dasharray: "
    text = page.text.replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert text.count("A, shuffled_mask") == 4
    assert text.count("B, random_init") == 4
    assert "A, shuffled_mask290 %10 %81.25 %" in text
    assert "B, random_init290 %10 %75.00 %" in text
    assert "B, shuffled_mask" not in text
    assert "Broken lines are the controls random_init and shuffled_mask." in text
    drawn = write_comparison(a, b).read_text().count(dashes)
    assert drawn - write_comparison(c, b).read_text().count(dashes) == 2 * 2  # A's, of two figures


def test_half_finished_replicates_are_not_paired_over_images(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0,), replicates=3)

    def first(ticket: Ticket) -> Row | None:
        return ticket_row(ticket) if ticket.replicate == 0 else None

    a = run_of(tmp_path, "a-1", experiment, first)
    b = run_of(tmp_path, "b-2", experiment, first)
    write_all_correct(a.folder)
    write_all_correct(b.folder)
    text = page_of(a, b).text
    assert "There are no intervals: chance over seeds needs at least two finished" in text
    assert "over replicates, or images where one replicate has finished." in text


def test_half_finished_and_empty_runs(tmp_path: Path) -> None:
    def row_of(ticket: Ticket) -> Row:
        return failed_row(ticket, status="diverged", error="the loss is not finite")

    a = run_of(tmp_path, "a-1", ONE_CELL, row_of)
    b = run_of(tmp_path, "b-2", ONE_CELL, lambda _ticket: None)
    b.folder.replicate(0).trajectory.unlink()
    text = page_of(a, b).text
    assert "No retraining has finished yet." in text
    assert "Nothing has been trained yet." in text
    assert "no sparsity at a reset point in common" in text
    assert "No setting: the same experiment was run twice." in text


def test_everything_foreign_is_escaped(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0,), arch=EVIL)
    row_of: Callable[[Ticket], Row] = lambda ticket: ticket_row(ticket, device=EVIL)  # noqa: E731
    a = run_of(tmp_path, "a-1", experiment, row_of)
    b = run_of(tmp_path, "b-2", ONE_CELL)
    page = page_of(a, b)
    assert "script" not in page.tags
    assert page.text.count(plain(EVIL)) >= 2


def test_one_run_twice_is_refused(tmp_path: Path) -> None:
    a = run_of(tmp_path, "a-1", ONE_CELL)
    with pytest.raises(LtrayError, match="both runs to compare"):
        write_comparison(a, a)


def report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ltray.report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)


@pytest.mark.long
def test_the_command_writes_the_page_and_refuses_what_it_cannot_compare(make_run: MakeRun) -> None:
    a, b = make_run(), make_run(train__lr=0.2)
    for run in (a, b):
        write_experiment(run)
    done = report(a.folder.path, b.folder.path)
    page = a.folder.path.parent / f"compare-{a.folder.path.name}-{b.folder.path.name}.html"
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, str(page), "")
    assert "train.lr" in page.read_text()
    assert not a.folder.report.exists(), "nothing but the page of both is written"
    for wrong, said in (
        ((a.folder.path, a.folder.path), "is both runs to compare"),
        ((a.folder.path, b.folder.path, a.folder.path), "3 runs are given"),
        ((a.folder.path, a.folder.path.parent / "small-00000000"), "small-00000000"),
    ):
        refused = report(*wrong)
        assert refused.returncode == 2
        assert said in refused.stderr
        assert "to mend" in refused.stderr
        assert "Traceback" not in refused.stderr
