"""Which ticket a run hands out."""

import pytest
from conftest import MakeRun
from test_results import ticket_row

from ltray.analysis.chosen import winner
from ltray.analysis.results import Rows
from ltray.lottery.tickets import grid

MATCHES = [0.95, 0.96, 0.97]  # of three replicates, whose dense runs have 0.95
FALLS_SHORT = [0.80, 0.81, 0.80]


@pytest.mark.parametrize(
    ("of_denser_control", "expected"),
    [
        (FALLS_SHORT, ("winning", 0.5, 0.0)),
        (MATCHES, ("matching", 0.9, 1.0)),
    ],
    ids=["a denser ticket wins", "no ticket wins"],
)
def test_a_winning_ticket_is_preferred_to_a_sparser_one_that_only_matches(
    of_denser_control: list[float], expected: tuple[str, float, float], make_run: MakeRun
) -> None:
    run = make_run(
        replicates=3,
        controls=["random_init"],
        prune__sparsities=[0.5, 0.9],
        reset__epochs=[0, 1],
        report__margin=0.01,
    )
    top1: dict[tuple[str, float, float], list[float]] = {
        ("none", 0.5, 0): MATCHES,
        ("none", 0.9, 0): FALLS_SHORT,
        ("none", 0.5, 1): MATCHES,
        ("none", 0.9, 1): MATCHES,
        ("random_init", 0.5, 0): of_denser_control,
        ("random_init", 0.9, 0): MATCHES,
    }
    rows = Rows()
    for ticket in grid(run.experiment):
        of_replicates = top1[ticket.control, ticket.sparsity, ticket.reset_epoch]
        accuracy = of_replicates[ticket.replicate]
        rows.put({**ticket_row(ticket, val_top1=accuracy), "dense_val_top1": 0.95}, [])
    best = winner(run, rows)
    assert (best.verdict.word, best.row["sparsity"], best.row["reset_epoch"]) == expected
