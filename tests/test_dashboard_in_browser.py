"""Ray's dashboard during a sweep, as a person sees it who has the token."""

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from browser import CHROMIUM, chromium
from commands import HANGS, start
from conftest import MakeRun

TOKEN = "0123456789abcdef0123456789abcdef"


class Pretended(BaseHTTPRequestHandler):
    """Says what Ray asks of Grafana and of Prometheus: that they are well."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps({"database": "ok", "status": "success"}).encode())

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def pretended_grafana() -> Iterator[str]:
    """The address of a server that passes for Grafana and Prometheus."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pretended)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_dashboard_opens_with_the_token_and_knows_the_sweep(
    make_run: MakeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pretended_grafana: str
) -> None:
    run = make_run(train__epochs=3000, sweep__tickets_per_trial=2)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_GRAFANA_HOST", pretended_grafana)
    monkeypatch.setenv("RAY_PROMETHEUS_HOST", pretended_grafana)
    monkeypatch.setenv("RAY_GRAFANA_DATA_DASHBOARD_UID", "ltray")  # as docs/watching.md says
    file, root = tmp_path / "experiment-1.yaml", run.folder.path.parent
    process = start("sweep", file, "--root", root, folder=tmp_path)
    try:
        asyncio.run(look(dashboard_of(process), run.folder.path.name, tmp_path))
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=HANGS)


def dashboard_of(process: subprocess.Popen[str]) -> str:
    """The address that the sweep prints."""
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"dashboard at (http://[\d.:]+), which asks for the token", line)
        if found:
            Thread(target=process.stdout.read, daemon=True).start()
            return found.group(1)
    raise AssertionError(process.communicate())


async def look(url: str, run: str, folder: Path) -> None:
    """Go through the pages, and leave pictures of them in the folder."""
    async with chromium(folder / "profile") as page:
        await page.open(url)
        await page.shows("Authentication Token Required")
        await page.type("wrong")
        await page.shows("Invalid authentication token")
        await page.open("about:blank")
        await page.open(url)
        await page.shows("Authentication Token Required")
        await page.type(TOKEN)
        await page.shows("Resource Status")
        await page.screenshot(folder / "overview.png")
        await page.open(f"{url}/#/jobs")
        await page.shows(run)
        await page.screenshot(folder / "jobs.png")
        await page.open(f"{url}/#/cluster")
        await page.shows("(Head)")
        await page.open(f"{url}/#/actors")
        await page.shows("dense_trial", seconds=HANGS)
        await page.screenshot(folder / "actors.png")
        await page.open(f"{url}/#/metrics")
        await page.shows("RAY DATA")
        await page.value("[...document.querySelectorAll('[role=tab]')].at(-1).click()")
        await asyncio.sleep(1)
        shown = await page.value("document.querySelector('iframe').src")
        assert "/d/ltray/" in shown
        await page.screenshot(folder / "metrics.png")
