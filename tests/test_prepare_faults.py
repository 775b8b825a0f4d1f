"""What happens to preparing: killed at random moments, a full disk, a read-only root.

Whole commands on thousands of images: `pytest -m slow tests/test_prepare_faults.py`.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from archives import WNIDS, release, tar
from commands import HANGS, Outcome, ray_workers, run, start, wait_until, write_experiment
from PIL import Image

from ltray.data.archives.ilsvrc2012 import TASKS_1_AND_2
from ltray.files import TEMPORARY_PREFIX, read_json, sha256_of

pytestmark = [pytest.mark.slow, pytest.mark.ray]

IMAGES_PER_SYNSET = 2000
PARTS = 13  # 4,800 and 1,200 images at 512 a part
MOMENTS = 5
SEEDS = [0, 1, 2, 3]
TRAIN = TASKS_1_AND_2.train


def pictures() -> list[bytes]:
    noise = np.random.default_rng(7)
    made = []
    for _ in range(12):
        coarse = Image.fromarray(noise.integers(0, 256, (40, 60, 3), dtype=np.uint8))
        file = BytesIO()
        coarse.resize((500, 375)).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of 6,000 images, a dozen of which differ."""
    folder = tmp_path_factory.mktemp("archives")
    images = pictures()
    synsets = [
        (
            f"{wnid}.tar",
            tar(
                folder / "inner.tar",
                [(f"{wnid}_{n}.JPEG", images[n % 12]) for n in range(IMAGES_PER_SYNSET)],
            ),
        )
        for wnid in WNIDS
    ]
    return release(folder, synsets)


@pytest.fixture(scope="module")
def parquet_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same number of images in two files, as a data hub writes them."""
    folder = tmp_path_factory.mktemp("parquet")
    images = pictures()
    for number in range(2):
        rows = range(3 * IMAGES_PER_SYNSET // 2)
        columns = {"image": [images[n % 12] for n in rows], "label": [n % 3 for n in rows]}
        path = folder / f"train-{number:05d}-of-00002.parquet"
        pq.write_table(pa.table(columns), path, row_group_size=100, use_dictionary=False)
    return folder


@pytest.fixture(scope="module")
def undisturbed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return prepared_once(archives, tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="module")
def undisturbed_parquet(
    parquet_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    return prepared_once(parquet_files, tmp_path_factory.mktemp("undisturbed"))


def prepared_once(source: Path, folder: Path) -> dict[str, Any]:
    assert prepare(source, folder).status == 0
    assert len(parts(folder)) == PARTS
    return contents(folder)


def experiment(source: Path, folder: Path) -> Path:
    document = {
        "name": "faults",
        "data": {
            "source": "ilsvrc2012" if (source / TRAIN).exists() else "parquet",
            "path": str(source),
            "image_size": 227,
            "validation_fraction": 0.1,
        },
        "model": {"arch": "mobilenet_v2"},
        "train": {"epochs": 1, "batch_size": 64, "lr": 0.1},
        "prune": {"sparsities": [0.5]},
        "reset": {"epochs": [0]},
    }
    return write_experiment(folder / "faults.yaml", document)


def prepare(source: Path, folder: Path, root: str = "root") -> Outcome:
    return run("prepare", experiment(source, folder), "--root", root, folder=folder)


def parts(folder: Path, root: str = "root") -> list[Path]:
    return sorted((folder / root).glob("data/*/*/part-*.parquet"))


def contents(folder: Path, root: str = "root") -> dict[str, Any]:
    """Every file of the one data set by its sha256, and the manifest without its seconds."""
    (data,) = (folder / root / "data").iterdir()
    manifest = read_json(data / "manifest.json")
    del manifest["seconds"]
    tables = [path for path in data.rglob("*.parquet") if TEMPORARY_PREFIX not in path.name]
    return {
        "manifest": manifest,
        **{path.relative_to(data).as_posix(): sha256_of(path) for path in tables},
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_killed_at_random_moments(
    seed: int, archives: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    prepare_and_kill(seed, archives, tmp_path)
    assert contents(tmp_path) == undisturbed


def test_killed_at_random_moments_from_parquet_files(
    parquet_files: Path, undisturbed_parquet: dict[str, Any], tmp_path: Path
) -> None:
    prepare_and_kill(5, parquet_files, tmp_path)
    assert contents(tmp_path) == undisturbed_parquet
    assert not list(tmp_path.rglob("*.images"))


def prepare_and_kill(seed: int, source: Path, tmp_path: Path) -> None:
    """Prepare to the end, with kills on the way."""
    chance = random.Random(seed)
    path = experiment(source, tmp_path)

    def started() -> subprocess.Popen[str]:
        return start("prepare", path, "--root", "root", folder=tmp_path)

    process = started()
    for moment in range(MOMENTS):
        wanted = min(PARTS - 4, len(parts(tmp_path)) + chance.randint(0, 2))
        wait_until(has_parts(tmp_path, wanted), process)
        time.sleep(chance.uniform(0, 1))
        if chance.random() < 0.4:
            victim = "driver"
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            process = started()
        else:
            _, victim = kill_some_worker(process, chance)
        print(f"moment {moment}: {len(parts(tmp_path))} parts, killed {victim}")  # noqa: T201 (for the note)
    out, err = process.communicate(timeout=HANGS)
    assert process.returncode == 0, (out, err)


def kill_some_worker(process: subprocess.Popen[str], chance: random.Random) -> tuple[int, str]:
    """Kill -9 one of the job's processes; its number and title."""
    while True:
        wait_until(lambda: bool(ray_workers(process.pid)), process)
        workers = ray_workers(process.pid)
        if not workers:
            continue
        number, title = chance.choice(workers)
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
            return number, title


