"""A person's own criterion, from an experiment file to the masks, without Ray."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import located, small_document
from own_network import NETS

from ltray import load_experiment
from ltray.analysis.results import read_results
from ltray.errors import InvalidExperiment, LtrayError
from ltray.experiment_file import read_experiment
from ltray.files import read_json
from ltray.locate import locate, locate_experiment
from ltray.lottery.criteria import Batch
from ltray.lottery.mask_names import masks_of
from ltray.lottery.masks import load_mask
from ltray.lottery.own_criteria import own_scores
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import load_weights
from ltray.lottery.tickets import grid
from ltray.lottery.trajectory import read_trajectory
from ltray.record import write_experiment
from ltray.run import Run
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack

SMALLEST = """
def smallest(network, names, batches):
    return {name: -network.get_parameter(name).abs() for name in names}
"""
GRADIENTS = """
import torch
from torch.nn import functional


def by_gradient(network, names, batches):
    for images, labels in batches:
        functional.cross_entropy(network(images), labels).backward()
    noise = torch.rand(1) * 1e-9
    return {name: network.get_parameter(name).grad.abs() + noise for name in names}
"""


def written(folder: Path, text: str = SMALLEST, **changes: Any) -> Path:
    """An experiment with a criterion beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "mine.py").write_text(text)
    path = folder / "experiment.yaml"
    if "prune" not in changes:
        changes = {"prune__criterion": "mine.py:smallest", **changes}
    path.write_text(yaml.safe_dump(small_document(changes)))
    return path


def pruned(run: Run) -> Run:
    train_dense(run, 0, this_place(), lambda _row: None)
    make_masks(run, 0)
    return run


def test_what_a_function_scores_highest_is_kept(tmp_path: Path) -> None:
    run = pruned(located(written(tmp_path / "mine"), tmp_path / "root"))
    folder = run.folder.replicate(0)
    trajectory = read_trajectory(folder)
    assert trajectory is not None
    weights = load_weights(folder.step(trajectory.total_steps))  # the dense run's last
    masks = masks_of(run.experiment)
    assert [mask.name.rpartition("-")[0] for mask in masks] == ["smallest-0.5", "smallest-0.9"]
    for one in masks:
        for name, kept in load_mask(folder.mask(one.name)).items():
            size = weights[name].abs()
            assert float(size[kept].max()) <= float(size[~kept].min())


def test_a_sweep_with_ones_own_network_and_criterion(tmp_path: Path) -> None:
    prune = {"criterion": "mine.py:by_gradient", "sparsities": [0.5, 0.9]}
    keys = {"model": {"arch": "nets.py:small"}, "prune": prune}
    path = written(tmp_path / "mine", GRADIENTS, **keys)
    (tmp_path / "mine/nets.py").write_text(NETS)
    run = pruned(located(path, tmp_path / "root"))
    for pack in ready(run.experiment, ()):
        train_pack(run, pack, this_place(), lambda _rows, _records: None)
    for ticket in grid(run.experiment):
        row = read_json(run.folder.replicate(0).ticket(ticket.name).done)["row"]
        assert row["status"] == "done"
        assert row["criterion"].endswith(".py:by_gradient")
        assert row["kept_weights"] == {0.5: 1298, 0.9: 260}[ticket.sparsity]  # of 2,596
    other = pruned(located(path, tmp_path / "other"))
    for one in masks_of(run.experiment):
        files = [each.folder.replicate(0).mask(one.name).read_bytes() for each in (run, other)]
        assert files[0] == files[1]


def test_another_content_is_another_mask_of_the_same_run(tmp_path: Path) -> None:
    one = located(written(tmp_path / "mine"), tmp_path / "root")
    text = SMALLEST.replace(".abs()", ".square()")
    other = located(written(tmp_path / "mine", text), tmp_path / "root")
    moved = located(written(tmp_path / "moved"), tmp_path / "root")
    assert one.folder == other.folder == moved.folder
    names = [{mask.name for mask in masks_of(run.experiment)} for run in (one, other, moved)]
    assert names[0] == names[2]
    assert not names[0] & names[1]


