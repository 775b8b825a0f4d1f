from itertools import pairwise
from math import isclose
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from per_image import write_bits
from test_controls import with_retrainings
from test_results import (
    TEST_IMAGES,
    VAL_IMAGES,
    experiment_of,
    failed_row,
    ticket_row,
    write_run,
)

from ltray.analysis.columns import Row
from ltray.analysis.correct import PerImage, read_per_image
from ltray.analysis.grid import Cell, cells, outside
from ltray.analysis.intervals import mean_interval, share_interval
from ltray.analysis.paired import Pairs, paired_interval
from ltray.analysis.results import Rows, collect
from ltray.analysis.statistics import (
    BeyondChance,
    answers,
    beyond_chance,
    dense_interval,
    sparsest_matching,
)
from ltray.lottery.matching import decreasing_fit
from ltray.lottery.tickets import Ticket, grid


def line(differences: list[list[float]], retrainings: int = 1) -> list[Cell]:
    """Cells of one reset point at sparsities 0.01, 0.02, ...; inside, one value per replicate.

    Each value is that of the first of its retrainings; the others have a thousandth more each.
    """
    experiment = with_retrainings(
        experiment_of(
            sparsities=[(number + 1) / 100 for number in range(len(differences))],
            reset_epochs=(0,),
            replicates=max(map(len, differences)),
        ),
        retrainings,
    )
    rows = Rows()
    for ticket in grid(experiment):
        values = differences[round(ticket.sparsity * 100) - 1]
        if ticket.replicate < len(values):
            top1 = 0.9 + values[ticket.replicate] + ticket.retraining / 1000
            rows.put(ticket_row(ticket, val_top1=top1, dense_val_top1=0.9), [])
    return cells(rows, experiment)


def test_fit_pools_what_rises() -> None:
    # 3, 1, 2: the rise from 1 to 2 is pooled to 1.5; with weight 3 on the 2, to 1.75.
    assert decreasing_fit([3, 1, 2], [1, 1, 1]) == pytest.approx([3, 1.5, 1.5])
    assert decreasing_fit([3, 1, 2], [1, 1, 3]) == pytest.approx([3, 1.75, 1.75])


def test_one_lucky_cell_does_not_decide() -> None:
    # The last level alone lies at -0.005; pooled with the two before it, at -0.035.
    lucky = line([[0.0], [-0.01], [-0.05], [-0.05], [-0.005]])
    chosen = sparsest_matching(lucky, margin=0.02)
    assert chosen is not None
    assert chosen.sparsity == 0.02
    assert lucky[-1].matches(0.02)


def test_mean_over_replicates_decides() -> None:
    mixed = line([[0.0, 0.0], [-0.03, 0.02], [-0.03, 0.01]])
    chosen = sparsest_matching(mixed, margin=0.005)
    assert chosen is not None
    assert chosen.sparsity == 0.02  # means 0, -0.005, -0.01


def test_a_cell_of_one_replicate_weighs_less_than_one_of_two_however_often_retrained() -> None:
    # The rise is pooled by six tickets of two replicates and three of one, to -0.019.
    rising = line([[-0.025, -0.025], [-0.01]], retrainings=3)
    assert sparsest_matching(rising, margin=0.018) is None
    assert sparsest_matching(rising, margin=0.02) == rising[1]


def test_nothing_matches_or_nothing_is_done() -> None:
    assert sparsest_matching(line([[-0.1], [-0.2]]), margin=0.05) is None
    assert sparsest_matching([], margin=0.05) is None


def test_a_diverged_replicate_takes_its_cell_out() -> None:
    experiment = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0,), replicates=2)

    def row_of(ticket: Ticket) -> Row:
        if ticket.sparsity == 0.9 and ticket.replicate == 1:
            return failed_row(ticket, status="diverged")
        return ticket_row(ticket, val_top1=0.99, dense_val_top1=0.9)

    rows = Rows()
    for ticket in grid(experiment):
        rows.put(row_of(ticket), [])
    found = cells(rows, experiment)
    assert [(len(cell.done), len(cell.diverged), cell.missing) for cell in found] == [
        (2, 0, 0),
        (1, 1, 0),
    ]
    assert not found[1].matches(0.5)
    assert sparsest_matching(found, margin=0.5) == found[0]