def has_parts(folder: Path, count: int) -> Callable[[], bool]:
    return lambda: len(parts(folder)) >= count


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting needs more rights")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def one_text(ended: Outcome, *words: str) -> None:
    assert ended.status not in (0, None), ended
    assert "Traceback" not in ended.err
    assert ended.err.count("to mend: ") == 1
    assert ended.err.count("\n") == 2, "nothing but the text"
    for word in words:
        assert word in ended.err


def test_a_full_disk_and_then_room(
    archives: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    with mounted(tmp_path / "small", "size=30m"):
        one_text(prepare(archives, tmp_path, "small"), "No space left on device")
        assert not list((tmp_path / "small").rglob("manifest.json"))
        there = {path: path.stat().st_mtime_ns for path in parts(tmp_path, "small")}
        assert there
        subprocess.run(["mount", "-o", "remount,size=300m", str(tmp_path / "small")], check=True)
        assert prepare(archives, tmp_path, "small").status == 0
        assert {path: path.stat().st_mtime_ns for path in there} == there
        assert contents(tmp_path, "small") == undisturbed


def test_no_room_for_the_copies_of_parquet_files(
    parquet_files: Path, undisturbed_parquet: dict[str, Any], tmp_path: Path
) -> None:
    with mounted(tmp_path / "small", "size=100m"):
        one_text(prepare(parquet_files, tmp_path, "small"), "No space left on device")
        subprocess.run(["mount", "-o", "remount,size=900m", str(tmp_path / "small")], check=True)
        assert prepare(parquet_files, tmp_path, "small").status == 0
        assert contents(tmp_path, "small") == undisturbed_parquet
        assert not list((tmp_path / "small").rglob("*.images"))


def test_a_read_only_root(archives: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "fixed", "ro"):
        one_text(prepare(archives, tmp_path, "fixed"), "Read-only file system")


def test_an_archive_cut_at_60_percent(archives: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(archives, cut)
    os.truncate(cut / TRAIN, (cut / TRAIN).stat().st_size * 6 // 10)
    one_text(prepare(cut, tmp_path), f"{TRAIN}: the archive is damaged or only partly there")
    assert not parts(tmp_path)


def test_an_archive_replaced_in_mid_run_and_between_runs(
    archives: Path, undisturbed: dict[str, Any], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(archives, mine)
    process = start("prepare", experiment(mine, tmp_path), "--root", "root", folder=tmp_path)
    wait_until(has_parts(tmp_path, 2), process)
    os.truncate(mine / TRAIN, 1 << 20)
    out, err = process.communicate(timeout=HANGS)
    one_text(Outcome(process.returncode, out, err, 0.0), f"{mine} was changed")
    assert not parts(tmp_path), "nobody can say which parts were made before"
    assert not list((tmp_path / "root").rglob("manifest.json"))
    shutil.copy(archives / TRAIN, mine / TRAIN)
    assert prepare(mine, tmp_path).status == 0
    assert contents(tmp_path) == undisturbed
    with (mine / TRAIN).open("r+b") as file:
        file.seek(IMAGES_PER_SYNSET)  # in the first image
        file.write(b"another")
    assert prepare(mine, tmp_path).status == 0
    assert len(list((tmp_path / "root").rglob("manifest.json"))) == 2
    assert len({path.parts[-3] for path in parts(tmp_path)}) == 2  # nothing of one in the other


def test_a_parquet_source_replaced_in_mid_run_and_before_a_run_goes_on(
    parquet_files: Path, undisturbed_parquet: dict[str, Any], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(parquet_files, mine)
    process = start("prepare", experiment(mine, tmp_path), "--root", "root", folder=tmp_path)
    wait_until(has_parts(tmp_path, 2), process)
    relabel(mine)
    out, err = process.communicate(timeout=HANGS)
    one_text(Outcome(process.returncode, out, err, 0.0), "mine was changed", "give the command")
    assert not parts(tmp_path)
    shutil.copytree(parquet_files, mine, dirs_exist_ok=True)
    assert prepare(mine, tmp_path).status == 0
    assert contents(tmp_path) == undisturbed_parquet
    shutil.rmtree(tmp_path / "root" / "data")
    relabel(mine)
    (run_folder,) = (path.parent for path in (tmp_path / "root").glob("*/experiment.yaml"))
    one_text(run("prepare", run_folder, folder=tmp_path), "mine was changed")
    assert not parts(tmp_path)
    assert not list((tmp_path / "root").glob("*/.scratch"))


def relabel(folder: Path) -> None:
    """Other files in place of the source's, with as many rows."""
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        labels = pa.array([2 - label for label in table["label"].to_pylist()])
        changed = table.set_column(table.column_names.index("label"), "label", labels)
        pq.write_table(changed, path.with_suffix(".new"), row_group_size=100, use_dictionary=False)
        path.with_suffix(".new").replace(path)
