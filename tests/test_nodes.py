"""A worker that is not like its driver, or does not see its files, is found before a trial."""

import os
import shutil
from pathlib import Path

import pytest
from commands import local_cluster, only_run, rows, run, write_experiment
from conftest import small_document

from ltray.cluster.lease import only_driver
from ltray.cluster.nodes import Demands, demands
from ltray.errors import LtrayError
from ltray.files import read_json, write_json
from ltray.layout import RunFolder

PACKAGE = Path(__file__).parents[1] / "ltray"


def test_what_has_the_drivers_code_and_sees_its_files_can_work(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with only_driver(folder) as lease:
        demands(folder, lease.token).check("10.0.0.2")
        assert sorted(path.name for path in folder.path.iterdir()) == [
            ".driver.lock",
            "driver.json",
        ]


def test_a_folder_of_the_same_name_on_another_disk_is_not_the_root(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(LtrayError, match=r"node 10\.0\.0\.2: does not see the driver's files"):
        demands(folder, "token").check("10.0.0.2")
    with only_driver(folder) as lease:
        wanted = demands(folder, lease.token)
        write_json(folder.lease, {**read_json(folder.lease), "token": "other", "host": "elsewhere"})
        with pytest.raises(LtrayError, match="another driver, on elsewhere"):
            wanted.check("10.0.0.2")


def test_what_was_wrong_once_is_looked_at_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    wanted = demands(folder, "token")
    with pytest.raises(LtrayError, match="does not see"):
        wanted.check("here")
    with only_driver(folder):
        write_json(folder.lease, {**read_json(folder.lease), "token": "token"})
        wanted.check("here")


def test_every_package_that_differs_is_named(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with only_driver(folder) as lease:
        mine = demands(folder, lease.token)
        others = tuple((name, "0.0.1") for name, _ in mine.versions)
        with pytest.raises(LtrayError) as raised:
            Demands(folder, lease.token, others).check("here")
    for name, version in mine.versions:
        assert f"has {name} {version}, the driver 0.0.1" in str(raised.value)


@pytest.mark.ray
def test_another_ltray_on_a_node_ends_the_sweep_at_its_start_unless_ours_is_sent(
    tmp_path: Path,
) -> None:
    elsewhere = tmp_path / "site"
    shutil.copytree(PACKAGE, elsewhere / "ltray", ignore=shutil.ignore_patterns("__pycache__"))
    with (elsewhere / "ltray" / "randomness.py").open("a") as file:
        file.write("# another release\n")
    small = write_experiment(tmp_path / "small.yaml", small_document({}))
    paths = os.pathsep.join([str(elsewhere), os.environ.get("PYTHONPATH", "")])
    with local_cluster({}, {"PYTHONPATH": paths}) as address:
        refused = run("sweep", small, "--address", address, folder=tmp_path)
        assert refused.status == 2
        assert "has ltray's code " in refused.err
        assert "--ship-code" in refused.err
        folder = only_run(tmp_path / "runs", "small")
        assert not list(folder.glob("replicate-*")), "something was trained"
        sent = run("sweep", small, "--address", address, "--ship-code", folder=tmp_path)
        assert sent.status == 0, sent.err
        assert [row["status"] for row in rows(folder)] == ["done"] * 6
