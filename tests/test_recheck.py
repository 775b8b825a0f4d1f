"""What is exported is measured once more."""

from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import MakeRun, train_without_ray
from exports import exported

from ltray import host, read_about
from ltray.analysis.results import collect
from ltray.errors import StageFailed
from ltray.files import read_json, write_json
from ltray.layout import TicketFolder
from ltray.tensors import read_tensors, write_tensors
from ltray.training.start import now


def test_masked_weights_that_are_not_zero_are_noticed(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(reset__epochs=[0], prune__sparsities=[0.5])
    train_without_ray(run)
    ((_, name),) = collect(run.folder).tickets
    folder = run.folder.replicate(0).ticket(name)
    weights, header = read_tensors(folder.weights)
    pruned = (weights["fc2.weight"] == 0).nonzero()[0]
    weights["fc2.weight"][tuple(pruned)] = 1e-6
    done = read_json(folder.done)
    done["sha256"][folder.weights.name] = write_tensors(folder.weights, weights, header)
    write_json(folder.done, done)
    with pytest.raises(StageFailed, match=r"masked weights are not zero in fc2\.weight"):
        exported(run, tmp_path / "t", name)
    assert not (tmp_path / "t" / "ticket.json").exists()


@pytest.mark.parametrize(
    ("backend", "torch_then", "most"),
    [("loop", version("torch"), 0), ("loop", "2.0.0", 2), ("fused", version("torch"), 2)],
    ids=["as it was trained", "by another torch", "by other kernels"],
)
def test_another_network_than_was_trained_is_noticed(
    backend: str, torch_then: str, most: int, make_run: MakeRun, tmp_path: Path
) -> None:
    """The check looks at images: a record that speaks of other weights is told."""
    started_at = now()
    run = make_run(reset__epochs=[0], prune__sparsities=[0.5], sweep__backend=backend)
    train_without_ray(run)
    launch = {
        "started_at": started_at,
        "finished_at": now(),
        "machine": {"nodes": 1, "cpu_name": host.cpu_name()},
        "versions": {"torch": torch_then},
    }
    write_json(run.folder.launches, {"launches": [launch]})
    ((_, name),) = collect(run.folder).tickets
    folder = run.folder.replicate(0).ticket(name)
    change_record(folder, most)
    lines = exported(run, tmp_path / "t", name)
    said = f"at most {most} may" if most else "none may"
    assert f"test: {most} of 359 images differ, on cpu; {said}" in lines
    assert lines[-1].endswith("the same images" + (f" but for {most}" if most else ""))
    checked = read_about(tmp_path / "t")["checked"]["test"]
    assert (checked["differ"], checked["may_differ"]) == (most, most)
    card = (tmp_path / "t" / "README.md").read_text()
    assert (f"on {most} of them it is right where it was wrong" in card) == (most > 0)

    change_record(folder, 1)
    with pytest.raises(StageFailed, match=f"is another on {most + 1} images"):
        exported(run, tmp_path / "other", name)
    assert not (tmp_path / "other" / "ticket.json").exists()


def change_record(folder: TicketFolder, images: int) -> None:
    """Have a ticket's files say that it was wrong on the first test images that it is right on."""
    packed, header = read_tensors(folder.correct)
    bits = np.unpackbits(packed["test"].numpy())
    bits[np.flatnonzero(bits)[:images]] = 0
    done = read_json(folder.done)
    changed = {**packed, "test": torch.from_numpy(np.packbits(bits))}
    done["sha256"][folder.correct.name] = write_tensors(folder.correct, changed, header)
    write_json(folder.done, done)
