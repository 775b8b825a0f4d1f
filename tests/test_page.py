import re
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from per_image import write_all_correct, write_bits
from test_controls import with_retrainings
from test_results import (
    LEVELS,
    NOON,
    TEST_IMAGES,
    VAL_IMAGES,
    experiment_of,
    failed_row,
    ticket_row,
    write_dense,
    write_experiment,
    write_run,
)

from ltray.analysis import accounts, wording
from ltray.analysis.columns import Row
from ltray.analysis.figures import Curve
from ltray.analysis.grid import cells
from ltray.analysis.heat_map import heat_map, legend, tone
from ltray.analysis.learning_curves import curves_table
from ltray.analysis.page import write_report
from ltray.analysis.results import collect
from ltray.experiment import Experiment
from ltray.files import write_json
from ltray.layout import RunFolder
from ltray.lottery.tickets import Ticket, grid

SMALL = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2))
EVIL = '<script>alert("x")</script>'
WORDS = """
    layer weight epoch step validation test dense-run mask sparsity dead-layer reset-point ticket
    matching winning-ticket control replicate pack trial
"""
VOID = {"meta", "link", "br"}


def launch(**changes: Any) -> dict[str, Any]:
    stages = {"start Ray": 10.0, "prepare": 8.0, "retrainings": 40.0, "report": 2.0}
    versions = {"ltray": "0.1.0", "torch": "2.13.0", "ray": "2.60.0", "python": "3.11.9"}
    machine = {"nodes": 1, "cpus": 2, "gpus": 0, "gpu_names": [], "cpu_name": "Fast CPU"}
    found: dict[str, Any] = {
        "started_at": NOON.isoformat(),
        "finished_at": (NOON + timedelta(seconds=61)).isoformat(),
        "stages": stages,
        "machine": machine,
        "versions": versions,
    }
    return {**found, **changes}


def plain(text: str) -> str:
    return " ".join(text.replace("\N{MINUS SIGN}", "-").split())


