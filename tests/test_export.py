"""`python -m ltray.export`: from a run to a folder that needs nothing else."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import run as command
from conftest import MakeRun, small_document, train_without_ray
from exports import exported
from own_network import NETS, written
from safetensors.torch import load_file, save_file

from ltray import load_ticket, network_inputs, read_about
from ltray.analysis.chosen import choose
from ltray.analysis.results import Rows, collect
from ltray.errors import LtrayError, StageFailed
from ltray.experiment_file import read_experiment
from ltray.files import at, read_json
from ltray.layout import TicketFolder
from ltray.locate import locate_experiment
from ltray.lottery.masks import load_mask
from ltray.lottery.snapshot import load_weights
from ltray.record import write_experiment
from ltray.run import Run
from ltray.tensors import read_tensors
from ltray.training.place import this_place
from ltray.training.start import open_batches

# Imports that a machine with torch and safetensors alone would refuse.
BARE = """
import sys

REFUSED = "ltray ray numpy pyarrow pandas torchvision pydantic yaml PIL scipy sklearn".split()

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in REFUSED:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Refuse())
"""
MEASURE = """
import torch
from safetensors.torch import load_file
from load_ticket import load_ticket, network_inputs

images = load_file("../images.safetensors")
model, mask = load_ticket(".")
with torch.inference_mode():
    right = model(network_inputs(".", images["pixels"])).argmax(dim=1) == images["labels"]
print(int(right.sum()), all(not model.get_parameter(n)[~m].any() for n, m in mask.items()))
"""

# Around the card's own example.
READ = """
from safetensors.torch import load_file, save_file

pixels = load_file("../images.safetensors")["pixels"]
"""
WRITE = """
save_file({"logits": logits.detach()}, "../logits.safetensors")
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_shards: Path) -> Run:
    """A finished run: 2 levels, 2 reset points, both controls."""
    root = tmp_path_factory.mktemp("export")
    shutil.copytree(digits_shards / "data", root / "data")
    path = root / "small.yaml"
    document = small_document(
        {
            "reset__epochs": [0, 1],
            "train__epochs": 4,
            "controls": ["shuffled_mask", "random_init"],
            "report__margin": 0.1,
        }
    )
    path.write_text(yaml.safe_dump(document))
    run = locate_experiment(read_experiment(path), root)
    write_experiment(run)
    train_without_ray(run)
    return run


def folder_of(run: Run, about: dict[str, Any]) -> TicketFolder:
    return run.folder.replicate(about["row"]["replicate"]).ticket(about["row"]["ticket"])


def test_the_files_are_the_tickets_to_the_bit(trained: Run, tmp_path: Path) -> None:
    exported(trained, tmp_path / "t")
    about = read_about(tmp_path / "t")
    model, mask = load_ticket(tmp_path / "t")
    start, _ = load_ticket(tmp_path / "t", weights="start")
    expected, _ = read_tensors(folder_of(trained, about).weights)
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    replicate = trained.folder.replicate(0)
    of_mask = load_mask(replicate.mask(about["row"]["mask"]))
    assert all(torch.equal(part, of_mask[name]) for name, part in mask.items())
    first = load_weights(replicate.step(about["row"]["reset_step"]))
    for name, value in start.state_dict().items():
        kept = first[name] * of_mask[name] if name in of_mask else first[name]
        assert torch.equal(value, kept), name


def test_a_machine_with_torch_and_safetensors_alone_is_right_on_as_many_images(
    trained: Run, tmp_path: Path
) -> None:
    folder = tmp_path / "t"
    exported(trained, folder)
    pixels, labels = images_of_test(trained)
    save_file({"pixels": pixels, "labels": labels}, tmp_path / "images.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", BARE + MEASURE],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"},
    )
    right = round(read_about(folder)["row"]["test_top1"] * len(labels))
    assert done.stdout.split() == [str(right), "True"]


@pytest.mark.parametrize(
    ("precision", "backend", "of_figures"),
    [
        ("bfloat16", "loop", torch.bfloat16),
        ("float32", "loop", torch.float32),
        ("bfloat16", "csr", torch.float32),
    ],
)
def test_the_cards_example_computes_as_the_figures_were(
    precision: str, backend: str, of_figures: torch.dtype, make_run: MakeRun, tmp_path: Path
) -> None:
    keys = {"train__precision": precision, "sweep__backend": backend}
    run = make_run(reset__epochs=[0], prune__sparsities=[0.5], **keys)
    train_without_ray(run)
    ((_, name),) = collect(run.folder).tickets
    exported(run, tmp_path / "t", name)
    about = read_about(tmp_path / "t")
    assert f"torch.{about['precision']}" == str(of_figures)
    card = (tmp_path / "t" / "README.md").read_text()
    example = card.split("```python\n")[1].split("```")[0]
    pixels, labels = images_of_test(run)
    save_file({"pixels": pixels}, tmp_path / "images.safetensors")
    program = f"{READ}{example}{WRITE}"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path / "t", check=True)
    logits = load_file(tmp_path / "logits.safetensors")["logits"]
    assert logits.dtype == of_figures
    right = int((logits.argmax(dim=1) == labels).sum())
    assert abs(right - about["row"]["test_top1"] * len(labels)) < 1.5  # a tie, another batch


