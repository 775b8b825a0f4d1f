"""The notebooks that come with ltray: each runs from a clean kernel and prints what is right."""

import base64
import json
import os
import re
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pyarrow.parquet as pq
import pytest
from commands import only_run
from conftest import MakeRun, train_without_ray
from nbclient import NotebookClient
from test_page import launch

from ltray.analysis.results import collect, write_tables
from ltray.files import write_json
from ltray.locate import experiments_folder
from ltray.record import write_experiment
from ltray.run import Run

CELL_SECONDS = 240
NOTEBOOKS = sorted(experiments_folder().glob("*.ipynb"))
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


@dataclass(frozen=True)
class Executed:
    """What a notebook's cells gave: printed text, text to stderr, figures as PNG."""

    out: str
    err: str
    figures: list[bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `experiments` and `runs`: the first notebook makes the run that they all read."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.fixture(autouse=True)
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel leaves its history and its connection file here and not at home."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))


def execute(name: str, folder: Path, run: Path | None = None) -> Executed:
    """Run a notebook in a kernel of its own; what goes wrong in a cell is raised.

    Args:
        folder: the kernel works in `experiments` below it, as in a clone.
        run: what the line `RUN = None` is edited to.
    """
    notebook = nbformat.read(experiments_folder() / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    if run is not None:
        point_at(notebook, run)
    beside = folder / "experiments"
    beside.mkdir(exist_ok=True)
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        resources={"metadata": {"path": str(beside)}},
    )
    with client.setup_kernel():
        kernel = pid_of(client)
        for number, cell in enumerate(notebook.cells):
            client.execute_cell(cell, number)
        # Jupyter ends a kernel by SIGINT to its group, which Ray's dashboard does not survive well.
        wait_until_left(kernel, {kernel})
    wait_until_left(kernel, set())
    return gathered(notebook)


def point_at(notebook: Any, run: Path) -> None:
    """Edit the one line that says which run a notebook reads."""
    edited = 0
    for cell in notebook.cells:
        cell.source, count = re.subn("(?m)^RUN = None.*$", f"RUN = Path('{run}')", cell.source)
        edited += count
    assert edited == 1


def pid_of(client: NotebookClient) -> int:
    assert client.km is not None
    provisioner: Any = client.km.provisioner
    pid: int = provisioner.pid
    return pid


def wait_until_left(session: int, expected: set[int]) -> None:
    """Wait until of a kernel's session, Ray's processes among it, no others run than expected."""
    until = time.monotonic() + 20
    while (left := in_session(session)) != expected:
        assert time.monotonic() < until, [psutil.Process(pid).cmdline() for pid in left]
        time.sleep(0.1)


def in_session(session: int) -> set[int]:
    found = set()
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.add(process.pid)
    return found


def gathered(notebook: Any) -> Executed:
    outputs = [one for cell in notebook.cells for one in cell.get("outputs", [])]
    assert not [one for one in outputs if one.output_type == "error"]
    streams = [one for one in outputs if one.output_type == "stream"]
    pictures = [one.data["image/png"] for one in outputs if "image/png" in one.get("data", {})]
    return Executed(
        out="".join(one.text for one in streams if one.name == "stdout"),
        err="".join(one.text for one in streams if one.name == "stderr"),
        figures=[base64.b64decode(picture) for picture in pictures],
    )


def test_there_are_notebooks() -> None:
    assert {path.stem for path in NOTEBOOKS} >= {"quickstart", "analysis", "speedup"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: str(path.name))
def test_outputs_are_stripped(path: Path) -> None:
    notebook = json.loads(path.read_text())
    assert notebook["metadata"] == METADATA
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        if cell["cell_type"] == "code":
            assert cell["outputs"] == []
            assert cell["execution_count"] is None


@pytest.mark.ray
def test_quickstart_ends_with_the_tables_accuracy_in_plain_torch(folder: Path) -> None:
    done = execute("quickstart", folder)
    assert "Warning" not in done.err
    assert "5 masks x 3 reset points x 3 replicates = 45 tickets, 0 done" in done.out
    assert "45/45 tickets" in done.out
    found = re.search(r"measured here (\S+), in the table (\S+)", done.out)
    assert found is not None
    run = only_run(folder / "runs", "notebooks")
    name = re.search(r"^magnitude-\S+", done.out, re.MULTILINE)
    assert name is not None
    (row,) = (
        row
        for row in pq.read_table(run / "tickets.parquet").to_pylist()
        if (row["replicate"], row["ticket"]) == (0, name[0])
    )
    assert found[1] == found[2] == f"{row['test_top1']:.6f}"
    assert row["matching"]
    assert f"in all  {row['kept_weights']:,} of {row['prunable_weights']:,} weights" in done.out


@pytest.mark.ray
def test_analysis_draws_the_same_run(folder: Path) -> None:
    done = execute("analysis", folder)
    assert "Warning" not in done.err
    assert "45 tickets done, of 3 replicates" in done.out
    assert len(done.figures) == 5
    only_run(folder / "runs", "notebooks")


@pytest.mark.ray
def test_speedup_recomputes_the_claim_and_measures_the_same_run(folder: Path) -> None:
    done = execute("speedup", folder)
    assert "Warning" not in done.err
    words = " ".join(done.out.split())
    claim = "one worker 2,625.00 h 20 workers 131.25 h speed-up 20.00, efficiency 1.00"
    whole = "one worker 2,651.25 h 20 workers 157.50 h speed-up 16.83, efficiency 0.84"
    assert f"{claim} {whole}" in words
    assert "20 workers by Amdahl 16.83" in words
    assert "20 workers by Gustafson 16.83" in words
    assert len(done.figures) == 5
    assert "packs of a mask: 20 workers, 157.50 h, 3,150 worker-hours, E = 0.84" in words
    assert "single tickets: 100 workers, 52.50 h, 5,250 worker-hours, E = 0.51" in words
    table = pq.read_table(only_run(folder / "runs", "notebooks") / "tickets.parquet")
    packs: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in table.to_pylist():
        packs[row["replicate"], row["pack"]].append(row)
    starts = [min(row["started_at"] for row in rows) for rows in packs.values()]
    ends = [max(row["finished_at"] for row in rows) for rows in packs.values()]
    trials = zip(starts, ends, strict=True)
    work = sum((end - start).total_seconds() for start, end in trials)
    makespan = (max(ends) - min(starts)).total_seconds()
    assert f"W = {work:.1f} s of trials in {makespan:.1f} s on" in words
    assert f"S = {work / makespan:.2f}, E = " in words


def swept(make_run: MakeRun) -> Run:
    """A run with its tables, as a sweep leaves it."""
    run = make_run()
    write_experiment(run)
    train_without_ray(run)
    write_tables(run.folder, collect(run.folder), run.experiment.report.margin)
    return run


def test_speedup_reads_a_run_whose_last_launch_never_reached_ray(
    tmp_path: Path, make_run: MakeRun
) -> None:
    run = swept(make_run)
    refused = launch(machine={}, stages={"start Ray": 0.01})
    write_json(run.folder.launches, {"launches": [launch(), refused]})
    done = execute("speedup", tmp_path, run.folder.path)
    assert "the launch took 60.0 s, 67% of it for the retrainings" in done.out


def test_analysis_reads_a_run_of_one_replicate_that_it_is_pointed_at(
    tmp_path: Path, make_run: MakeRun
) -> None:
    run = swept(make_run)
    done = execute("analysis", tmp_path, run.folder.path)
    assert "Warning" not in done.err
    assert "6 tickets done, of 1 replicates" in done.out
    assert not (tmp_path / "runs").exists()
