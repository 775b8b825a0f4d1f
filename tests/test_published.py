import json
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from commands import Outcome, run
from test_controls import with_retrainings
from test_results import ticket_row

from ltray.analysis.published_grid import Comparison, check_comparable, compare, read_published
from ltray.analysis.published_text import comparison_lines
from ltray.analysis.results import Rows
from ltray.data.pixels import pixels_of
from ltray.errors import LtrayError
from ltray.experiment import Experiment, SourceFacts, experiment_id, resolve
from ltray.experiment_file import read_experiment
from ltray.files import write_json
from ltray.layout import data_folder, run_folder
from ltray.locate import experiments_folder
from ltray.lottery.tickets import grid
from ltray.record import write_experiment
from ltray.run import Run

FACTS = SourceFacts(fingerprint="ab12cd34", image_size=None, channels=3)
TOP1 = {(0.7, 0.0): 0.7392, (0.9, 4.0): 0.7268, (0.95, 4.0): 0.7}  # (sparsity, reset) -> ours


def resnet50(replicates: int = 1, sparsities: tuple[float, ...] | None = None) -> Experiment:
    """The experiment that comes with ltray, resolved as where ImageNet lies."""
    experiment = read_experiment(experiments_folder() / "imagenet_resnet50.yaml")
    if sparsities is not None:
        prune = experiment.prune.model_copy(update={"sparsities": sparsities})
        experiment = experiment.model_copy(update={"prune": prune})
    return resolve(experiment.model_copy(update={"replicates": replicates}), FACTS)


def rows_of(experiment: Experiment, top1: dict[tuple[float, float], float]) -> Rows:
    """Rows with the given test_top1; each further replicate has a point more."""
    rows = Rows()
    for ticket in grid(experiment):
        value = top1.get((ticket.sparsity, ticket.reset_epoch))
        if value is not None:
            rows.put(ticket_row(ticket, test_top1=value + 0.01 * ticket.replicate), [])
    return rows


def compared(experiment: Experiment, rows: Rows) -> Comparison:
    return compare(rows, experiment, read_published())


def test_the_published_grid_is_whole() -> None:
    published = read_published()
    assert published.densities == (0.7, 0.5, 0.3, 0.2, 0.1)
    assert published.sparsities == (0.3, 0.5, 0.7, 0.8, 0.9)
    assert list(published.by_reset) == [0, 2, 4, 6, 8, 10]
    assert len(published.top1) == 30
    assert published.top1[0.7, 0.0] == 73.62
    assert published.top1[0.9, 10.0] == 73.66
    assert all(69 < value < 77 for value in (*published.top1.values(), *published.fresh_init))


def test_differences_are_in_points_by_hand() -> None:
    experiment = resnet50()
    comparison = compared(experiment, rows_of(experiment, TOP1))
    found = {(one.sparsity, one.reset_epoch): one for one in comparison.compared}
    assert set(found) == {(0.7, 0.0), (0.9, 4.0)}
    assert found[0.7, 0.0].difference == pytest.approx(73.92 - 73.62)
    assert found[0.9, 4.0].difference == pytest.approx(72.68 - 73.18)
    assert all(one.interval is None for one in comparison.compared)
    assert comparison.others == 1, "95 % was not published"


def test_several_replicates_have_a_mean_and_an_interval() -> None:
    experiment = resnet50(replicates=3)
    (one, _) = compared(experiment, rows_of(experiment, TOP1)).compared
    # 73.92, 74.92, 75.92: mean 74.92, standard deviation 1, t(0.975, 2) = 4.302653.
    assert one.replicates == 3
    assert one.ours == pytest.approx(74.92)
    assert one.difference == pytest.approx(1.30)
    assert one.interval is not None
    assert one.interval.low == pytest.approx(74.92 - 4.302653 / sqrt(3), abs=1e-5)


@pytest.mark.parametrize("replicates", [1, 2])
def test_retrainings_of_one_replicate_do_not_pass_for_replicates(replicates: int) -> None:
    experiment = with_retrainings(resnet50(replicates), 3)
    rows = rows_of(experiment, TOP1)
    for row in rows.tickets.values():
        row["test_top1"] += 0.003 * row["retraining"]
    comparison = compared(experiment, rows)
    (one, _) = comparison.compared
    assert one.replicates == replicates
    # Of each replicate the mean of its three: 74.22, and a point more in the second.
    assert one.ours == pytest.approx(74.22 if replicates == 1 else 74.72)
    assert (one.interval is None) == (replicates == 1)
    text = "\n".join(comparison_lines(comparison))
    assert ("One replicate: what another seed would give is not known." in text) == (
        replicates == 1
    )