def images_of_test(run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    batches = open_batches(run, this_place(), data_seed=0)
    found = list(batches.evaluation("test"))
    pixels = torch.cat([images for images, _ in found]).permute(0, 2, 3, 1) * 255
    return pixels.round().to(torch.uint8).contiguous(), torch.cat([labels for _, labels in found])


def test_the_sparsest_winning_ticket_is_chosen(trained: Run) -> None:
    rows = collect(trained.folder)
    chosen = choose(trained, rows, None, None)
    assert chosen.winner is not None
    matching = [
        row
        for row in rows.tickets.values()
        if row["control"] == "none" and row["val_top1"] >= row["dense_val_top1"] - 0.1
    ]
    assert chosen.row["sparsity"] == max(row["sparsity"] for row in matching)


def test_nothing_that_matches_is_said(trained: Run) -> None:
    rows = Rows(dense=collect(trained.folder).dense)
    with pytest.raises(LtrayError, match=r"no ticket matches the dense network within 0\.1"):
        choose(trained, rows, None, None)


@pytest.mark.parametrize("control", ["shuffled_mask", "random_init"])
def test_controls_can_be_exported_by_their_names(
    trained: Run, tmp_path: Path, control: str
) -> None:
    row = next(r for r in collect(trained.folder).tickets.values() if r["control"] == control)
    exported(trained, tmp_path / "t", row["ticket"])
    model, mask = load_ticket(tmp_path / "t", weights="start")
    assert sum(int(part.sum()) for part in mask.values()) == row["kept_weights"]
    assert all(not bool(model.get_parameter(name)[~part].any()) for name, part in mask.items())
    assert "It is a **control**" in (tmp_path / "t" / "README.md").read_text()


def test_a_misspelt_ticket_is_answered_with_the_nearest(trained: Run) -> None:
    rows = collect(trained.folder)
    name = next(iter(rows.tickets))[1]
    with pytest.raises(LtrayError, match=f"did you mean '{name}'"):
        choose(trained, rows, name[:-1], None)
    with pytest.raises(LtrayError, match="there is no replicate 3"):
        choose(trained, rows, name, 3)
    smaller = trained.experiment.prune.model_copy(update={"sparsities": (0.9,)})
    grown_back = replace(
        trained, experiment=trained.experiment.model_copy(update={"prune": smaller})
    )
    assert choose(grown_back, rows, name, None).row["ticket"] == name  # of an earlier grid
    del rows.tickets[0, name]
    with pytest.raises(LtrayError, match="has not been trained yet"):
        choose(trained, rows, name, None)


def test_the_same_command_again_changes_nothing(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    exported(trained, folder)
    card = folder / "README.md"
    written_by_us = card.read_text()
    card.write_text(written_by_us + "A line of my own.\n")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert exported(trained, folder) == [f"{folder} has it already"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "mask.safetensors").unlink()
    exported(trained, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "ticket.json").unlink()  # as after a command that was cut off: the card is of that
    exported(trained, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        **before,
        "README.md": written_by_us.encode(),
    }


def test_a_card_that_was_there_first_is_kept_and_that_is_said(trained: Run, tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "README.md").write_text("Mine.\n")
    lines = exported(trained, tmp_path / "t")
    assert (tmp_path / "t" / "README.md").read_text() == "Mine.\n"
    assert any("was there before" in line for line in lines)


def test_a_folder_in_use_is_left_alone(trained: Run, tmp_path: Path) -> None:
    folder = tmp_path / "t"
    exported(trained, folder)
    other = next(r for r in collect(trained.folder).tickets.values() if r["control"] != "none")
    with pytest.raises(LtrayError, match="holds another ticket"):
        exported(trained, folder, other["ticket"])
    with pytest.raises(LtrayError, match="which no export writes"):
        exported(trained, trained.folder.path)
    (tmp_path / "notes.txt").write_text("mine")
    for place in ("notes.txt", "notes.txt/deep/ticket"):
        with pytest.raises(LtrayError, match=r"notes\.txt is a file"):
            exported(trained, tmp_path / place)


def test_damaged_weights_are_not_exported(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(reset__epochs=[0], prune__sparsities=[0.5])
    train_without_ray(run)
    ((_, name),) = collect(run.folder).tickets
    weights = run.folder.replicate(0).ticket(name).weights
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(StageFailed, match="has changed since it was trained"):
        exported(run, tmp_path / "t", name)
    weights.unlink()
    with pytest.raises(StageFailed, match="is missing"):
        exported(run, tmp_path / "t", name)
    folder = run.folder.replicate(0)
    for gone, mend in ((folder.step(0), "ltray.dense"), (next(folder.masks.iterdir()), "sweep")):
        gone.unlink()
        with pytest.raises(StageFailed, match=rf"{gone.name}: is missing\n.*{mend}"):
            exported(run, tmp_path / "t", name)
    prune = run.experiment.prune.model_copy(update={"sparsities": (0.7,)})
    changed = replace(run, experiment=run.experiment.model_copy(update={"prune": prune}))
    with pytest.raises(StageFailed, match=f"ask for {name} of replicate 0 again"):
        exported(changed, tmp_path / "t", name)
    assert not (tmp_path / "t").exists()


def test_a_ticket_of_an_earlier_grid_goes_without_a_recipe_of_masks(
    trained: Run, tmp_path: Path
) -> None:
    """The run's experiment now asks for other masks, whose keys would be wrong for this one."""
    name = choose(trained, collect(trained.folder), None, None).row["ticket"]
    prune = trained.experiment.prune.model_copy(update={"keep_dense": ("fc1.weight",)})
    changed = replace(trained, experiment=trained.experiment.model_copy(update={"prune": prune}))
    exported(trained, tmp_path / "now", name)
    exported(changed, tmp_path / "then", name)
    now, then = (read_about(tmp_path / which)["experiment"] for which in ("now", "then"))
    assert now.keys() - then.keys() == {"prune", "reset", "controls"}
    assert then.items() <= now.items()
    cards = [(tmp_path / which / "README.md").read_text() for which in ("now", "then")]
    assert ["All else is in the recipe." in card for card in cards] == [True, False]
    assert "fc1.weight" not in cards[1]
    assert "asks for other tickets by now" in cards[1]


def test_a_file_that_is_missing_in_a_store_is_named() -> None:
    """What stores raise has no name in it."""
    path = at("memory://runs/replicate-0/masks/one.safetensors", "--root")
    with pytest.raises(FileNotFoundError) as raised:
        read_tensors(path)
    assert raised.value.filename == str(path)


def test_a_network_of_ones_own_goes_along_as_text(tmp_path: Path, digits_shards: Path) -> None:
    path = written(tmp_path / "mine")
    root = tmp_path / "root"
    shutil.copytree(digits_shards / "data", root / "data")
    run = locate_experiment(read_experiment(path), root)
    write_experiment(run)
    train_without_ray(run)
    name = next(iter(collect(run.folder).tickets))[1]
    exported(run, tmp_path / "t", name)
    assert (tmp_path / "t" / "network.py").read_text() == NETS
    about = read_about(tmp_path / "t")
    assert about["network"]["arch"] == "network.py:small"
    assert str(tmp_path) not in (tmp_path / "t" / "ticket.json").read_text()
    assert str(tmp_path) not in (tmp_path / "t" / "README.md").read_text()
    made: dict[str, Any] = {}
    exec(NETS, made)
    model, _ = load_ticket(tmp_path / "t", network=made["small"])
    images = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
    assert model(network_inputs(tmp_path / "t", images)).shape == (2, 10)
    assert model(network_inputs(tmp_path / "t", images.numpy())).shape == (2, 10)


def test_onnx_gives_the_same_logits(trained: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    folder = tmp_path / "t"
    exported(trained, folder, with_onnx=True)
    pixels, labels = images_of_test(trained)
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    inputs = network_inputs(folder, pixels)
    (logits,) = session.run(["logits"], {"images": inputs.numpy()})
    right = int((np.asarray(logits).argmax(axis=1) == labels.numpy()).sum())
    assert right == round(read_about(folder)["row"]["test_top1"] * len(labels))
    assert b".py" not in (folder / "model.onnx").read_bytes()  # no paths of this machine


def test_the_command_names_what_it_wrote(trained: Run, tmp_path: Path) -> None:
    done = command("export", trained.folder.path, "--to", tmp_path / "t", folder=tmp_path)
    assert done.status == 0, done.err
    assert "0 of 359 images differ, on cpu" in done.out
    card = (tmp_path / "t" / "README.md").read_text()
    row = read_about(tmp_path / "t")["row"]
    assert f"| this network | {100 * row['val_top1']:.2f}" in card
    assert read_json(tmp_path / "t" / "ticket.json")["checked"]["test"]["differ"] == 0
    wrong = command("export", trained.folder.path, "--to", tmp_path, folder=tmp_path)
    assert wrong.status == 2
    assert "name a new folder" in wrong.err


def test_a_card_calls_retrainings_of_one_seed_that(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run(reset__retrainings=2, report__margin=0.9)
    write_experiment(run)
    train_without_ray(run)
    exported(run, tmp_path / "t")
    card = (tmp_path / "t" / "README.md").read_text()
    assert "Over 2 trainings of its cell it differs" in card
    assert "All are of one seed: another may give another figure." in card
