"""Tickets on another data set: what they start with, what is refused, what they are set beside."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import prepare_without_ray, small_document, train_without_ray

from ltray.analysis.results import collect
from ltray.analysis.transfer import Moved, best_own, beyond_chance, compared, content
from ltray.cluster.transferring import Move, move_of
from ltray.errors import LtrayError
from ltray.experiment import replicate_seeds, step_of
from ltray.experiment_file import read_experiment
from ltray.locate import locate_experiment, write_experiment
from ltray.lottery.mask_names import masks_of
from ltray.lottery.masks import load_mask
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import load_weights
from ltray.lottery.trajectory import read_trajectory
from ltray.run import Run
from ltray.training.place import this_place
from ltray.training.retrain import train_pack
from ltray.training.start import untrained
from ltray.training.transplant import transplant

LOW, HIGH = {"data__classes": [0, 1, 2, 3, 4]}, {"data__classes": [5, 6, 7, 8]}
RESTART: dict[str, Any] = {"reset__schedule": "restart", "reset__epochs": [0]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, digits_shards: Path) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    shutil.copytree(digits_shards / "data", folder / "data")
    return folder


def swept(root: Path, name: str, **changes: Any) -> Run:
    """A run with its dense runs and tickets, as a sweep leaves it."""
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(small_document({"name": name, **changes})))
    run = locate_experiment(read_experiment(path), root)
    if not run.data.manifest.is_file():
        prepare_without_ray(run)
    write_experiment(run)
    train_without_ray(run)
    return run


@pytest.fixture(scope="module")
def source(root: Path) -> Run:
    return swept(root, "source", **LOW, reset__epochs=[0, 1])


@pytest.fixture(scope="module")
def target(root: Path) -> Run:
    return swept(root, "target", **HIGH, **RESTART)


@pytest.fixture(scope="module")
def move(source: Run, target: Run) -> Move:
    """All of the source's tickets, trained on the target."""
    found = move_of(source, target)
    transplant(source, target, found.run.folder.replicate(0), found.what, 0)
    for part in found.parts:
        while packs := ready(part.experiment, collect(part.folder).tickets):
            for pack in packs:
                train_pack(part, pack, this_place(), lambda _rows, _records: None)
    return found


def test_weights_are_the_sources_but_for_a_new_head(source: Run, target: Run, move: Move) -> None:
    onto = move.run.folder.replicate(0)
    of_source = read_trajectory(source.folder.replicate(0))
    of_target = read_trajectory(target.folder.replicate(0))
    assert of_source is not None
    assert of_target is not None
    seed, _ = replicate_seeds(target.experiment, 0)
    fresh = untrained(target, 4, seed, torch.device("cpu")).state_dict()
    for point in (0, 1):
        there = load_weights(
            source.folder.replicate(0).step(step_of(point, of_source.steps_per_epoch))
        )
        here = load_weights(onto.step(step_of(point, of_target.steps_per_epoch)))
        assert here.keys() == there.keys()
        for name, value in here.items():
            expected = fresh[name] if name.startswith("fc3.") else there[name]
            assert torch.equal(value, expected), name
    assert here["fc3.weight"].shape == (4, 100)


def test_masks_are_the_sources_and_leave_the_new_head_whole(source: Run, move: Move) -> None:
    for one in masks_of(move.what.tickets):
        there = load_mask(source.folder.replicate(0).mask(one.name))
        here = load_mask(move.run.folder.replicate(0).mask(one.name))
        assert torch.equal(here["fc1.weight"], there["fc1.weight"])
        assert bool(here["fc3.weight"].all())
        assert here["fc3.weight"].shape == (4, 100)
    (whole,) = masks_of(move.what.dense)
    mask = load_mask(move.run.folder.replicate(0).mask(whole.name))
    assert all(bool(part.all()) for part in mask.values())