def test_what_the_run_lacks_is_named_with_its_reason() -> None:
    experiment = resnet50()
    rows = rows_of(experiment, TOP1)
    for ticket in grid(experiment):
        if ticket.reset_epoch == 2 and ticket.sparsity in {0.7, 0.8}:
            status = "failed" if ticket.sparsity == 0.7 else "diverged"
            rows.put(ticket_row(ticket, status=status), [])
    comparison = compared(experiment, rows)
    why = {(one.sparsity, one.reset_epoch): one.why for one in comparison.lacking}
    assert len(why) == 28
    assert why[0.3, 0.0] == why[0.9, 10.0] == "not asked for"
    assert why[0.7, 2.0] == "failed"
    assert why[0.8, 2.0] == "diverged"
    assert why[0.8, 4.0] == "not trained yet"
    text = "\n".join(comparison_lines(comparison)).replace("\N{NARROW NO-BREAK SPACE}", " ")
    assert "28 published cells that the run lacks" in text
    assert "  90 % at reset 10: not asked for" in text
    assert "  80 % at reset 0, 4, 6, 8: not trained yet" in text


def test_tickets_count_whatever_grid_asked_for_them() -> None:
    wider = resnet50(sparsities=(0.3, 0.7, 0.9))
    rows = rows_of(wider, {**TOP1, (0.3, 0.0): 0.76})
    comparison = compared(resnet50(), rows)
    assert (0.3, 0.0) in {(one.sparsity, one.reset_epoch) for one in comparison.compared}


def test_conditions_that_differ_are_told_and_others_are_not() -> None:
    experiment = resnet50()
    comparison = compared(experiment, Rows())
    found = {one.key: (one.published, one.ours) for one in comparison.differences}
    assert found == {"train.batch_size": (1024, 512), "train.lr": (0.4, 0.2)}
    assert comparison.not_given["train.precision"] == "bfloat16"
    train = experiment.train.model_copy(update={"epochs": 30, "drops": (10.0, 20.0)})
    prune = experiment.prune.model_copy(update={"scope": "layerwise"})
    other = experiment.model_copy(update={"train": train, "prune": prune})
    keys = {one.key for one in compared(other, Rows()).differences}
    assert keys - set(found) == {"train.epochs", "train.drops", "prune.scope"}


@pytest.mark.parametrize(
    ("section", "changes", "said"),
    [
        ("model", {"arch": "resnet18"}, "model.arch is resnet18, theirs resnet50"),
        ("data", {"source": "ilsvrc2012_t3"}, "data.source is ilsvrc2012_t3, theirs ImageNet"),
        ("data", {"classes": (0, 1)}, "data.classes names 2 classes, theirs are all 1,000"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    section: str, changes: dict[str, Any], said: str
) -> None:
    experiment = resnet50()
    changed = getattr(experiment, section).model_copy(update=changes)
    with pytest.raises(LtrayError, match="would mean nothing") as refused:
        check_comparable(experiment.model_copy(update={section: changed}), "some.yaml")
    assert said in str(refused.value)
    check_comparable(experiment, "some.yaml")


def half_finished(root: Path) -> Path:
    """The folder of a run of the ResNet-50 grid with the tickets of TOP1 done."""
    experiment = resnet50()
    folder = run_folder(root, experiment_id(experiment, FACTS.fingerprint))
    pixels = pixels_of(experiment.data, FACTS)
    write_experiment(Run(experiment, FACTS.fingerprint, pixels, folder, data_folder(root, "x")))
    for (replicate, name), row in rows_of(experiment, TOP1).tickets.items():
        record = {"row": row, "epochs": [], "sha256": {}}
        write_json(folder.replicate(replicate).ticket(name).done, record)
    return folder.path


def words(ended: Outcome) -> str:
    """What a command printed, with plain signs and single spaces."""
    return " ".join(ended.out.replace("\N{MINUS SIGN}", "-").split())


@pytest.mark.long
def test_nobody_has_run_it_and_then_somebody_has_in_part(tmp_path: Path) -> None:
    nobody = run("published", folder=tmp_path)
    assert nobody.status == 0, nobody
    assert "reset 4 76.25 76.14 75.96 75.35 73.18" in words(nobody)
    assert "Nobody has run imagenet_resnet50.yaml" in nobody.out
    folder = half_finished(tmp_path / "runs")
    for given in ((), (folder,)):  # the experiment's source is absent, as where none was bought
        ended = run("published", *given, folder=tmp_path)
        assert ended.status == 0, ended
        assert "70 % 0 73.62 73.92 +0.30" in words(ended)
        assert "90 % 4 73.18 72.68 -0.50" in words(ended)
        assert "train.batch_size: 512, theirs 1024" in ended.out
    in_json = json.loads(run("published", folder, "--json", folder=tmp_path).out)
    assert in_json["run"] == str(folder)
    assert [one["ours"] for one in in_json["comparison"]["compared"]] == [73.92, 72.68]
    assert in_json["comparison"]["compared"][1]["difference"] == pytest.approx(-0.5)
    other = run("published", experiments_folder() / "digits.yaml", folder=tmp_path)
    assert other.status == 2
    assert "would mean nothing" in other.err
    assert "Traceback" not in other.err
