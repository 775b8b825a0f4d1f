"""A person's own network, from an experiment file to the tickets, without Ray."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from conftest import MakeRun, located
from own_network import NETS, written
from safetensors.torch import load_file

from ltray.analysis.results import collect
from ltray.cluster.ahead import say_ahead
from ltray.cluster.launches import Launch
from ltray.cluster.resources import Cluster
from ltray.errors import InvalidExperiment, LtrayError
from ltray.files import read_json
from ltray.locate import locate
from ltray.lottery.ready import ready
from ltray.lottery.tickets import grid
from ltray.models.networks import build
from ltray.models.prunable import prunable
from ltray.record import write_experiment
from ltray.run import Run
from ltray.training.backends.choice import check_covers
from ltray.training.dense import train_dense
from ltray.training.place import this_place
from ltray.training.pruning import make_masks
from ltray.training.retrain import train_pack

FORWARD = "return self.fc(functional.dropout(hidden, 0.2, self.training).flatten(1))"
RETURN = "return Small(classes, channels, image_size)"
PRUNABLE = ("conv.weight", "fc.weight")


def built(folder: Path, text: str, seed: int = 0) -> torch.nn.Module:
    """The network of a file, for images of 3 x 8 x 8 and ten classes."""
    path = folder / "nets.py"
    path.write_text(text)
    return build(f"{path}:small", classes=10, channels=3, image_size=8, seed=seed)


def nobody(*_what: Any) -> None:
    pass


def trained(run: Run) -> dict[str, dict[str, torch.Tensor]]:
    """Ticket -> trained weights of a run, made whole in this process."""
    place = this_place()
    train_dense(run, 0, place, nobody)
    folder = run.folder.replicate(0)
    make_masks(run, 0)
    for pack in ready(run.experiment, set()):
        train_pack(run, pack, place, nobody)
    return {one.name: load_file(folder.ticket(one.name).weights) for one in grid(run.experiment)}


# the whole way


def test_a_run_is_finished_from_its_own_copy_when_the_file_is_gone(tmp_path: Path) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    (tmp_path / "mine/nets.py").unlink()
    again = locate(run.folder.path)
    assert (again.folder, again.experiment) == (run.folder, run.experiment)
    before = (run.folder.experiment.read_bytes(), run.folder.network.read_bytes())
    write_experiment(again)
    assert (run.folder.experiment.read_bytes(), run.folder.network.read_bytes()) == before
    weights = trained(again)
    assert len(weights) == 4
    for ticket in grid(again.experiment):
        row = read_json(again.folder.replicate(0).ticket(ticket.name).done)["row"]
        assert row["status"] == "done"
        assert row["prunable_weights"] == 4 * 9 + 4 * 64 * 10
        kept = sum(int(weights[ticket.name][name].count_nonzero()) for name in PRUNABLE)
        assert kept == row["kept_weights"] == {0.5: 1298, 0.9: 260}[ticket.sparsity]  # of 2,596


def test_a_run_of_ones_own_network_can_be_moved(tmp_path: Path) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    (tmp_path / "root").rename(tmp_path / "moved")
    moved = locate(tmp_path / "moved" / run.folder.path.name)
    assert moved.experiment.model.arch == f"{moved.folder.path}/network.py:small"


def test_drawing_in_forward_comes_from_the_step_and_not_from_the_process(tmp_path: Path) -> None:
    path = written(tmp_path, prune={"sparsities": [0]}, reset__epochs=[0])
    found = []
    for number in (1, 2):
        torch.manual_seed(number)
        found.append(trained(located(path, tmp_path / f"root-{number}")))
    assert found[0].keys() == found[1].keys()
    for name, weights in found[0].items():
        assert all(torch.equal(value, found[1][name][key]) for key, value in weights.items())


def test_what_cannot_be_imported_is_said_before_the_dense_run(tmp_path: Path) -> None:
    run = located(written(tmp_path, "import no_such_library_at_all\n" + NETS), tmp_path / "root")
    with pytest.raises(LtrayError, match="No module named 'no_such_library_at_all'"):
        train_dense(run, 0, this_place(), nobody)
    assert not list(run.folder.path.rglob("step-*"))


def test_fused_leaves_a_class_of_ones_own_to_the_loop_before_the_dense_run(tmp_path: Path) -> None:
    run = located(written(tmp_path, sweep={"backend": "fused"}), tmp_path / "root")
    with pytest.raises(LtrayError, match="fused cannot train this network: the network is a Small"):
        train_dense(run, 0, this_place(), nobody)
    assert not list(run.folder.path.rglob("step-*"))


# which run it is


def test_what_the_file_holds_decides_the_run_and_where_it_lies_does_not(tmp_path: Path) -> None:
    root = tmp_path / "root"
    first = locate(written(tmp_path / "a"), root).folder
    assert locate(written(tmp_path / "b"), root).folder == first
    other_name = written(tmp_path / "c", model__arch=f"{tmp_path}/a/nets.py:small")
    assert locate(other_name, root).folder == first
    assert locate(written(tmp_path / "d", NETS + "# changed\n"), root).folder != first
    two = NETS + NETS[NETS.index("def small") :].replace("small", "other")
    assert (
        locate(written(tmp_path / "e", two), root).folder
        != locate(written(tmp_path / "f", two, model__arch="nets.py:other"), root).folder
    )


def test_a_named_network_keeps_its_id(make_run: MakeRun) -> None:
    # As ltray 0.1 made it before it knew of own networks: finished runs must be found again.
    assert make_run().folder.path.name == "small-d6f1502a"


def test_the_run_says_what_it_was_made_of(tmp_path: Path) -> None:
    run = located(written(tmp_path), tmp_path / "root")
    assert run.network is not None
    lines = run.folder.experiment.read_text().splitlines()
    assert lines[2] == f"# network.py: sha256 {run.network.sha256}"
    assert "  arch: network.py:small" in lines
    assert run.folder.network.read_text() == NETS


def test_a_run_whose_copy_was_changed_is_refused_until_it_is_whole_again(tmp_path: Path) -> None:
    path = written(tmp_path)
    run = located(path, tmp_path / "root")
    run.folder.network.write_text(NETS.replace("0.2", "0.3"))
    with pytest.raises(LtrayError, match=r"network\.py: is not the file that the run was made"):
        locate(run.folder.path)
    located(path, tmp_path / "root")
    assert locate(run.folder.path).folder == run.folder


def test_a_copy_that_changes_under_a_command_is_refused(tmp_path: Path) -> None:
    run = located(written(tmp_path / "mine"), tmp_path / "root")
    run.folder.network.write_text(f"{run.folder.network.read_text()}# another\n")
    with pytest.raises(LtrayError, match="has changed since this command read it"):
        trained(run)


def test_where_the_source_is_absent_the_run_of_the_same_network_is_taken(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), "uint8")
    labels = np.arange(40) % 10
    np.savez(tmp_path / "some.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    data = {"source": "npz", "path": "some.npz", "validation_fraction": 0.5}
    path = written(tmp_path, data=data, data__train_limit=None, train__batch_size=10)
    run = located(path, tmp_path / "root")
    (tmp_path / "some.npz").unlink()
    assert locate(path, tmp_path / "root").folder == run.folder
    (tmp_path / "nets.py").write_text(NETS + "# changed\n")
    with pytest.raises(LtrayError, match=r"data\.path"):
        locate(path, tmp_path / "root")


# what is wrong with it


@pytest.mark.parametrize(
    ("arch", "said"),
    [
        ("nets.py", "is no file.py:function"),
        ("nest.py:small", "no such file; did you mean 'nets.py'"),
        ("nets.py:smal", "no function 'smal' at its top level; did you mean 'small'"),
    ],
)
def test_a_typo_is_said_with_everything_else_that_is_wrong(
    arch: str, said: str, tmp_path: Path
) -> None:
    data = {"source": "npz", "path": "none.npz"}
    path = written(tmp_path, model__arch=arch, data=data, data__train_limit=None)
    with pytest.raises(InvalidExperiment) as caught:
        locate(path, tmp_path / "root")
    first, second = map(str, caught.value.args[0])
    assert first.startswith("model.arch: ")
    assert said in first
    assert second.startswith("data.path: ")


def test_the_example_of_the_readme_works_with_fused_too(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    example = readme.partition("## A network of your own")[2].split("```python\n")[1]
    check_covers("fused", built(tmp_path, example.partition("```")[0]))


def test_a_fixed_filter_is_left_out_of_pruning(tmp_path: Path) -> None:
    text = changed(
        "kernel = network.conv.weight.detach().clone()",
        "del network.conv.weight",
        "network.conv.register_buffer('weight', kernel)",
        "return network",
    )
    assert prunable(built(tmp_path, text)) == ("fc.weight",)


def test_what_is_ahead_is_told_of_the_classes_that_were_chosen(tmp_path: Path) -> None:
    """A network with as many outputs as that, and none for the source's other classes."""
    text = NETS.replace("image_size**2, classes", "image_size**2, 5")
    run = located(written(tmp_path, text, data__classes=[0, 1, 2, 3, 4]), tmp_path / "root")
    trained(run)
    lines: list[str] = []
    launch = cast("Launch", SimpleNamespace(plan=lambda *_: None))
    here = Cluster(nodes=((2, 0),), gpu_names=(), dashboard="", joined=False)
    say_ahead(run, launch, collect(run.folder), here, lines.append)
    assert lines[0].startswith("plan: ")


