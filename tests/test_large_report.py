"""A page stays small however much was trained; benchmarks/report.py also measures its seconds."""

from pathlib import Path

import pytest
from large_run import write_large_run
from test_page import page_of

from ltray.experiment_file import read_experiment


@pytest.mark.long
def test_five_hundred_tickets_fit_in_five_megabytes(tmp_path: Path) -> None:
    run = write_large_run(tmp_path, epochs=10, replicates=5)
    page = page_of(run, read_experiment(run.experiment))
    assert "500 of 500" in page.text
    assert "All 500 tickets" in page.text
    assert "All 53 layers in numbers" in page.text
    assert run.report.stat().st_size < 5_000_000
