"""Sources and roots in an S3-compatible store, served on loopback."""

import os
import random
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from archives import SHARED, png, source
from commands import HANGS, finish, start
from commands import write_experiment as write_experiment_file
from conftest import prepare_without_ray, small_document

from ltray import files
from ltray.analysis.results import Rows, collect, read_results, write_tables
from ltray.cluster.lease import only_driver
from ltray.data import batches as batches_module
from ltray.data.archives.index import index_of
from ltray.data.batches import Batches, open_data_set
from ltray.data.manifest import read_manifest
from ltray.data.node_cache import on_this_node
from ltray.data.verify import verify
from ltray.errors import LtrayError
from ltray.experiment_file import read_experiment
from ltray.files import at, is_there, names_below, remove_folder, write_whole
from ltray.layout import RunFolder
from ltray.locate import locate, locate_experiment
from ltray.lottery.ready import ready
from ltray.lottery.trajectory import read_trajectory
from ltray.patience import is_storage_error
from ltray.record import write_experiment
from ltray.run import Run
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack
from ltray.training.start import begin

pytestmark = pytest.mark.long

MINI = SHARED / "ilsvrc2012-mini"
EXPERIMENT = """
name: stored
data: {{source: {source}, path: {path}, image_size: 64, validation_fraction: 0.1}}
model: {{arch: resnet20}}
train: {{epochs: 1, batch_size: 8, lr: 0.1}}
prune: {{sparsities: [0.5]}}
reset: {{epochs: [0]}}
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of an empty bucket."""
    moto_server = pytest.importorskip("moto.server")
    boto3 = pytest.importorskip("boto3")
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tests")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield "s3://bucket"
    server.stop()


def npz(path: Path) -> Path:
    random = np.random.default_rng(7)
    np.savez(
        path / "some.npz",
        x_train=random.integers(0, 256, (3000, 64, 64, 3), dtype=np.uint8)[:, :8, :8],
        y_train=random.integers(0, 3, 3000),
        x_test=random.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8),
        y_test=random.integers(0, 3, 50),
    )
    return path / "some.npz"


def run_of(tmp_path: Path, kind: str, path: str, root: str) -> Run:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT.format(source=kind, path=path))
    return locate_experiment(read_experiment(file), at(root, "--root"))


def copy_to(bucket: str, *files: Path) -> str:
    for file in files:
        write_whole(at(f"{bucket}/source/{file.name}", "bucket"), file.read_bytes())
    return f"{bucket}/source"


def test_from_a_store_to_a_store_gives_the_shards_of_a_disk(bucket: str, tmp_path: Path) -> None:
    here = npz(tmp_path)
    there = copy_to(bucket, here)
    local = run_of(tmp_path, "npz", str(here), str(tmp_path / "root"))
    remote = run_of(tmp_path, "npz", f"{there}/some.npz", f"{bucket}/root")
    assert remote.data.path.name == local.data.path.name
    for run in (local, remote):
        prepare_without_ray(run)
        assert verify(run.data) == []
    mine, theirs = read_manifest(local.data), read_manifest(remote.data)
    assert theirs.parts == mine.parts


def test_parquet_files_of_a_store_give_the_shards_of_a_disk(bucket: str, tmp_path: Path) -> None:
    images: list[bytes | None] = [png(n, side=8) for n in range(40)]
    images[7], images[11], images[39] = None, b"", None
    table = pa.table({"image": images, "label": [n % 3 for n in range(40)]})
    pq.write_table(table, tmp_path / "some.parquet", row_group_size=9)
    there = copy_to(bucket, tmp_path / "some.parquet")
    local = run_of(tmp_path, "parquet", str(tmp_path / "some.parquet"), str(tmp_path / "root"))
    remote = run_of(tmp_path, "parquet", f"{there}/some.parquet", f"{bucket}/root")
    for run in (local, remote):
        prepare_without_ray(run)
        assert verify(run.data) == []
        assert run.folder.scratch.is_dir()
        remove_folder(run.folder.scratch)
        remove_folder(run.folder.scratch)
        assert not run.folder.scratch.exists()
    mine, theirs = read_manifest(local.data), read_manifest(remote.data)
    assert theirs.parts == mine.parts
    assert theirs.quarantined == mine.quarantined == 3


@pytest.mark.skipif(not MINI.is_dir(), reason="shared/data/ilsvrc2012-mini is absent")
def test_archives_are_read_by_ranges_where_they_lie(bucket: str, tmp_path: Path) -> None:
    names = ("ILSVRC2012_img_train_t3.tar", "ILSVRC2012_devkit_t3.tar.gz")
    there = copy_to(bucket, *(MINI / name for name in names))
    remote, local = source("ilsvrc2012_t3", there), source("ilsvrc2012_t3", MINI)
    splits = index_of(remote).splits
    assert splits["train"].keys == index_of(local).splits["train"].keys
    assert list(remote.read(splits["train"])) == list(local.read(splits["train"]))