def test_weights_are_a_function_of_the_seed(tmp_path: Path) -> None:
    one, same, other = (built(tmp_path, NETS, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["conv.weight"], other["conv.weight"])


def test_building_leaves_the_random_numbers_of_the_process_alone(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    built(tmp_path, "import torch\nNOISE = torch.rand(3)\n" + NETS)
    assert torch.equal(torch.rand(3), expected)


def test_trying_a_network_out_leaves_no_trace_in_it(tmp_path: Path) -> None:
    network = built(tmp_path, NETS)
    assert network.training
    assert int(network.state_dict()["bn.num_batches_tracked"]) == 0
    assert all(parameter.grad is None for parameter in network.parameters())


def forward(*lines: str) -> str:
    """The file with another end of forward()."""
    return NETS.replace(FORWARD, "\n        ".join(lines))


def changed(*lines: str) -> str:
    """The file whose function changes the network before it returns it."""
    return NETS.replace(RETURN, "\n    ".join([f"network = {RETURN[7:]}", *lines]))


TUPLE = ("if self.training:", "    return logits, logits", "return logits")
FAULTS = {
    "no module": (changed("return 7"), "gives a int, not a torch.nn.Module"),
    "an error": (
        changed("raise KeyError('a')"),
        "line 20: small(classes=10, channels=3, image_size=8) failed: KeyError: 'a'",
    ),
    "an import": (changed("import no_such_library"), "the only one to reach workers"),
    "another shape": (
        forward("return self.fc(hidden.flatten(1))[:, :7]"),
        "gives (2, 7) for 2 images in evaluation, not (2, 10)",
    ),
    "a tuple while training": (
        forward("logits = self.fc(hidden.flatten(1))", *TUPLE),
        "gives a tuple for 2 images in training, not (2, 10)",
    ),
    "a layout that training does not have": (
        forward("return self.fc(hidden.view(len(hidden), -1))"),
        "line 15: cannot take images of 8 x 8 pixels and 3 channels in evaluation: RuntimeError:"
        " view size is not compatible",
    ),
    "the layout of images": (
        forward("return hidden.flatten(1)[:, :10] + images.view(len(images), -1)[:, :10]"),
        "line 15: cannot take",
    ),
    "the layout of weights": (
        forward("return hidden.flatten(1)[:, :10] + self.conv.weight.view(4, -1).sum()"),
        "line 15: cannot take",
    ),
    "other weights each time": (
        changed("import random", "network.fc.bias.data.fill_(random.random())", "return network"),
        "gives 'fc.bias' other values when it is called again with torch's same seed",
    ),
    "one tensor twice": (
        changed("network.again = network.fc", "return network"),
        "memory under two names, 'again.bias' and 'fc.bias'",
    ),
    "a buffer within a weight": (
        changed("network.register_buffer('row', network.fc.weight.data[3])", "return network"),
        "memory under two names, 'fc.weight' and 'row'",
    ),
    "columns of a larger matrix": (
        changed("network.fc.weight = nn.Parameter(torch.randn(10, 512)[:, ::2])", "return network"),
        "has 'fc.weight', a part of a larger tensor",
    ),
    "one number for all": (
        changed(
            "network.fc.weight = nn.Parameter(torch.ones(1, 1).expand(10, 256))", "return network"
        ),
        "has 'fc.weight', a part of a larger tensor",
    ),
    "half precision": (
        changed("network.fc.weight.data = network.fc.weight.data.bfloat16()", "return network"),
        "has 'fc.weight' in bfloat16",
    ),
    "a layer that is never used": (
        changed("network.idle = nn.Linear(3, 3)", "return network"),
        "has layers that are never trained: idle.weight",
    ),
    "a shape that is not known": (
        changed("network.fc = nn.LazyLinear(10)", "return network"),
        "has 'fc.weight', whose shape is not known yet",
    ),
    "statistics of a shape that is not known": (
        changed("network.bn = nn.LazyBatchNorm2d(affine=False)", "return network"),
        "has 'bn.running_mean', whose shape is not known yet",
    ),
    "a weight by weight_norm": (
        changed("network.fc = nn.utils.parametrizations.weight_norm(network.fc)", "return network"),
        "has weights that are computed from others: fc.weight",
    ),
    "nothing to prune": (
        forward("return images.mean((1, 2, 3))[:, None] * self.scale")
        .replace(
            "        self.conv = nn.Conv2d(channels, 4, 3, padding=1)\n"
            "        self.bn = nn.BatchNorm2d(4)\n"
            "        self.fc = nn.Linear(4 * image_size**2, classes)\n",
            "        self.scale = nn.Parameter(torch.ones(classes))\n",
        )
        .replace("hidden = functional.relu(self.bn(self.conv(images)))", "pass"),
        "has no convolution and no linear layer, so nothing to prune",
    ),
    "nothing to train": (changed("return network.requires_grad_(False)"), "without a gradient"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_network_that_could_not_be_trained_is_refused_when_it_is_built(
    case: str, tmp_path: Path
) -> None:
    text, said = FAULTS[case]
    with pytest.raises(LtrayError) as caught:
        built(tmp_path, text)
    assert said in str(caught.value)
    assert str(tmp_path / "nets.py") in str(caught.value)