class Page(HTMLParser):
    """Refuses tags that are not closed in order, and ids or references that do not hold."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []
        assert len(self.ids) == len(set(self.ids))
        assert set(self.references) <= set(self.ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        for name, value in attrs:
            assert not name.startswith("on"), (tag, name)
            if name == "id":
                self.ids.append(value or "")
            if name in {"href", "xlink:href", "src"} and value != "data:,":
                assert value is not None
                assert value.startswith("#"), value
                self.references.append(value[1:])
            if name in {"clip-path", "aria-labelledby"}:
                self.references.append(re.sub(r"url\(#(.*)\)", r"\1", value or ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        """What a reader sees, with plain spaces and minus signs."""
        return plain("".join(self.words))


def page_of(run: RunFolder, experiment: Experiment) -> Page:
    html = write_report(run, experiment).read_text()
    addresses = re.sub(r'xmlns(:\w+)?="http://www\.w3\.org/[^"]*"', "", html)
    for outward in ("http://", "https://", "@import", "url(http", "<script", "NaN"):
        assert outward not in addresses, outward
    return Page(html)


def test_finished_grid_is_answered_first(tmp_path: Path) -> None:
    run = write_run(tmp_path, experiment_of())
    write_json(run.launches, {"launches": [launch()]})
    page = page_of(run, experiment_of())
    assert page.tags.count("svg") == 3 + 3  # of accuracy, and of time
    assert "30 of 30" in page.text
    assert page.text.index("sparsity: put back to epoch") < page.text.index("The grid")
    assert "matching, no control" in page.text
    assert "One seed is not evidence." in page.text
    assert f"python -m ltray.sweep {tmp_path}" in page.text


def test_answer_by_hand(tmp_path: Path) -> None:
    # Dense has 190 of 194 right; the margin of 0.02 allows 3.88 images, so 186.12 or more. Of two
    # equally sparse tickets the answer is that of the earlier reset point.
    experiment = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2, 4))
    right = {(0.5, 0.0): 188, (0.5, 2.0): 188, (0.5, 4.0): 186}
    right |= {(0.9, 0.0): 187, (0.9, 2.0): 188, (0.9, 4.0): 180}

    def row_of(ticket: Ticket) -> Row:
        top1 = right[ticket.sparsity, ticket.reset_epoch] / VAL_IMAGES
        return ticket_row(ticket, val_top1=top1, test_top1=0.97)

    text = page_of(write_run(tmp_path, experiment, row_of), experiment).text
    answer = (
        "Down to 90 % sparsity: put back to epoch 0 with 10 % of its prunable weights, it trains "
        "to 96.4 % on validation, 1.5 points below the dense run."
    )
    assert answer in text
    assert "90 %10 % of weights kept" in text
    assert "4 no matching ticket" in text


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("learning_rate", "trained on with the learning rate put back to epoch 0 with 50 %"),
        ("fine_tune", "fine-tuned for as long as from epoch 0 to the end with 50 %"),
    ],
)
def test_what_is_not_put_back_to_its_weights_is_not_said_to_be(
    method: str, said: str, tmp_path: Path
) -> None:
    plainly = experiment_of(sparsities=(0.5,), reset_epochs=(0,))
    reset = plainly.reset.model_copy(update={"method": method})
    experiment = plainly.model_copy(update={"reset": reset})
    text = page_of(write_run(tmp_path, experiment), experiment).text
    assert said in text
    assert "pruned after its training and trained on" in text
    assert "Here it keeps the trained weights" in text


def test_no_matching_ticket_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL, lambda ticket: ticket_row(ticket, val_top1=0.5))
    text = page_of(run, SMALL).text
    assert (
        "No ticket of this grid trains to within 2 points of the dense run: no matching ticket."
        in text
    )


def test_half_finished_grid_shows_what_is_missing(tmp_path: Path) -> None:
    def row_of(ticket: Ticket) -> Row | None:
        place = (ticket.sparsity, ticket.reset_epoch)
        if place == (0.5, 2):
            return failed_row(ticket, error="no space left")
        if place == (0.9, 0):
            return failed_row(ticket, status="diverged", error="the loss is not finite")
        return None if place == (0.9, 2) else ticket_row(ticket)

    run = write_run(tmp_path, SMALL, row_of)
    write_json(run.launches, {"launches": [launch(finished_at=None, stages={})]})
    text = page_of(run, SMALL).text
    assert "So far, down to 50 % sparsity" in text
    assert "1 of 4" in text
    assert "1 diverged, 1 failed, 1 to go" in text
    assert "Not retrained yet: 1 ticket of 4." in text
    assert "no space left" in text
    assert "The last launch has not ended, or was cut off." in text
    html = run.report.read_text()
    assert [html.count(f'<td class="{look}"') for look in ("failed", "diverged", "missing")] == [
        1,
        1,
        1,
    ]


def test_dense_run_alone_and_nothing_at_all(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_experiment(run, SMALL)
    assert "Nothing has been trained yet." in page_of(run, SMALL).text
    write_dense(run, 0)
    page = page_of(run, SMALL)
    assert "No retraining has finished yet." in page.text
    assert page.tags.count("svg") == 1


def test_replicates_give_means_and_intervals(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0,), replicates=3)

    def row_of(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=0.96 + 0.01 * ticket.replicate, dense_val_top1=0.98)

    # Differences -0.02, -0.01, 0: mean -0.01, half width 4.302653 * 0.01 / sqrt(3) = 0.0248.
    text = page_of(write_run(tmp_path, experiment, row_of), experiment).text
    assert "97.0 %-1.0 points95 %: -3.5 to +1.5" in text
    assert "3 of 3 replicates" in text
    assert "One seed is not evidence." not in text


def test_one_replicate_has_intervals_over_images(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.9,), reset_epochs=(0,))

    def row_of(ticket: Ticket) -> Row:
        return ticket_row(ticket, val_top1=188 / VAL_IMAGES, test_top1=480 / TEST_IMAGES)

    run = write_run(tmp_path, experiment, row_of)
    write_bits(run.replicate(0).dense_correct, {"validation": range(190), "test": range(488)})
    ticket = run.replicate(0).ticket(grid(experiment)[0].name)
    write_bits(ticket.correct, {"validation": [*range(3, 190), 193], "test": range(8, 488)})
    text = page_of(run, experiment).text
    # Tango's intervals of 1 gained, 3 lost of 194, and of 0 gained, 8 lost of 500; Wilson's of
    # 190 of 194; McNemar's p of 1 to 3 is 0.625.
    assert "1.0 points below the dense run (95 %: -4.0 to +1.5 points, over images, not ov" in text
    assert "96.9 %-1.0 points95 %: -4.0 to +1.5" in text
    assert "96.0 %-1.6 points95 %: -3.1 to -0.8" in text
    assert "95 % over images: 94.8 % to 99.2 %" in text
    assert "One point is 1.94 of the 194 validation images and 5 of the 500 test images." in text
    assert "Of 1 cell compared with the dense run on validation, 0 lie below it and 0 above" in text
    assert "over images and not over seeds" in text
    assert "lies within the margin for 0 of the 1 ticket above that has one." in text
    assert text.count("significant") == 1
    assert "nothing here is called significant" in text


def test_intervals_that_cannot_be_told_are_said_to_be(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    write_all_correct(run)
    run.replicate(0).ticket(grid(SMALL)[0].name).correct.unlink()
    run.replicate(0).ticket(grid(SMALL)[1].name).correct.write_bytes(b"x")
    text = page_of(run, SMALL).text
    assert "is missing or damaged for 2 networks" in text
    assert f"tickets/{grid(SMALL)[0].name}/correct.safetensors is missing" in text
    assert f"tickets/{grid(SMALL)[1].name}/correct.safetensors is damaged" in text
    assert "Of 2 cells compared" in text


def test_controls_stand_beside_their_tickets_and_are_counted(tmp_path: Path) -> None:
    kinds = ("shuffled_mask", "random_init")
    experiment = experiment_of(
        sparsities=(0.5, 0.99), reset_epochs=(0, 2), replicates=3, controls=kinds
    )
    top1 = {
        "none": (190, 191, 189),
        "shuffled_mask": (180, 182, 178),
        "random_init": (170, 173, 171),
    }

    def row_of(ticket: Ticket) -> Row:
        right = top1[ticket.control][ticket.replicate]
        return ticket_row(ticket, val_top1=right / VAL_IMAGES)

    text = page_of(write_run(tmp_path, experiment, row_of), experiment).text
    assert "30 of 30" in text  # 12 tickets, 12 shuffled masks, 6 fresh ones
    assert "Tickets against their controls" in text
    assert all(f"Ticket minus {kind}" in text for kind in kinds)
    # 10, 9 and 11 images of 194 more than with a shuffled mask: mean 5.2 points.
    assert "+5.2" in text
    assert "winning, beats random_init" in text
    assert (
        "The control" not in text.partition("What was not done")[2].partition("To do it again")[0]
    )


def test_what_was_not_done_is_said_to_be_nothing_where_all_was(tmp_path: Path) -> None:
    kinds = ("shuffled_mask", "random_init")
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=3, controls=kinds)
    text = page_of(write_run(tmp_path / "whole", experiment), experiment).text
    said = "Nothing was left out: all 9 tickets of 3 replicates and both controls were trained."
    assert said in text

    def row_of(ticket: Ticket) -> Row:
        return ticket_row(ticket) if ticket.replicate else failed_row(ticket, error="no space")

    lost = page_of(write_run(tmp_path / "lost", experiment, row_of), experiment).text
    assert "Nothing was left out" not in lost


def test_curves_are_said_to_be_of_the_replicate_that_they_are_of(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=2)
    run = write_run(tmp_path, experiment)
    assert "; all of replicate 0." in page_of(run, experiment).text
    run.replicate(0).trajectory.unlink()
    assert "; all of replicate 1." in page_of(run, experiment).text


@pytest.mark.parametrize("replicates", [1, 3])
def test_the_spread_of_a_single_sparsity_is_a_bar(replicates: int, tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=replicates)
    page = write_report(write_run(tmp_path, experiment), experiment).read_text()
    figure = page[page.index("<h2>Accuracy against density") :].partition("</figure>")[0]
    assert ("LineCollection" in figure) == (replicates > 1)


def test_every_learning_curve_has_a_mark_of_its_own(tmp_path: Path) -> None:
    experiment = experiment_of(
        sparsities=(0.5, 0.99),
        reset_epochs=(0, 1, 2, 4, 8),
        controls=("shuffled_mask", "random_init"),
    )
    page = write_report(write_run(tmp_path, experiment), experiment).read_text()
    names = page[page.index("<h2>Learning curves") :].partition("</ul>")[0]
    marks = re.findall(r"<li><i(.*?)</i>", names)
    assert len(marks) == 1 + 5 + 2 + 2  # dense, matching, the sparsest level's ends, controls
    assert len(set(marks)) == len(marks)


def test_many_evaluations_are_thinned_in_the_table_of_curves() -> None:
    every = [{"epoch": number / 9, "val_top1": number / 1000} for number in range(1, 496)]
    late = every[200:]
    table = curves_table([Curve("dense", None, every), Curve("late", 0, late)])
    assert len(table) <= 20
    assert table[-1] == (55.0, [0.495, 0.495])
    assert all(top1s[0] == pytest.approx(9 * epoch / 1000) for epoch, top1s in table)
    assert [top1s[1] is None for epoch, top1s in table] == [epoch < 201 / 9 for epoch, _ in table]
    assert curves_table([]) == []


def test_a_control_that_diverged_is_said(tmp_path: Path) -> None:
    experiment = experiment_of(
        sparsities=(0.5,), reset_epochs=(0,), replicates=2, controls=("random_init",)
    )

    def row_of(ticket: Ticket) -> Row:
        return ticket_row(ticket, status="done" if ticket.control == "none" else "diverged")

    text = page_of(write_run(tmp_path, experiment, row_of), experiment).text
    assert "control diverged" in text
    assert "No cell has finished with its control yet" not in text
    assert "Of 0 cells" not in text


def test_one_seed_s_retrainings_have_intervals_where_both_are_retrained(tmp_path: Path) -> None:
    kinds = ("shuffled_mask", "random_init")
    plainly = experiment_of(sparsities=(0.5,), reset_epochs=(0,), controls=kinds)
    experiment = with_retrainings(plainly, 3)

    def row_of(ticket: Ticket) -> Row:
        right = 190 if ticket.control == "none" else 150 - ticket.retraining
        return ticket_row(ticket, val_top1=(right + ticket.retraining) / VAL_IMAGES)

    text = page_of(write_run(tmp_path, experiment, row_of), experiment).text
    assert "over retrainings of one seed (Student" in text
    assert text.count("by more than chance") == 1, "of shuffled_mask alone"
    assert "There are no intervals: one control stands beside all retrainings" in text
    assert "retrainings have no interval beside the dense run" in text
    assert "matching, no interval against random_init" in text


def test_one_replicate_of_several_has_no_test_over_its_retrainings(tmp_path: Path) -> None:
    plainly = experiment_of(sparsities=(0.5,), reset_epochs=(0,), replicates=3)
    experiment = with_retrainings(plainly, 3)

    def row_of(ticket: Ticket) -> Row | None:
        top1 = (150 + ticket.retraining) / VAL_IMAGES
        return ticket_row(ticket, val_top1=top1) if ticket.replicate == 0 else None

    text = page_of(write_run(tmp_path, experiment, row_of), experiment).text
    assert "3 of 9" in text
    assert "by more than chance" not in text


def test_tickets_of_other_grids_are_only_counted(tmp_path: Path) -> None:
    run = write_run(tmp_path, experiment_of())
    text = page_of(run, SMALL).text
    assert "2 of 4" in text  # 0.9 at reset points 0 and 2 lies in both grids
    assert f"Left out here: {len(LEVELS) * 5 - 2} tickets of this run" in text


def test_everything_foreign_is_escaped(tmp_path: Path) -> None:
    experiment = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2), arch=EVIL)

    def row_of(ticket: Ticket) -> Row:
        if ticket.sparsity == 0.5:
            return failed_row(ticket, error=EVIL)
        return ticket_row(ticket, device=EVIL, dead_layers=[EVIL])

    run = write_run(tmp_path, experiment, row_of)
    machine = {"nodes": 1, "cpus": 2, "gpus": 1, "gpu_names": [EVIL], "cpu_name": EVIL}
    launched = launch(stages={EVIL: 1.0}, versions={EVIL: EVIL}, machine=machine)
    write_json(run.launches, {"launches": [launched]})
    page = page_of(run, experiment)
    assert "script" not in page.tags
    assert page.text.count(EVIL) >= 9


def test_words_are_explained_at_the_end(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path, SMALL), SMALL)
    explained = {name for name in page.ids if name.startswith("word-")}
    assert explained == {f"word-{word}" for word in WORDS.split()}
    assert {name for name in page.references if name.startswith("word-")} <= explained
    assert len([name for name in page.references if name.startswith("word-")]) >= 7


def test_page_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    once = write_report(run, SMALL).read_bytes()
    assert write_report(run, SMALL).read_bytes() == once


@pytest.mark.parametrize(
    ("difference", "look"),
    [
        (0.02, "tone-0"),
        (0.0, "tone-1"),
        (0.95 - 0.97, "tone-2"),  # in floats a little below -0.02
        (-0.021, "tone-3"),
        (-0.08, "tone-4"),
        (-0.1, "tone-5"),
        (-0.9, "tone-6"),
    ],
)
def test_colours_change_where_the_legend_says(difference: float, look: str) -> None:
    assert tone(difference, margin=0.02) == look
    assert [name for name, _ in legend(0.02)] == [f"tone-{number}" for number in range(7)]
    assert plain(dict(legend(0.02))["tone-2"]) == "-2.0 to 0.0"


def test_heat_map_marks_matching_and_sparsest(tmp_path: Path) -> None:
    def row_of(ticket: Ticket) -> Row:
        lost = ticket.sparsity == 0.9 and ticket.reset_epoch == 2
        return ticket_row(ticket, val_top1=(150 if lost else 190) / VAL_IMAGES)

    run = write_run(tmp_path, SMALL, row_of)
    found = heat_map(cells(collect(run), SMALL), 0.02, [(0.9, 0.0), (0.5, 2.0)])
    assert [sparsity for sparsity, _ in found] == [
        "50\N{NARROW NO-BREAK SPACE}%",
        "90\N{NARROW NO-BREAK SPACE}%",
    ]
    marks = [[(square.matching, square.sparsest) for square in row] for _, row in found]
    assert marks == [[(True, False), (True, True)], [(True, True), (False, False)]]


def test_stages_are_summed_over_launches() -> None:
    first, last = launch(stages={"prepare": 8.0, "masks": 1.0}), launch(stages={"masks": 2.0})
    found = accounts.stages([first, last])
    assert [(stage.name, stage.last, stage.total) for stage in found] == [
        ("prepare", 0.0, 8.0),
        ("masks", 2.0, 3.0),
    ]
    assert accounts.wall_seconds(last) == 61.0
    assert accounts.stages([]) == []


def test_machine_in_words() -> None:
    one = {"nodes": 1, "cpus": 2, "gpus": 0, "gpu_names": [], "cpu_name": "Fast CPU"}
    two = {"nodes": 2, "cpus": 64, "gpus": 8, "gpu_names": ["H100"] * 8, "cpu_name": ""}
    assert accounts.machine([launch(machine=one)]) == "1 node, 2 CPUs (Fast CPU), no GPU"
    assert accounts.machine([launch(machine=two)]) == "2 nodes, 64 CPUs, 8 GPUs (H100)"


def test_where_the_last_launch_never_reached_ray_the_one_before_tells_the_machine(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path, SMALL)
    refused = launch(machine={}, stages={"start Ray": 0.01})
    write_json(run.launches, {"launches": [launch(), refused]})
    assert "Cluster1 node, 2 CPUs (Fast CPU), no GPU" in page_of(run, SMALL).text
    write_json(run.launches, {"launches": [refused]})
    assert "Clusterunknown: no launch reached Ray" in page_of(run, SMALL).text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (wording.percent(0.97436), "97.4 %"),
        (wording.level(0.935), "93.5 %"),
        (wording.level(0.6), "60 %"),
        (wording.level(0.0), "0 %"),
        (wording.kept(0.01004), "1 %"),
        (wording.points(-0.006), "-0.6"),
        (wording.points(0.006), "+0.6"),
        (wording.points(-0.0001), "0.0"),
        (wording.margin_points(0.02), "2 points"),
        (wording.margin_points(0.01), "1 point"),
        (wording.margin_points(0.0025), "0.25 points"),
        (wording.duration(0.41), "0.4 s"),
        (wording.duration(59.99), "1 min 00 s"),
        (wording.duration(245), "4 min 05 s"),
        (wording.duration(3599.9), "1 h 00 min"),
        (wording.duration(7985), "2 h 13 min"),
        (wording.quantity(1, "ticket"), "1 ticket"),
        (wording.quantity(50200, "weight"), "50,200 weights"),
        (wording.listed(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_numbers_in_words(said: str, expected: str) -> None:
    assert plain(said) == expected
