"""Tickets on another data set: what they start with, what is refused, what they are set beside."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import located, small_document, train_without_ray
from own_network import NETS, written
from safetensors.torch import load_file

from ltray.analysis.correct import PerImage
from ltray.analysis.differences import Difference
from ltray.analysis.grid import Over
from ltray.analysis.intervals import Interval
from ltray.analysis.page import write_report
from ltray.analysis.paired import Pairs, mcnemar, paired_interval
from ltray.analysis.results import collect, read_results
from ltray.analysis.transfer import Compared, Moved, Target, compared, of_target
from ltray.analysis.transfer_answers import Answer, Finding, answers, judge
from ltray.analysis.transfer_page import content, write_transfer
from ltray.cluster.dense_runs import whole_trajectories
from ltray.cluster.session import Connection
from ltray.cluster.transferring import move_of, transfer_run
from ltray.data.manifest import read_manifest
from ltray.data.selection import image_counts
from ltray.errors import LtrayError
from ltray.experiment import replicate_seeds, step_of
from ltray.experiment_file import read_experiment
from ltray.layout import DataFolder, RunFolder
from ltray.locate import locate, locate_experiment
from ltray.lottery.mask_names import masks_of
from ltray.lottery.masks import load_mask, save_mask
from ltray.lottery.ready import ready
from ltray.lottery.snapshot import load_snapshot, load_weights, save_snapshot
from ltray.lottery.trajectory import read_trajectory
from ltray.record import write_experiment
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
    run = located(path, root)
    train_without_ray(run)
    return run


@pytest.fixture(scope="module")
def source(root: Path) -> Run:
    return swept(root, "source", **LOW, reset__epochs=[0, 1])


@pytest.fixture(scope="module")
def target(root: Path) -> Run:
    return swept(root, "target", **HIGH, **RESTART)


@pytest.fixture(scope="module")
def move(source: Run, target: Run) -> Moved:
    """All of the source's tickets, trained on the target."""
    return moved(source, target)


def moved(source: Run, target: Run) -> Moved:
    """What the driver and the trials of a transfer do, in this process."""
    found = move_of(source, target)
    transplant(source, target, found.run.folder.replicate(0), found.what, 0)
    for part in found.parts:
        while packs := ready(part.experiment, collect(part.folder).tickets):
            for pack in packs:
                train_pack(part, pack, this_place(), lambda _rows, _records: None)
    return found


def test_weights_are_the_sources_but_for_a_new_head(source: Run, target: Run, move: Moved) -> None:
    onto = move.run.folder.replicate(0)
    of_source = read_trajectory(source.folder.replicate(0))
    assert of_source is not None
    seed, _ = replicate_seeds(target.experiment, 0)
    fresh = untrained(target, 4, seed, torch.device("cpu")).state_dict()
    for point in (0, 1):
        step = step_of(point, of_source.steps_per_epoch)
        there = load_weights(source.folder.replicate(0).step(step))
        here = load_weights(onto.step(step))
        assert here.keys() == there.keys()
        for name, value in here.items():
            expected = fresh[name] if name.startswith("fc3.") else there[name]
            assert torch.equal(value, expected), name
    assert here["fc3.weight"].shape == (4, 100)


def test_masks_are_the_sources_and_leave_the_new_head_whole(source: Run, move: Moved) -> None:
    for one in masks_of(move.what.tickets):
        there = load_mask(source.folder.replicate(0).mask(one.name))
        here = load_mask(move.run.folder.replicate(0).mask(one.name))
        assert torch.equal(here["fc1.weight"], there["fc1.weight"])
        assert bool(here["fc3.weight"].all())
        assert here["fc3.weight"].shape == (4, 100)
    (whole,) = masks_of(move.what.dense)
    mask = load_mask(move.run.folder.replicate(0).mask(whole.name))
    assert all(bool(part.all()) for part in mask.values())


def test_everything_is_trained_by_the_targets_recipe_from_its_first_step(
    source: Run, target: Run, move: Moved
) -> None:
    rows = collect(move.run.folder).tickets.values()
    assert {row["steps_trained"] for row in rows} == {3 * steps_per_epoch(target)}
    assert {row["reset_step"] for row in rows} == {0, steps_per_epoch(source)}
    kinds = {(row["control"], row["sparsity"], row["reset_epoch"]) for row in rows}
    assert {("none", 0, 0), ("none", 0, 1), ("none", 0.9, 1), ("shuffled_mask", 0.9, 1)} <= kinds
    assert ("random_init", 0.9, 0) in kinds
    assert len(rows) == 2 + 4 + 4 + 2