def test_a_runs_folder_names_the_file_and_does_not_hold_it(tmp_path: Path) -> None:
    path = written(tmp_path / "mine")
    run = located(path, tmp_path / "root")
    again = locate(run.folder.path)
    assert (again.experiment, again.criterion) == (run.experiment, run.criterion)
    before = run.folder.experiment.read_bytes()
    assert not list(run.folder.path.rglob("*.py"))
    changed = SMALLEST.replace(".abs()", ".square()")
    (tmp_path / "mine/mine.py").write_text(changed)
    for there in (True, False):
        if not there:
            (tmp_path / "mine/mine.py").unlink()
        gone = locate(run.folder.path)
        assert gone.experiment == run.experiment
        write_experiment(gone)
        assert run.folder.experiment.read_bytes() == before
        with pytest.raises(LtrayError, match="gone or changed since"):
            pruned(gone)


@pytest.mark.parametrize(
    "text", ["def other(): ...", "def smallest(network,", f"import beside\n{SMALLEST}"]
)
def test_a_runs_folder_is_read_whatever_became_of_the_file(text: str, tmp_path: Path) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    (tmp_path / "mine/mine.py").write_text(text)
    (tmp_path / "mine/beside.py").touch()
    assert locate(run.folder.path).experiment == run.experiment


def test_rows_are_found_by_the_names_of_the_record(tmp_path: Path) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    assert masks_of(read_results(run.folder.path).experiment) == masks_of(run.experiment)


@pytest.mark.parametrize("hashed", [True, False])
def test_a_runs_folder_brings_no_code_with_it(hashed: bool, tmp_path: Path) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    text = run.folder.experiment.read_text()
    if hashed:
        (run.folder.path / "mine.py").write_bytes((tmp_path / "mine/mine.py").read_bytes())
        text = text.replace(str(tmp_path / "mine/mine.py"), "mine.py")
    else:
        text = "".join(line for line in text.splitlines(True) if "criterion: sha256" not in line)
    run.folder.experiment.write_text(text)
    assert_refused(run, "code is not run on the word of a run's folder")


def assert_refused(run: Run, why: str) -> None:
    for read in (locate, load_experiment):
        with pytest.raises(LtrayError, match=why):
            read(run.folder.experiment)
    with pytest.raises(LtrayError, match=why):
        locate(run.folder.path)


def test_a_criterion_that_a_record_names_from_its_folder_is_refused(tmp_path: Path) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    text = run.folder.experiment.read_text()
    run.folder.experiment.write_text(text.replace(str(tmp_path), "../.."))
    assert_refused(run, r"\.\./\.\./mine/mine\.py, is written from a folder")


def test_a_runs_experiment_can_be_taken_to_another_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    monkeypatch.chdir(run.folder.path)
    there = locate(Path("experiment.yaml"), tmp_path / "other")
    assert there.folder.path == tmp_path / "other" / run.folder.path.name


