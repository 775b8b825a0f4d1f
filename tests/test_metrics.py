"""What Prometheus, Grafana and a person at Ray's dashboard see of a sweep."""

import json
import re
import subprocess
import sys
import time
import urllib.request
from importlib.resources import files
from pathlib import Path

import pytest
from commands import finish, local_cluster, start
from conftest import MakeRun

from ltray.cluster.driver import cluster_line
from ltray.cluster.metrics import COLUMNS, OF_SWEEPS, OF_TRIALS, Series
from ltray.cluster.resources import Cluster
from ltray.cluster.trials import SHOWN

OF_GPUS = {"ltray_gpu_utilisation_ratio", "ltray_gpu_memory_bytes"}
SAMPLE = re.compile(r"^ray_(ltray_\w+)\{(.*)\} (\S+)$", re.MULTILINE)
DASHBOARD = json.loads((files("ltray.cluster") / "grafana.json").read_text())

Labels = dict[str, str]
Scrape = list[tuple[str, Labels, float]]


def test_the_dashboard_asks_for_what_is_shown_and_for_all_of_it() -> None:
    targets = [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    asked = set(re.findall(r"\bray_(ltray_\w+)", " ".join(one["expr"] for one in targets)))
    assert asked == set(OF_TRIALS | OF_SWEEPS)
    assert all("$run" in one["expr"] for one in targets)
    assert all(one["datasource"]["uid"] == "${datasource}" for one in targets)


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert DASHBOARD["uid"] == "ltray"
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    names = [one["name"] for one in DASHBOARD["templating"]["list"]]
    assert names == ["datasource", "run", "replicate", "SessionName"]  # Ray's page sets two of them
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken), "panels overlap"
    assert max(x for x, _ in taken) == 23, "a row has 24 columns"


def test_every_series_of_a_trial_has_a_source() -> None:
    worked_out = {"ltray_progress_ratio", "ltray_tickets_training"}
    assert {*COLUMNS.values(), *worked_out} == set(OF_TRIALS)
    assert set(COLUMNS) <= set(SHOWN)


def test_what_cannot_be_shown_stops_nobody() -> None:
    with Series(run="some") as series:
        series.put("ltray_no_such_name", 1.0)
        series.put("ltray_tickets", 1.0, of="no such tag")
        series.set()


@pytest.mark.parametrize(
    ("dashboard", "asks_token", "said"),
    [
        ("", True, "Ray: 4 CPUs and 1 GPUs on 2 nodes"),
        ("h:8265", False, "Ray: 4 CPUs and 1 GPUs on 2 nodes; dashboard at http://h:8265"),
        (
            "h:8265",
            True,
            "Ray: 4 CPUs and 1 GPUs on 2 nodes; dashboard at http://h:8265, which asks for the"
            " token that `ray get-auth-token` prints",
        ),
    ],
)
def test_the_first_line_says_how_to_open_the_dashboard(
    dashboard: str, asks_token: bool, said: str
) -> None:
    nodes = ((2, 1), (2, 0))
    assert cluster_line(Cluster(nodes, (), dashboard, joined=True, asks_token=asks_token)) == said


@pytest.fixture
def fast_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray hands metrics on every second, and clusters ask for a token of this test's own."""
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef0123456789abcdef")


@pytest.mark.ray
def test_a_scraped_sweep_shows_what_is_promised(
    make_run: MakeRun, tmp_path: Path, fast_reports: None
) -> None:
    run = make_run(train__epochs=150, sweep__tickets_per_trial=2)
    root = run.folder.path.parent
    with local_cluster({}) as address:
        url = metrics_url(address)
        process = start(
            "sweep",
            tmp_path / "experiment-1.yaml",
            "--root",
            root,
            "--address",
            address,
            folder=tmp_path,
        )
        scrapes = []
        while process.poll() is None:
            scrapes.append(scrape(url))
            time.sleep(0.5)
        ended = finish(process)
        assert ended.status == 0, ended.err
        until = time.monotonic() + 30
        while scrape(url):
            assert time.monotonic() < until, "series of a sweep that has ended are still there"
            time.sleep(0.5)
    seen = [sample for one in scrapes for sample in one]
    assert {name for name, _, _ in seen} == set(OF_TRIALS | OF_SWEEPS) - OF_GPUS
    assert {labels["run"] for _, labels, _ in seen} == {run.folder.path.name}
    tickets_fall_to_none(scrapes)
    trials_are_told_apart(scrapes)
    values_are_sensible(seen)


def tickets_fall_to_none(scrapes: list[Scrape]) -> None:
    """All six are left at first, then fewer and fewer, and in the end all are done."""
    counts = [
        {labels["status"]: value for name, labels, value in one if name == "ltray_tickets"}
        for one in scrapes
    ]
    began = next(number for number, one in enumerate(counts) if one)
    there = [bool(one) for one in counts[began:]]
    assert sum(there) > 0.8 * len(there), "they are not set again and again"
    counts = [one for one in counts if one]
    left = [one["left"] for one in counts]
    assert left[0] == 6
    assert left == sorted(left, reverse=True)
    assert counts[-1] == {"done": 6, "diverged": 0, "failed": 0, "left": 0}


def trials_are_told_apart(scrapes: list[Scrape]) -> None:
    """By their packs, of which no more are ever shown than run; the ended ones vanish."""
    packs = [
        {labels["pack"] for name, labels, _ in one if name == "ltray_tickets_training"}
        for one in scrapes
    ]
    shown = set().union(*packs)
    assert "dense" in shown
    assert len(shown) == 4, "the dense run and three packs of two"
    assert "dense" not in packs[-1]
    running = [
        value
        for one in scrapes
        for name, labels, value in one
        if name == "ltray_packs" and labels["state"] == "running"
    ]
    assert max(running) == 2, "there are two CPUs"


def values_are_sensible(seen: Scrape) -> None:
    values: dict[str, list[float]] = {}
    for name, _, value in seen:
        values.setdefault(name, []).append(value)
    assert 0.9 < max(values["ltray_val_top1_ratio"]) <= 1
    assert 0 < max(values["ltray_progress_ratio"]) <= 1
    assert 1 <= max(values["ltray_epoch"]) <= 150
    assert set(values["ltray_learning_rate"]) == {0.1}
    assert min(values["ltray_images_per_second"]) > 0
    assert min(values["ltray_train_loss"]) >= 0
    assert 0 < max(values["ltray_time_left_seconds"]) < 1000


def metrics_url(address: str) -> str:
    """Of the first node of a cluster."""
    code = (
        "import ray, sys\n"
        "ray.init(address=sys.argv[1], logging_level='ERROR')\n"
        "node = ray.nodes()[0]\n"
        "print(node['NodeManagerAddress'], node['MetricsExportPort'], sep=':')"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, address], capture_output=True, text=True, check=True
    )
    return f"http://{asked.stdout.strip()}/metrics"


def scrape(url: str) -> Scrape:
    """ltray's samples on an endpoint; nothing while it is not up yet."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return []
    return [
        (name, dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value))
        for name, labels, value in SAMPLE.findall(text)
    ]