def test_everything_is_trained_by_the_targets_recipe_from_its_first_step(move: Move) -> None:
    rows = collect(move.run.folder).tickets.values()
    assert {row["steps_trained"] for row in rows} == {3 * (rows_per_epoch(move))}
    kinds = {(row["control"], row["sparsity"], row["reset_epoch"]) for row in rows}
    assert {("none", 0, 0), ("none", 0, 1), ("none", 0.9, 1), ("shuffled_mask", 0.9, 1)} <= kinds
    assert ("random_init", 0.9, 0) in kinds
    assert len(rows) == 2 + 4 + 4 + 2


def rows_per_epoch(move: Move) -> int:
    found = read_trajectory(move.run.folder.replicate(0))
    assert found is not None
    return found.steps_per_epoch


def test_a_transplant_is_done_once(source: Run, target: Run, move: Move) -> None:
    path = move.run.folder.replicate(0).trajectory
    before = path.stat().st_mtime_ns
    transplant(source, target, move.run.folder.replicate(0), move.what, 0)
    assert path.stat().st_mtime_ns == before


def test_tickets_are_compared_with_all_that_they_must_beat(
    source: Run, target: Run, move: Move
) -> None:
    moved = Moved(source, move.run, move.what)
    rows = collect(target.folder)
    every = compared(moved, best_own(rows, target), rows.dense)
    assert [(one.cell.sparsity, one.cell.reset_epoch) for one in every] == [
        (0.5, 0),
        (0.5, 1),
        (0.9, 0),
        (0.9, 1),
    ]
    there = collect(move.run.folder).tickets.values()
    for one in every:
        assert one.differences.keys() == {
            "same_point",
            "fresh",
            "shuffled_mask",
            "random_init",
            "own",
        }
        place = (one.cell.sparsity, one.cell.reset_epoch)
        shuffled = next(
            row
            for row in there
            if row["control"] == "shuffled_mask" and (row["sparsity"], row["reset_epoch"]) == place
        )
        difference = one.cell.mean("val_top1") - shuffled["val_top1"]
        assert one.differences["shuffled_mask"].value == pytest.approx(difference)
        assert one.differences["fresh"].value == pytest.approx(
            one.cell.mean("val_top1") - rows.dense[0]["val_top1"]
        )
        assert one.differences["fresh"].interval is None  # one seed
    assert beyond_chance(every, "fresh") == (0, 0, 0)
    page = content(target, [moved])
    assert len(page["answers"]) == 2
    assert [split for split, _ in page["figures"][moved.name]] == ["validation", "test"]


def test_another_network_or_other_images_are_refused(root: Path, source: Run) -> None:
    other = swept(root, "other", **HIGH, **RESTART, model__arch="conv2", train__epochs=1)
    with pytest.raises(LtrayError, match=r"write the same model\.arch"):
        move_of(source, other)
    larger = swept(root, "larger", **HIGH, **RESTART, data__image_size=12, train__epochs=1)
    found = move_of(source, larger)
    with pytest.raises(LtrayError, match=r"'fc1.weight' is \[300, 64\] there and \[300, 144\]"):
        transplant(source, larger, found.run.folder.replicate(0), found.what, 0)
    with pytest.raises(LtrayError, match="is the source itself"):
        move_of(source, source)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reset__schedule": "continue"}, "another budget"),
        ({"prune__sparsities": [0.5, 0.7]}, r"has no masks at 0\.7"),
        ({"replicates": 2}, "2 replicates, but source has 1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_trained(
    root: Path, source: Run, target: Run, changes: dict[str, Any], said: str
) -> None:
    document = small_document({"name": "wrong", **HIGH, **RESTART, **changes})
    path = root / "wrong.yaml"
    path.write_text(yaml.safe_dump(document))
    wrong = locate_experiment(read_experiment(path), root)
    with pytest.raises(LtrayError, match=said):
        move_of(source, wrong)
    chain = source.experiment.prune.model_copy(update={"style": "iterative"})
    iterative = replace(source, experiment=source.experiment.model_copy(update={"prune": chain}))
    with pytest.raises(LtrayError, match="cannot be transferred yet"):
        move_of(iterative, target)