@pytest.mark.parametrize(
    "place",
    ["/proc/self/cwd/root/{run}/evil.py", "{tmp}/root/../root/{run}/evil.py", "{tmp}/root/evil.py"],
)
def test_a_criterion_among_the_runs_is_refused_however_it_is_written(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    evil = place.format(tmp=tmp_path, run=run.folder.path.name)
    Path(evil).write_bytes((tmp_path / "mine/mine.py").read_bytes())
    text = run.folder.experiment.read_text().replace(str(tmp_path / "mine/mine.py"), evil)
    run.folder.experiment.write_text(text)
    assert_refused(run, r"evil\.py, lies among the runs")


def test_what_a_function_sets_for_its_process_is_put_back(tmp_path: Path) -> None:
    lines = ["torch.set_default_dtype(torch.float64)", "torch.set_grad_enabled(False)"]
    text = SMALLEST.replace("    return", "".join(f"    {one}\n" for one in lines) + "    return")
    pruned(located(written(tmp_path / "mine", f"import torch\n{text}"), tmp_path / "root"))
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


TWICE = """
import weakref
import torch


def twice(network, names, batches):
    first = [(images.clone(), labels.clone()) for images, labels in batches]
    seen = []
    for (images, labels), (same_images, same_labels) in zip(batches, first, strict=True):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)
        assert all(one() is None for one in seen), "more than one batch is held"
        seen.append(weakref.ref(images))
    assert len(seen) > 1
    for images, labels in batches:
        break
    return {name: network.get_parameter(name).abs() for name in names}
"""


def test_batches_can_be_gone_through_again_and_are_held_one_at_a_time(tmp_path: Path) -> None:
    pruned(located(written(tmp_path / "mine", TWICE, prune__criterion="mine.py:twice"), tmp_path))


def test_a_batch_that_cannot_be_read_is_not_the_functions_fault(tmp_path: Path) -> None:
    path = written(tmp_path / "mine", GRADIENTS, prune__criterion="mine.py:by_gradient")
    code = located(path, tmp_path).criterion
    assert code is not None

    class Away:
        def __iter__(self) -> Iterator[Batch]:
            raise ConnectionError("the store is away")

    with pytest.raises(ConnectionError, match="the store is away"):
        own_scores(code, torch.nn.Linear(2, 2), ["weight"], Away(), seed=0)


FAULTS = {
    "no dict": ("return 3", "gives a int, not a dict"),
    "a name is missing": ("return {names[0]: network.get_parameter(names[0])}", "no scores for"),
    "another shape": ("return {name: next(iter(batches))[0] for name in names}", "gives scores of"),
    "not finite": (
        "return {name: network.get_parameter(name) / 0 for name in names}",
        "not finite",
    ),
    "a name too many": (
        "return {name: network.get_parameter(name) for name in (*names, 'fc1.bias')}",
        "'fc1.bias', which is none of names",
    ),
    "no tensors": (
        "return {name: network.get_parameter(name).detach().numpy() for name in names}",
        "gives a ndarray for 'fc1.weight', not a tensor",
    ),
    "complex": (
        "return {name: network.get_parameter(name) * 1j for name in names}",
        "no plain numbers: torch.complex64",
    ),
    "leaving": ("raise SystemExit(3)", "smallest failed: SystemExit: 3"),
    "an error": ("return {}['x']", "line 3: smallest failed: KeyError: 'x'"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_function_that_gives_no_scores_is_told_so(fault: str, tmp_path: Path) -> None:
    line, said = FAULTS[fault]
    text = f"\ndef smallest(network, names, batches):\n    {line}\n"
    run = located(written(tmp_path / "mine", text), tmp_path / "root")
    with pytest.raises(LtrayError) as caught:
        pruned(run)
    assert said in str(caught.value)
    assert "mine.py" in str(caught.value)
    assert not list(run.folder.path.rglob("masks/*"))


def test_a_file_that_cannot_be_called_is_refused_with_all_that_is_wrong(tmp_path: Path) -> None:
    path = written(tmp_path / "mine", "def smallest(weights): ...", model={"arch": "lenett"})
    with pytest.raises(InvalidExperiment) as caught:
        locate_experiment(read_experiment(path), tmp_path / "root")
    said = str(caught.value)
    assert "prune.criterion" in said
    assert "takes no network and no names and no batches" in said
    assert "no network is called 'lenett'" in said


def test_scores_are_the_same_whatever_was_drawn_before(tmp_path: Path) -> None:
    path = written(tmp_path / "mine", GRADIENTS, prune__criterion="mine.py:by_gradient")
    masks = []
    for number in (1, 2):
        torch.manual_seed(number)
        run = pruned(located(path, tmp_path / f"root-{number}"))
        masks += [
            run.folder.replicate(0).mask(one.name).read_bytes() for one in masks_of(run.experiment)
        ]
    assert masks[:2] == masks[2:]
