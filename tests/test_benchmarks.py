"""The benchmark that a GPU is measured by, at tiny sizes and on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = str(Path(__file__).parents[1] / "benchmarks" / "gpu.py")


@pytest.mark.slow
def test_every_row_of_the_gpu_benchmark_is_measured_from_a_checkout(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARK, "--device", "cpu", "--quick", "--json", "figures.json"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    rows = {row["row"]: row for row in figures["rows"]}
    assert len(rows) == len(figures["rows"]) == 50
    assert figures["where"]["quick"]
    for name, row in rows.items():
        assert row["unit"] != "failed", row
        assert row["anchor"] is not None
        assert f"\n{name} " in done.stdout
        if row["unit"] == "tensors differ":
            assert row["ours"] == 0, row["largest_differences"]
        elif row["unit"] == "of the time":
            assert row["ours"] is None  # there is no GPU to be busy
        elif row["unit"] != "% of a step":  # at these sizes noise may hide masking
            assert row["ours"] > 0


@pytest.mark.slow
def test_the_gpu_benchmark_stops_when_the_time_is_up(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARK, "--device", "cpu", "--quick", "--minutes", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "the time is up" in done.stdout
    assert "nothing was measured" in done.stderr
