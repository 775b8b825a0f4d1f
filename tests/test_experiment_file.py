from pathlib import Path
from typing import Any

import pytest
import yaml

from ltray.errors import InvalidExperiment, LtrayError
from ltray.experiment import SourceFacts, as_written, data_id, experiment_id, resolve
from ltray.experiment_file import read_experiment

GOOD = """\
name: good
data: {source: npz, path: mnist.npz}
model: {arch: lenet_300_100}
train: {epochs: 4, batch_size: 60, lr: 0.1}
prune: {sparsities: [0.5, 0.9]}
reset: {epochs: [0, 1.5]}
"""
FACTS = SourceFacts(fingerprint="00", image_size=28, channels=1)


def written(folder: Path, text: str) -> Path:
    path = folder / "experiment.yaml"
    path.write_text(text)
    return path


def with_line(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


BAD = {
    "unknown key": (with_line("lr: 0.1", "lr: 0.1, momentun: 0.9"), "momentum"),
    "unknown section": (GOOD + "resets: {epochs: [0]}\n", "did you mean 'reset'"),
    "wrong type": (with_line("epochs: 4", "epochs: four"), "train.epochs: found 'four' (text)"),
    "list for a mapping": (with_line("{arch: lenet_300_100}", "[a]"), "model: found ['a'] (list)"),
    "bool for a number": (with_line("lr: 0.1", "lr: true"), "train.lr: found True (bool)"),
    "bool for a count": (with_line("epochs: 4", "epochs: yes"), "quote it"),
    "fraction for a count": (with_line("epochs: 4", "epochs: 4.0"), "a whole number"),
    "not finite": (with_line("lr: 0.1", "lr: .nan"), "nan (not finite)"),
    "infinite": (with_line("[0.5, 0.9]", "[0.5, .inf]"), "prune.sparsities"),
    "text for a number": (with_line("lr: 0.1", "lr: 1e-4"), "1.0e-4"),
    "reset point at the end": (with_line("1.5]", "4]"), "reset.epochs: 4 at or past the end"),
    "everything pruned": (with_line("0.9]", "1.0]"), "from 0 to below 1"),
    "level twice": (with_line("[0.5, 0.9]", "[0.5, 0.50]"), "0.5 more than once"),
    "reset point twice": (with_line("[0, 1.5]", "[1, 1.0]"), "1 more than once"),
    "missing key": (with_line("lr: 0.1", "momentum: 0"), "train.lr: missing"),
    "unknown source": (with_line("source: npz", "source: npy"), "did you mean 'npz'"),
    "no path": (with_line(", path: mnist.npz", ""), "data.path: missing"),
    "path of digits": (with_line("npz, path", "digits, path"), "digits come with"),
    "not YAML": ("name: [", "not readable as YAML"),
    "key twice": (GOOD + "name: other\n", "the key 'name' is written twice"),
    "key that is no word": (GOOD + "no: 3\n", "the key False"),
    "a list": ("- 1\n", "found a list"),
    "a text": ("digits\n", "found a text"),
    "nothing": ("", "an empty file"),
    "crop larger than image": (
        with_line("mnist.npz", "mnist.npz, image_size: 28, crop_size: 32"),
        "larger than the image_size 28",
    ),
    "floor above a density": (
        with_line("prune: {", "prune: {min_layer_density: 0.2, "),
        "above the density of 0.9",
    ),
    "output rate of a global mask": (with_line("prune: {", "prune: {output_rate: 0.5, "), "scope"),
    "momentum of adam": (
        with_line("lr: 0.1", "lr: 0.1, optimizer: adam, momentum: 0.9"),
        "adam has none",
    ),
    "drops of a constant rate": (with_line("lr: 0.1", "lr: 0.1, drops: [2]"), "schedule: step"),
    "step without drops": (with_line("lr: 0.1", "lr: 0.1, schedule: step"), "no drops"),
    "warm-up longer than the run": (with_line("lr: 0.1", "lr: 0.1, warmup_epochs: 4"), "leaves"),
    "no validation": (with_line("mnist.npz", "mnist.npz, validation_fraction: 0"), "above 0"),
    "more GPUs than images in a batch": (
        with_line("lr: 0.1", "lr: 0.1}\nsweep: {dense_gpus: 61"),
        "more than the 60 images of a batch",
    ),
    "rewound rate that starts anew": (
        with_line("1.5]", "1.5], method: learning_rate, schedule: restart"),
        "learning_rate goes on from the reset point",
    ),
    "fine-tuning at no rate": (
        with_line("lr: 0.1", "lr: 0.1, schedule: cosine").replace(
            "1.5]", "1.5], method: fine_tune"
        ),
        "next to nothing",
    ),
    "a shuffled mask over weights that are gone": (
        with_line("prune: {", "prune: {style: iterative, ").replace(
            "1.5]", "1.5], method: learning_rate"
        )
        + "controls: [shuffled_mask]\n",
        "weights that iterative pruning has taken out",
    ),
    "scores of random numbers": (
        with_line("prune: {", "prune: {criterion: random, scores: final, "),
        "random scores no weights",
    ),
    "a search level by level": (
        with_line("prune: {", "prune: {search: matching, style: iterative, "),
        "prune.search: matching, but iterative pruning",
    ),
    "iterative by what no ticket is trained for": (
        with_line("prune: {", "prune: {style: iterative, criterion: snip, "),
        "snip does not look at trained tickets",
    ),
    "negative seed": (GOOD + "seed: -1\n", "seed: found -1"),
    "name that is no file name": (with_line("good", "../good"), "letters, digits"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_says_what_is_wrong_and_how_to_mend_it(case: str, tmp_path: Path) -> None:
    text, said = BAD[case]
    path = written(tmp_path, text)
    with pytest.raises(LtrayError) as caught:
        read_experiment(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    assert "to mend: " in str(caught.value)


def test_all_problems_are_said_at_once_and_each_once(tmp_path: Path) -> None:
    text = GOOD.replace("lr: 0.1", "lr: 0.1, momentum: '1', peek: 2").replace("1.5]", "9]")
    with pytest.raises(InvalidExperiment) as caught:
        read_experiment(written(tmp_path, text))
    found = [str(problem).split(": ")[1] for problem in caught.value.args[0]]
    assert sorted(found) == ["reset.epochs", "train.momentum", "train.peek"]


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path, GOOD)
    with pytest.raises(LtrayError, match=r"did you mean 'experiment.yaml'"):
        read_experiment(tmp_path / "experimant.yaml")


def test_a_relative_path_is_taken_from_the_files_folder(tmp_path: Path) -> None:
    text = with_line("lenet_300_100", "'nets/own.py:mine'")
    experiment = read_experiment(written(tmp_path, text))
    assert experiment.data.path == str(tmp_path / "mnist.npz")
    assert experiment.model.arch == f"{tmp_path}/nets/own.py:mine"


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    of = resolve(read_experiment(written(tmp_path, GOOD)), FACTS)
    assert (of.data.image_size, of.data.crop_size, of.data.channels) == (28, 28, 1)
    assert (of.data.encoding, of.data.resize, of.data.augment) == ("raw", "crop", "none")
    assert (of.data.classes, of.data.train_limit, of.data.validation_fraction) == ("all", None, 0.1)
    assert (of.train.optimizer, of.train.schedule, of.train.precision) == (
        "sgd",
        "constant",
        "float32",
    )
    assert (of.prune.criterion, of.prune.scope, of.prune.output_rate) == ("magnitude", "global", 1)
    assert (of.reset.schedule, of.sweep.max_failures, of.report.margin) == ("continue", 3, 0.005)
    assert (of.seed, of.replicates, of.train.data_seed) == (0, 1, 0)


def ids(tmp_path: Path, **changes: Any) -> tuple[str, str]:
    document = yaml.safe_load(GOOD)
    for place, value in changes.items():
        section, _, key = place.partition("__")
        if key:
            document.setdefault(section, {})[key] = value
        else:
            document[section] = value
    of = resolve(read_experiment(written(tmp_path, yaml.safe_dump(document))), FACTS)
    return experiment_id(of, FACTS.fingerprint), data_id(of.data, FACTS.fingerprint)


def test_only_what_decides_the_dense_run_decides_its_id(tmp_path: Path) -> None:
    first = ids(tmp_path)
    same: list[dict[str, Any]] = [
        {"data__path": "elsewhere.npz"},
        {"prune__sparsities": [0.1]},
        {"reset__epochs": [2]},
        {"replicates": 3},
        {"report__margin": 0.1},
        {"sweep__tickets_per_trial": 1},
        {"data__image_size": 28},
        {"train__data_seed": 0},
    ]
    other: list[dict[str, Any]] = [
        {"seed": 1},
        {"train__lr": 0.2},
        {"model__arch": "resnet20"},
        {"train__data_seed": 1},
    ]
    assert all(ids(tmp_path, **change) == first for change in same)
    assert all(ids(tmp_path, **change)[0] != first[0] for change in other)


def test_only_what_decides_the_shards_decides_their_id(tmp_path: Path) -> None:
    first = ids(tmp_path)[1]
    same: list[dict[str, Any]] = [
        {"data__crop_size": 20},
        {"data__classes": [1, 2]},
        {"data__augment": "random_crop"},
    ]
    assert all(ids(tmp_path, **change)[1] == first for change in same)
    other: list[dict[str, Any]] = [
        {"data__image_size": 20},
        {"data__resize": "squash"},
        {"data__encoding": "jpeg"},
    ]
    assert all(ids(tmp_path, **change)[1] != first for change in other)


@pytest.mark.parametrize(
    ("number", "text"), [(0.60, "0.6"), (2.0, "2"), (0.0, "0"), (0.25, "0.25"), (1e-7, "0.0000001")]
)
def test_numbers_are_named_by_their_shortest_decimal(number: float, text: str) -> None:
    assert as_written(number) == text
