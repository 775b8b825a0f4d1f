"""The report as a browser sees it."""

import json
import subprocess
from pathlib import Path

import pytest
from browser import CHROMIUM, QUIET
from commands import HANGS
from conftest import MakeRun

from ltray.analysis.page import write_report
from ltray.lottery.ready import ready
from ltray.record import write_experiment
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_page_opens_without_console_messages_or_requests(
    make_run: MakeRun, tmp_path: Path
) -> None:
    run = make_run()
    write_experiment(run)
    place = this_place()
    train_dense(run, 0, place, lambda _row: None)
    make_masks(run, 0)
    for pack in ready(run.experiment, set()):
        train_pack(run, pack, place, lambda _rows, _records: None)
    page = write_report(run.folder, run.experiment)
    net_log = tmp_path / "net.json"
    shown = subprocess.run(
        [
            str(CHROMIUM),
            *QUIET,
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--log-net-log={net_log}",
            "--enable-logging=stderr",
            "--virtual-time-budget=2000",
            "--dump-dom",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=HANGS,
        check=True,
    )
    assert "CONSOLE" not in shown.stderr
    assert run.folder.path.name in shown.stdout
    assert "</html>" in shown.stdout
    assert requested_by_the_page(net_log) == []


def requested_by_the_page(net_log: Path) -> list[str]:
    """Addresses asked for on behalf of a page; the browser's own have no origin."""
    asked = [event.get("params", {}) for event in json.loads(net_log.read_text())["events"]]
    return [
        params["url"]
        for params in asked
        if params.get("url", "file:").startswith(("http", "ws"))
        and params.get("initiator", "not an origin") != "not an origin"
    ]