def steps_per_epoch(run: Run) -> int:
    found = read_trajectory(run.folder.replicate(0))
    assert found is not None
    return found.steps_per_epoch


def test_a_transplant_is_done_once(source: Run, target: Run, move: Moved) -> None:
    path = move.run.folder.replicate(0).trajectory
    before = path.stat().st_mtime_ns
    transplant(source, target, move.run.folder.replicate(0), move.what, 0)
    assert path.stat().st_mtime_ns == before


def test_masks_of_chains_are_given_and_not_made_again(root: Path) -> None:
    """The target leaves out the chain's first level, and has no chain of its own."""
    source = swept(root, "chain", **LOW, prune__style="iterative", reset__epochs=[0, 1])
    few = swept(root, "sparse", **HIGH, **RESTART, prune__sparsities=[0.9])
    found = moved(source, few)
    here, there = (run.folder.replicate(0) for run in (found.run, source))
    rows = collect(found.run.folder).tickets.values()
    assert {row["status"] for row in rows} == {"done"}
    tickets = [row for row in rows if row["control"] == "none" and row["sparsity"]]
    assert {(row["style"], row["reset_epoch"]) for row in tickets} == {
        ("iterative", 0),
        ("iterative", 1),
    }
    first, later = (row["mask"] for row in sorted(tickets, key=lambda row: row["reset_epoch"]))
    assert first != later
    for mask in (first, later):
        assert torch.equal(
            load_mask(here.mask(mask))["fc1.weight"], load_mask(there.mask(mask))["fc1.weight"]
        )
    write_experiment(found.run)
    read = read_results(found.run.folder.path).experiment
    assert [one.name for one in masks_of(read)] == [first, later]
    every = compared(found, of_target(few))
    assert [list(one.differences) for one in every] == [AGAINST, AGAINST]
    assert not any(pack.in_turn for pack in ready(found.what.tickets, {}))


def test_reset_points_that_are_one_step_on_the_target_stay_apart(root: Path) -> None:
    source = swept(root, "early", **LOW, reset__epochs=[0, 0.1], prune__sparsities=[0.5])
    few = swept(root, "few", **HIGH, **RESTART, data__train_limit=100, prune__sparsities=[0.5])
    assert step_of(0.1, steps_per_epoch(few)) == 0
    found = move_of(source, few)
    onto = found.run.folder.replicate(0)
    transplant(source, few, onto, found.what, 0)
    steps = [step_of(point, steps_per_epoch(source)) for point in (0, 0.1)]
    first, later = (load_weights(onto.step(step)) for step in steps)
    assert not torch.equal(first["fc1.weight"], later["fc1.weight"])


def test_a_grid_that_has_grown_is_given_what_it_lacks(root: Path) -> None:
    source = swept(root, "sprout", **LOW, reset__epochs=[0, 1])
    target = swept(root, "growing", **HIGH, **RESTART, prune__sparsities=[0.5])
    small = move_of(source, target)
    onto = small.run.folder.replicate(0)
    transplant(source, target, onto, small.what, 0)
    there = {path: path.read_bytes() for path in onto.path.rglob("*.safetensors")}
    grown = swept(root, "growing", **HIGH, **RESTART)
    more = swept(root, "sprout", **LOW, reset__epochs=[0, 1, 2])
    found = moved(more, grown)
    assert found.run.folder == small.run.folder
    done = {row["status"] for row in collect(found.run.folder).tickets.values()}
    assert done == {"done"}
    assert len(collect(found.run.folder).tickets) == 3 + 6 + 6 + 2
    assert {path: path.read_bytes() for path in there} == there


def test_tickets_are_compared_with_all_that_they_must_beat(target: Run, move: Moved) -> None:
    rows = collect(target.folder)
    every = compared(move, of_target(target))
    assert [one.cell.place for one in every] == [(0.5, 0), (0.5, 1), (0.9, 0), (0.9, 1)]
    there = collect(move.run.folder).tickets.values()
    for one in every:
        assert list(one.differences) == AGAINST
        shuffled = next(
            row
            for row in there
            if row["control"] == "shuffled_mask"
            and (row["sparsity"], row["reset_epoch"]) == one.cell.place
        )
        difference = one.cell.mean("val_top1") - shuffled["val_top1"]
        assert one.differences["shuffled_mask"].value == pytest.approx(difference)
        assert one.differences["fresh"].value == pytest.approx(
            one.cell.mean("val_top1") - rows.dense[0]["val_top1"]
        )


