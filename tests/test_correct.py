from pathlib import Path

import pytest
from per_image import IMAGES, write_all_correct, write_bits
from test_results import SMALL, ticket_row, write_run

from ltray.analysis.correct import PerImage, read_per_image
from ltray.analysis.paired import Pairs
from ltray.analysis.results import collect
from ltray.headers import read_headers
from ltray.layout import RunFolder
from ltray.lottery.tickets import grid

TICKET = grid(SMALL)[0]
ROW = ticket_row(TICKET, val_top1=188 / IMAGES["validation"], test_top1=480 / IMAGES["test"])


def files_of(run: RunFolder) -> tuple[Path, Path]:
    """correct.safetensors of the dense run and of the ticket."""
    return run.replicate(0).dense_correct, run.replicate(0).ticket(TICKET.name).correct


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """One ticket, with 3 of dense's 190 images lost and 1 other gained; on test 488 -> 480."""
    made = write_run(tmp_path, SMALL, lambda ticket: ROW if ticket == TICKET else None)
    dense, ticket = files_of(made)
    write_bits(dense, {"validation": range(190), "test": range(488)})
    write_bits(ticket, {"validation": [*range(3, 190), 193], "test": range(8, 488)})
    return made


def read(run: RunFolder) -> PerImage:
    return read_per_image(run, collect(run), [ROW])


def test_pairs_are_counted_image_by_image(run: RunFolder) -> None:
    found = read(run)
    assert found.pairs(ROW, "validation") == Pairs(194, gained=1, lost=3)
    assert found.pairs(ROW, "test") == Pairs(500, gained=0, lost=8)
    assert found.images("validation") == 194
    assert not found.unreadable


def test_what_is_missing_is_named(run: RunFolder) -> None:
    dense, ticket = files_of(run)
    ticket.unlink()
    found = read(run)
    assert found.pairs(ROW, "validation") is None
    assert found.unreadable == {ticket: "is missing"}
    dense.unlink()
    assert read(run).images("validation") is None


@pytest.mark.parametrize(
    "content", [b"", b"not tensors", b"\xff" * 40, b"\x02" + b"\0" * 7 + b"[]"]
)
def test_what_is_damaged_is_named(run: RunFolder, content: bytes) -> None:
    _, ticket = files_of(run)
    ticket.write_bytes(content)
    found = read(run)
    assert found.pairs(ROW, "test") is None
    assert found.unreadable[ticket].startswith("is damaged: ")


def test_a_cut_off_file_is_damaged(run: RunFolder) -> None:
    _, ticket = files_of(run)
    ticket.write_bytes(ticket.read_bytes()[:-1])
    assert "is damaged" in read(run).unreadable[ticket]


def test_a_file_of_another_network_is_damaged(run: RunFolder) -> None:
    dense, ticket = files_of(run)
    ticket.write_bytes(dense.read_bytes())
    said = "is damaged: 190 of 194 are right in validation, not 0.969072"
    assert read(run).unreadable == {ticket: said}


def test_made_up_files_fit_their_rows(tmp_path: Path) -> None:
    run = write_run(tmp_path, SMALL)
    write_all_correct(run)
    rows = collect(run)
    assert not read_per_image(run, rows, list(rows.tickets.values())).unreadable


def test_headers_are_read_in_two_parts_where_they_are_long(run: RunFolder, tmp_path: Path) -> None:
    dense, _ = files_of(run)
    broken = tmp_path / "broken"
    broken.write_bytes(b"\xff" * 40)
    for first_bytes in (8, 20, 16384):
        found = list(read_headers([dense, tmp_path / "gone", broken], first_bytes))
        assert found == [{"images": IMAGES}, None, None]
