"""Runs of real digits, prepared without Ray and shared by the tests that train."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from ltray.analysis.results import collect
from ltray.data.archives.sources import open_source
from ltray.data.manifest import write_manifest
from ltray.data.shards import plan, write_part
from ltray.experiment_file import read_experiment
from ltray.locate import locate_experiment
from ltray.lottery.ready import ready
from ltray.record import write_experiment
from ltray.run import Run
from ltray.training.chain import train_chain
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack

# Two processes test side by side: they, and all that they start, keep to a thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine makes any example slow; what must be fast is measured in benchmarks/.
hypothesis.settings.register_profile("ltray", deadline=None)
hypothesis.settings.load_profile("ltray")

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"source": "digits", "validation_fraction": 0.15},
    "model": {"arch": "lenet_300_100"},
    "train": {"epochs": 3, "batch_size": 60, "lr": 0.1, "momentum": 0.9},
    "prune": {"sparsities": [0.5, 0.9], "scope": "layerwise", "output_rate": 0.5},
    "reset": {"epochs": [0, 0.3, 1]},
    "report": {"margin": 0.02},
    "sweep": {"backend": "loop"},  # bits are compared; auto may choose otherwise each time
}

MakeRun = Callable[..., Run]


def small_document(changes: dict[str, Any]) -> dict[str, Any]:
    """SMALL with changes such as `train__epochs=2`; None takes a key out."""
    document = {key: dict(v) if isinstance(v, dict) else v for key, v in SMALL.items()}
    for place, value in changes.items():
        section, _, key = place.partition("__")
        target, name = (document.setdefault(section, {}), key) if key else (document, section)
        if value is None:
            target.pop(name, None)
        else:
            target[name] = value
    return document


@pytest.fixture(scope="session")
def digits_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the default digits shards in it."""
    root = tmp_path_factory.mktemp("shards")
    path = root / "small.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    prepare_without_ray(locate_experiment(read_experiment(path), root))
    return root


@pytest.fixture
def prepared_root(tmp_path: Path, digits_shards: Path) -> Path:
    """`runs` in tmp_path, where a command that is run there puts its runs, with SMALL's shards."""
    shutil.copytree(digits_shards / "data", tmp_path / "runs" / "data")
    return tmp_path / "runs"


def prepare_without_ray(run: Run) -> None:
    """What the Ray Data job does, in this process."""
    source = open_source(run.experiment.data, run.folder.scratch)
    planned = plan(source, run.pixels)
    records = [write_part(part, source, run.pixels, run.data) for part in planned.parts]
    write_manifest(run.data, planned, records, run.fingerprint, seconds=0.0)


def located(path: Path, root: Path) -> Run:
    """An experiment's run with its shards and its own files, as the driver leaves it to workers."""
    run = locate_experiment(read_experiment(path), root)
    if not run.data.manifest.is_file():
        prepare_without_ray(run)
    write_experiment(run)
    return run


def train_without_ray(run: Run) -> None:
    """What the trials of a sweep's first replicate do, in this process."""
    place = this_place()
    train_dense(run, 0, place, lambda _row: None)
    if run.experiment.prune.style == "one_shot":
        make_masks(run, 0)
    while packs := ready(run.experiment, collect(run.folder).tickets):
        for pack in packs:
            train_all = train_chain if pack.in_turn else train_pack
            train_all(run, pack, place, lambda _rows, _records: None)


@pytest.fixture
def make_run(tmp_path: Path, digits_shards: Path) -> MakeRun:
    """A function from changes of SMALL to a Run whose shards are there, each in a fresh root."""
    made = 0

    def make(**changes: Any) -> Run:
        nonlocal made
        made += 1
        root = tmp_path / f"root-{made}"
        shutil.copytree(digits_shards / "data", root / "data")
        path = tmp_path / f"experiment-{made}.yaml"
        path.write_text(yaml.safe_dump(small_document(changes)))
        run = locate_experiment(read_experiment(path), root)
        if not run.data.manifest.is_file():
            prepare_without_ray(run)
        return run

    return make