def test_one_seed_is_told_by_images_and_for_that_seed_alone(target: Run, move: Moved) -> None:
    every = compared(move, of_target(target))
    for one in every:
        dense = Pairs(*differing(move.run, one.cell.done[0], target))
        assert one.differences["fresh"].interval == paired_interval(dense)
        assert one.differences["fresh"].p_value == mcnemar(dense)
        assert all(found.interval is not None for found in one.differences.values())
    page = write_transfer(judge(target, [move])).read_text()
    assert "McNemar" in page
    assert "not over seeds" in page
    assert "Student" not in page


@pytest.mark.parametrize(("over", "said"), [("images", " on this one seed"), ("replicates", "")])
def test_a_verdict_over_images_is_of_one_seed(move: Moved, over: Over, said: str) -> None:
    cell = next(iter(move.tickets.values()))
    above = Difference(0.1, 0.1, 1, 1, Interval(0.05, 0.15), None, 0.01)
    assert Compared(cell, None, over, {"random_init": above}).verdict == f"beats random_init{said}"
    level = Difference(0.0, 0.0, 1, 1, Interval(-0.05, 0.05), None, 1.0)
    assert Compared(cell, None, over, {"random_init": level}).verdict == "not beyond random_init"
    none = Difference(0.0, 0.0, 1, 1, None, None, None)
    assert "no interval tells" in Compared(cell, None, over, {"random_init": none}).verdict


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (Interval(-0.071, 0.072), "0.0 points (\N{MINUS SIGN}7.1 to +7.2 over replicates)"),
        (None, "0.0 points (no interval)"),
    ],
)
def test_the_line_on_the_terminal_says_how_sure_it_is(
    move: Moved, interval: Interval | None, said: str
) -> None:
    cell = move.tickets[0.9, 1]
    beside = Difference(0.0, 0.0, 3, 3, interval, None, None)
    one = Compared(cell, None, "replicates", {"same_point": beside, "random_init": beside})
    line = Finding(move, [one], [Answer(move, move.dense[1], 1, one)]).line
    assert f"down to 0.9 sparsity, from reset point 1: {said} beside the dense network" in line
    assert line.endswith(one.verdict)


def differing(run: Run, row: dict[str, Any], target: Run) -> tuple[int, int, int]:
    """(images, right by the ticket alone, right by the target's dense run alone)."""
    ticket = run.folder.replicate(0).ticket(row["ticket"]).correct
    both = [load_file(path) for path in (ticket, target.folder.replicate(0).dense_correct)]
    images = image_counts(read_manifest(target.data), target.experiment.data)[1]
    ours, theirs = (np.unpackbits(one["validation"].numpy())[:images] for one in both)
    return images, int((ours > theirs).sum()), int((theirs > ours).sum())


def test_a_run_may_be_called_like_a_transfer_s_folder(root: Path) -> None:
    run = swept(root, "transfer-mnist", prune__sparsities=[0.5], train__epochs=1, reset__epochs=[0])
    assert locate(run.folder.path).folder == run.folder
    assert len(read_results(run.folder.path).tickets) == 1
    assert "Lottery-ticket sweep" in write_report(run.folder, run.experiment).read_text()


def test_a_transfer_s_folder_is_read_and_not_taken_for_a_run(root: Path, target: Run) -> None:
    """The source's reset points may lie behind the target's last epoch."""
    late = swept(root, "late", **LOW, train__epochs=6, reset__epochs=[0, 5])
    inside = moved(late, target).run
    write_experiment(inside)
    assert set(read_results(inside.folder.path).tickets["reset_epoch"]) == {0, 5}
    with pytest.raises(LtrayError, match=r"holds tickets of late-.* not a run"):
        locate(inside.folder.path)
    page = write_report(inside.folder, inside.experiment).read_text()
    assert f"How sparse can the tickets of {late.folder.path.name} be" in page
    assert "python -m ltray.sweep" not in page
    assert "that another grid asked for" not in page  # the dense networks are of this transfer
    copied = root / "copied"
    shutil.copytree(inside.folder.path, copied)
    assert len(read_results(copied).tickets) == len(read_results(inside.folder.path).tickets)