def test_streamed_batches_of_a_store_are_those_of_a_disk_and_copied_once(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LTRAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(batches_module, "resident_budget", lambda _device: 0)
    here = npz(tmp_path)
    local = run_of(tmp_path, "npz", str(here), str(tmp_path / "root"))
    remote = run_of(tmp_path, "npz", str(here), f"{bucket}/other")
    for run in (local, remote):
        prepare_without_ray(run)

    def epoch(run: Run) -> list[torch.Tensor]:
        manifest = read_manifest(run.data)
        cpu = torch.device("cpu")
        data_set = open_data_set(run.data, manifest, run.experiment.data, cpu, threads=2)
        return [images for images, _ in Batches(data_set, 60, 0).epoch(0)]

    assert all(torch.equal(a, b) for a, b in zip(epoch(local), epoch(remote), strict=True))
    copies = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert sorted(path.name for path in copies if path.name != ".lock") == sorted(
        part.sha256 for part in read_manifest(remote.data).parts["train"]
    )
    part = read_manifest(remote.data).parts["train"][0]
    write_whole(remote.data.path / part.path, b"something else")
    on_this_node(remote.data.path / part.path, part.sha256)  # the copy is found by its content
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(LtrayError, match="the manifest says"):
        on_this_node(remote.data.path / part.path, part.sha256)


class CuttingProxy:
    """Hands connections on to a server, and cuts half of those that put a part in mid-body."""

    def __init__(self, server: tuple[str, int]) -> None:
        self.cuts = 0
        self._server = server
        self._chance = random.Random(7)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "http://{}:{}".format(*self._listener.getsockname())
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._server) as server:
            answering = Thread(target=self._answer, args=(server, client), daemon=True)
            answering.start()
            self._send(client, server)
            answering.join()

    def _send(self, client: socket.socket, server: socket.socket) -> None:
        left: float = inf
        with suppress(OSError):
            while content := client.recv(4096):
                if content.startswith(b"PUT ") and b".parquet" in content.partition(b"\r\n")[0]:
                    left = self._chance.choice([1500, 20_000, inf, inf])
                if len(content) >= left:
                    server.sendall(content[: int(left)])
                    self.cuts += 1
                    break
                left -= len(content)
                server.sendall(content)
        _hang_up(client, server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while content := server.recv(65536):
                client.sendall(content)
        _hang_up(client, server)


def _hang_up(*connections: socket.socket) -> None:
    for connection in connections:
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


@pytest.mark.ray
def test_puts_cut_in_the_middle_leave_no_partial_object(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = npz(tmp_path)
    there = copy_to(bucket, here)
    local = run_of(tmp_path, "npz", str(here), str(tmp_path / "root"))
    prepare_without_ray(local)
    host, _, port = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://").partition(":")
    proxy = CuttingProxy((host, int(port)))
    through = run_of(tmp_path, "npz", f"{there}/some.npz", f"{bucket}/cut")
    seen: set[tuple[str, str]] = set()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
    process = start(
        "prepare", tmp_path / "experiment.yaml", "--root", f"{bucket}/cut", folder=tmp_path
    )
    boto3 = pytest.importorskip("boto3")
    store = boto3.client("s3", endpoint_url=f"http://{host}:{port}")
    until = time.monotonic() + HANGS
    while process.poll() is None and time.monotonic() < until:
        listed = store.list_objects_v2(Bucket="bucket", Prefix="cut/data/").get("Contents", [])
        seen |= {(one["Key"], one["ETag"]) for one in listed}
        time.sleep(0.1)
    ended = finish(process)
    proxy.close()
    monkeypatch.undo()
    assert ended.status == 0, ended
    assert proxy.cuts >= 3
    assert read_manifest(through.data).parts == read_manifest(local.data).parts
    assert verify(through.data) == []
    keys = [key for key, _ in seen]
    assert keys, "nobody looked while it was written"
    assert len(keys) == len(set(keys)), "an object was seen with two contents"


def digits(root: str, folder: Path, **changes: Any) -> Run:
    """A small run of the digits whose shards are prepared."""
    path = folder / "digits.yaml"
    path.write_text(yaml.safe_dump(small_document(changes)))
    run = locate_experiment(read_experiment(path), at(root, "--root"))
    prepare_without_ray(run)
    return run


def trained(run: Run, stop_after: int | None = None) -> Rows:
    """The rows of a run after all that is left of it was done here."""
    place = this_place()
    train_dense(run, 0, place, lambda _row: None)
    make_masks(run, 0)
    done = collect(run.folder).tickets
    for pack in ready(run.experiment, done)[:stop_after]:
        train_pack(run, pack, place, lambda _rows, _records: None)
    return collect(run.folder)


def same_files(one: Run, other: Run, *names: str) -> bool:
    folders = [run.folder.path for run in (one, other)]
    there = [
        {name: (folder / name).read_bytes() for name in names_below(folder) if name.endswith(names)}
        for folder in folders
    ]
    return bool(there[0]) and there[0] == there[1]


def test_training_in_a_store_gives_the_bits_of_a_disk(bucket: str, tmp_path: Path) -> None:
    local = digits(str(tmp_path / "root"), tmp_path)
    remote = digits(f"{bucket}/trained", tmp_path)
    mine, theirs = trained(local), trained(remote)
    assert set(theirs.tickets) == set(mine.tickets)
    assert len(theirs.tickets) == 6
    names = ("weights.safetensors", "correct.safetensors", "step-0000000.safetensors")
    assert same_files(local, remote, *names)
    for run, rows in ((local, mine), (remote, theirs)):
        write_tables(run.folder, rows, 0.02)
        write_experiment(run)
    assert read_results(remote.folder.path).tickets["val_top1"].tolist() == [
        *read_results(local.folder.path).tickets["val_top1"]
    ]
    assert not [name for name in names_below(remote.folder.path) if "state." in name]


def test_what_is_done_in_a_store_is_not_done_again(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = digits(f"{bucket}/again", tmp_path)
    first = trained(run, stop_after=1)
    assert len(first.tickets) == 3
    whole = trained(run)
    assert len(whole.tickets) == 6
    assert all(whole.tickets[one] == row for one, row in first.tickets.items())


def test_a_store_that_does_not_answer_is_not_one_without_files(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = digits(f"{bucket}/silent", tmp_path)
    attempts = run.folder.replicate(0).ticket("some").attempts
    assert not is_there(attempts)
    begin(attempts)
    assert is_there(attempts)
    assert not is_there(attempts.parent), "a folder"
    assert read_trajectory(run.folder.replicate(0)) is None
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(files, "S3_PATIENCE", {"retries": {"max_attempts": 1}})
    silent = RunFolder(at(str(run.folder.path), "--root")).replicate(0)
    with pytest.raises(Exception, match="Could not connect") as raised:
        is_there(silent.ticket("some").attempts)
    assert is_storage_error(raised.value), "which is tried again"
    with pytest.raises(Exception, match="Could not connect"):
        read_trajectory(silent)


def test_a_run_in_a_store_is_found_by_its_folder(bucket: str, tmp_path: Path) -> None:
    data = npz(tmp_path)
    run = run_of(tmp_path, "npz", str(data), f"{bucket}/found")
    write_experiment(run)
    found = locate(at(str(run.folder.path), "EXPERIMENT.yaml"))
    assert found.folder == run.folder
    assert found.experiment == run.experiment


def test_what_is_left_of_a_run_in_a_store_is_planned(bucket: str, tmp_path: Path) -> None:
    run = digits(f"{bucket}/planned", tmp_path)
    write_experiment(run)
    trained(run, stop_after=1)
    ended = finish(
        start("plan", run.folder.path, "--seconds-per-epoch", 1, folder=tmp_path), timeout=HANGS
    )
    assert ended.status == 0, ended.err
    assert "of them left, in" in ended.out
    assert "in the prepared shards" in ended.out
    assert "preparing the images" not in ended.out
    assert "Storage: " in ended.out


def test_one_driver_per_run_in_a_store_too(bucket: str, tmp_path: Path) -> None:
    run = run_of(tmp_path, "npz", str(npz(tmp_path)), f"{bucket}/leased")
    with (
        only_driver(run.folder),
        pytest.raises(LtrayError, match="is at work"),
        only_driver(run.folder),
    ):
        pass
    with only_driver(run.folder):
        pass


@pytest.mark.parametrize("name", ["image_folder", "torchvision:MNIST"])
def test_sources_of_single_files_are_refused_in_a_store(bucket: str, name: str) -> None:
    with pytest.raises(LtrayError, match="lies in an object store"):
        source(name, f"{bucket}/folder")


def test_an_address_that_nothing_reads_is_an_error() -> None:
    with pytest.raises(LtrayError, match=r"ftps?://|write a folder"):
        at("nowhere://bucket", "--root")


def contents(root: str) -> dict[str, bytes]:
    """Every object below an address."""
    folder = at(root, "root")
    return {name: (folder / name).read_bytes() for name in names_below(folder)}


@pytest.mark.ray
def test_a_whole_sweep_in_a_store_leaves_nothing_on_the_disk_and_is_not_done_twice(
    bucket: str, tmp_path: Path
) -> None:
    file = write_experiment_file(tmp_path / "small.yaml", small_document({"train__epochs": 2}))
    root = f"{bucket}/swept"
    first = finish(start("sweep", file, "--root", root, folder=tmp_path))
    assert first.status == 0, first
    there = contents(root)
    (folder,) = {name.partition("/")[0] for name in there if name.startswith("small-")}
    rows = read_results(at(f"{root}/{folder}", "root")).tickets
    assert rows["status"].tolist() == ["done"] * 6
    tunes = {Path(name).name for name in there if f"{folder}/tune/" in name}
    assert {"result.json", "params.json"} <= tunes
    assert any(name.startswith("events.out.tfevents") for name in tunes)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]
    second = finish(start("sweep", file, "--root", root, folder=tmp_path))
    assert second.status == 0, second
    assert "all done" in second.out
    shown = {f"{folder}/{name}" for name in ("report.html", "tickets.parquet", "epochs.parquet")}
    assert {name for name, content in contents(root).items() if there.get(name) != content} <= shown