def test_cells_are_of_the_current_grid_only() -> None:
    grown = experiment_of(sparsities=(0.5, 0.9), reset_epochs=(0, 2))
    rows = Rows()
    for ticket in grid(grown):
        rows.put(ticket_row(ticket), [])
    now = experiment_of(sparsities=(0.9, 0.95), reset_epochs=(2,))
    found = cells(rows, now)
    assert [(cell.sparsity, len(cell.done), cell.missing) for cell in found] == [
        (0.9, 1, 0),
        (0.95, 0, 1),
    ]
    assert outside(rows, now) == 3


@given(
    differences=st.lists(
        st.lists(st.integers(-60, 20).map(lambda n: n / 1000), min_size=1, max_size=3),
        min_size=1,
        max_size=8,
    ),
    margin=st.sampled_from([0.0, 0.005, 0.02]),
)
def test_the_chosen_cell_also_matches_before_the_fit(
    differences: list[list[float]], margin: float
) -> None:
    chosen = sparsest_matching(line(differences), margin)
    if chosen is not None:
        # By hand the mean may differ in its last bits, as does within_margin's tolerance.
        assert sum(chosen.differences) / len(chosen.differences) >= -margin - 1e-9


@given(values=st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_fit_never_rises_and_keeps_the_mean(values: list[float]) -> None:
    fit = decreasing_fit(values, [1.0] * len(values))
    assert all(left >= right for left, right in pairwise(fit))
    assert isclose(sum(fit), sum(values), abs_tol=1e-9)


def test_one_seed_is_compared_over_images_with_holm(tmp_path: Path) -> None:
    # Both lose 8 images of which dense has all: p = 2 / 2^8 = 0.0078, doubled by Holm for the
    # smaller of two; a third cell of 6 to 0, p = 2 / 2^6 = 0.031, is not beyond chance at 3 x p.
    lost = {0.5: 6, 0.8: 0, 0.9: 8}
    experiment = experiment_of(sparsities=tuple(lost), reset_epochs=(0,))

    def row_of(ticket: Ticket) -> Row:
        top1 = (190 - lost[ticket.sparsity]) / VAL_IMAGES
        return ticket_row(ticket, val_top1=top1, test_top1=488 / TEST_IMAGES)

    run = write_run(tmp_path, experiment, row_of)
    write_bits(run.replicate(0).dense_correct, {"validation": range(190), "test": range(488)})
    for ticket in grid(experiment):
        right = {"validation": range(190 - lost[ticket.sparsity]), "test": range(488)}
        write_bits(run.replicate(0).ticket(ticket.name).correct, right)
    rows = collect(run)
    found = cells(rows, experiment)
    per_image = read_per_image(run, rows, list(rows.tickets.values()))
    assert beyond_chance(found, "images", per_image) == BeyondChance(
        over="images", compared=3, untested=0, below=1, above=0
    )
    answer = answers(found, 0.04, per_image)[0]
    assert (answer.over, answer.cell) == ("images", found[1])
    assert answer.validation == paired_interval(Pairs(VAL_IMAGES, 0, 0))
    assert not answer.surely(0.019)  # no image differs: z^2 / (194 + z^2) = 0.0194
    assert answer.surely(0.02)
    assert dense_interval(per_image, "test", [rows.dense[0]]) == share_interval(488, TEST_IMAGES)
    assert dense_interval(PerImage(), "test", [rows.dense[0]]) is None


def test_several_seeds_are_compared_over_replicates() -> None:
    # t = -20 sqrt(3) is beyond chance also for two; equal differences have no test.
    found = line([[-0.019, -0.020, -0.021], [-0.01, -0.01, -0.01], [-0.05, 0.0, 0.04]])
    assert beyond_chance(found, "replicates", PerImage()) == BeyondChance(
        over="replicates", compared=2, untested=1, below=1, above=0
    )
    answer = answers(found, 0.04, PerImage())[0]
    assert answer.over == "replicates"
    assert answer.validation == mean_interval(found[2].differences)


def test_one_seed_has_no_test_however_often_it_is_retrained() -> None:
    # Of the first cell one of two replicates is done; its retrainings all lie far below the dense
    # run, which was trained once.
    found = line([[-0.03], [-0.021, -0.022]], retrainings=3)
    assert beyond_chance(found, "replicates", PerImage()) == BeyondChance(
        over="replicates", compared=1, untested=1, below=1, above=0
    )
    assert beyond_chance(found[:1], "retrainings", PerImage()).untested == 1
    answer = answers(found[:1], 0.04, PerImage())[0]
    assert (answer.over, answer.validation, answer.test) == ("retrainings", None, None)