AGAINST = ["same_point", "fresh", "shuffled_mask", "random_init", "own"]


def altered(folder: Path, move: Moved, **changes: dict[str, Any]) -> Moved:
    """A copy with other rows: `dense_1={"status": "diverged"}` of the dense network from point 1,
    `ticket_50=...` of the tickets at 50 %."""
    shutil.copytree(move.run.folder.path, folder)
    for path in folder.glob("replicate-*/tickets/*/ticket.json"):
        record = json.loads(path.read_text())
        row = record["row"]
        what = f"ticket_{round(100 * row['sparsity'])}"
        if row["sparsity"] == 0:
            what = f"dense_{row['reset_epoch']:g}"
        if row["control"] == "none" and what in changes:
            row.update(changes[what])
            path.write_text(json.dumps(record))
    return replace(move, run=replace(move.run, folder=RunFolder(folder)))


def answers_of(moved: Moved, margin: float = 0.02) -> list[tuple[float | None, str]]:
    """(sparsest, why none) of each reset point."""
    every = compared(moved, Target({}, [], PerImage()))
    found = answers(moved, every, margin)
    sparsest = [None if one.sparsest is None else one.sparsest.cell.sparsity for one in found]
    return list(zip(sparsest, [one.why_none for one in found], strict=True))


def test_one_lucky_ticket_is_no_answer(tmp_path: Path, move: Moved) -> None:
    lucky = altered(
        tmp_path / "lucky",
        move,
        dense_0={"val_top1": 0.9},
        ticket_50={"val_top1": 0.6},
        ticket_90={"val_top1": 0.9},
    )
    assert answers_of(lucky)[0] == (None, "none")


def test_what_cannot_be_told_is_not_called_none(tmp_path: Path, move: Moved) -> None:
    diverged = altered(tmp_path / "diverged", move, dense_1={"status": "diverged"})
    assert answers_of(diverged, margin=1)[0][0] == 0.9
    assert "the dense network from there diverged" in answers_of(diverged, margin=1)[1][1]
    every = {"status": "diverged"}
    none = altered(tmp_path / "none", move, ticket_50=every, ticket_90=every)
    assert {why for _, why in answers_of(none)} == {"none: in every cell a ticket diverged"}


def test_the_page_sets_sources_side_by_side_and_tells_what_diverged(
    tmp_path: Path, root: Path, source: Run, target: Run, move: Moved
) -> None:
    other = swept(root, "smaller", **LOW, data__train_limit=300, reset__epochs=[0, 1])
    smaller = moved(other, target)
    assert (smaller.images, move.images) == (300, images_of(source))
    shown = content(judge(target, [move, smaller]))
    assert [len(section["figures"]) for section in shown["sections"]] == [2, 2]
    assert [point for point, _ in shown["sources"]] == ["0", "1"]
    beside = "Broken lines are the controls random_init and shuffled_mask."
    assert all(beside in svg for _, svg in shown["sources"])
    broken = [svg.count("stroke-dasharray") for _, svg in shown["sources"]]
    assert broken == [2 * (1 + 2)] * 2  # of each source the dense network and two controls
    (pair,) = shown["between"]
    assert (pair["one"], pair["other"]) == (smaller, move)
    place = (0.9, 1)
    ours, theirs = (one.tickets[place].mean("val_top1") for one in (move, smaller))
    assert pair["differences"][place].value == pytest.approx(ours - theirs)
    page = write_transfer(judge(target, [move, smaller])).read_text()
    assert f"{move.name} minus {smaller.name}" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    diverged = altered(tmp_path / "diverged", move, dense_1={"status": "diverged"})
    page = write_transfer(judge(target, [diverged])).read_text()
    assert "cannot be told: the dense network from there diverged" in page
    assert "1 diverged, 0 failed, 0 to go" in page


def images_of(run: Run) -> int:
    return image_counts(read_manifest(run.data), run.experiment.data)[0]


def test_a_source_whose_shards_are_gone_is_shown_without_its_images(
    tmp_path: Path, target: Run, move: Moved
) -> None:
    gone = replace(move.source, data=DataFolder(tmp_path / "data"))
    page = write_transfer(judge(target, [replace(move, source=gone)])).read_text()
    assert f"<td>{images_of(move.source)}</td>" in write_transfer(judge(target, [move])).read_text()
    assert f"<td>{images_of(move.source)}</td>" not in page
    both = [replace(move, source=replace(gone, folder=RunFolder(tmp_path / n))) for n in "ab"]
    assert len(content(judge(target, both))["between"]) == 1


def test_another_network_or_other_images_are_refused(root: Path, source: Run) -> None:
    other = swept(root, "other", **HIGH, **RESTART, model__arch="conv2", train__epochs=1)
    with pytest.raises(LtrayError, match=r"write the same model\.arch"):
        move_of(source, other)
    larger = swept(root, "larger", **HIGH, **RESTART, data__image_size=12, train__epochs=1)
    with pytest.raises(LtrayError, match=r"'fc1.weight' is \[300, 64\] there and \[300, 144\]"):
        move_of(source, larger)
    with pytest.raises(LtrayError, match="is the source itself"):
        move_of(source, source)


def test_a_network_that_knows_the_classes_elsewhere_is_refused(root: Path) -> None:
    text = NETS.replace(
        "self.fc = ", "self.scale = nn.Parameter(torch.ones(classes))\n        self.fc = "
    )
    runs = []
    for name, changes in {"five": LOW, "four": {**HIGH, **RESTART}}.items():
        path = written(root / name, text, name=name, **{"reset__epochs": [0], **changes})
        runs.append(located(path, root))
    train_without_ray(runs[0])
    with pytest.raises(LtrayError, match=r"'scale' is \[5\] there and \[4\] on the target"):
        move_of(*runs)


def test_a_network_with_as_many_outputs_as_both_have_classes_is_taken(root: Path) -> None:
    text = NETS.replace("image_size**2, classes", "image_size**2, 5")
    others: dict[str, Any] = {"data__classes": [5, 6, 7, 8, 9], "reset__schedule": "restart"}
    source, target = (
        located(written(root / name, text, name=name, **{"reset__epochs": [0], **changes}), root)
        for name, changes in (("first", LOW), ("second", others))
    )
    train_without_ray(source)
    assert move_of(source, target).source is source


def test_what_a_transfer_does_not_read_may_have_been_removed(root: Path) -> None:
    """Steps of dense runs are large: the last of a source's, and all of the target's."""
    source = swept(root, "thin", **LOW, reset__epochs=[1], train__epochs=2)
    target = swept(root, "thinner", **HIGH, **RESTART, train__epochs=2)
    steps = sorted(source.folder.replicate(0).trajectory.parent.glob("step-*"))
    for path in (steps[0], steps[-1], *target.folder.replicate(0).path.rglob("step-*")):
        path.unlink()
    found = moved(source, target)
    assert {row["status"] for row in collect(found.run.folder).tickets.values()} == {"done"}
    assert whole_trajectories(found.run).keys() == {0}
    steps[1].unlink()
    with pytest.raises(LtrayError, match=r"is not whole(.|\n)*python -m ltray\.dense"):
        move_of(source, target)


def test_another_run_of_the_same_name_is_not_taken_for_the_source(
    root: Path, tmp_path: Path, source: Run, target: Run, move: Moved
) -> None:
    shutil.copytree(source.folder.path, tmp_path / source.folder.path.name)
    copied = replace(source, folder=RunFolder(tmp_path / source.folder.path.name))
    assert move_of(copied, target).run.folder == move.run.folder
    with pytest.raises(LtrayError, match="is named twice"):
        transfer_run([source, copied], target, Connection(), lambda _line: None, None)
    again = "has tickets of another run that has this name"
    of_copy = copied.folder.replicate(0)
    last = sorted(of_copy.trajectory.parent.glob("step-*"))[1]
    before = last.read_bytes()
    snapshot = load_snapshot(last)
    snapshot.model["fc1.weight"] += 1
    save_snapshot(last, snapshot)
    with pytest.raises(LtrayError, match=again):
        move_of(copied, target)
    last.write_bytes(before)
    sparsest = of_copy.mask(masks_of(move.what.tickets)[-1].name)
    save_mask(sparsest, {name: ~part for name, part in load_mask(sparsest).items()})
    with pytest.raises(LtrayError, match=again):
        move_of(copied, target)


def test_all_that_is_wrong_with_sources_is_said_before_anything_is_trained(
    root: Path, source: Run, target: Run
) -> None:
    with pytest.raises(LtrayError) as raised:
        transfer_run([source, source, target], target, Connection(), lambda _line: None, None)
    assert "source-" in str(raised.value)
    assert "is named twice" in str(raised.value)
    assert "is the source itself" in str(raised.value)


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
