"""What a stranger does with an exported ticket: loads it, keeps it sparse, hands it on."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from torch import nn
from torch.nn import functional

from ltray import apply_mask, keep_masked, load_ticket, network_inputs, read_about, to_torch_prune
from ltray.analysis.exporting import loading_code
from ltray.errors import LtrayError
from ltray.lottery.exported import ABOUT, MASK, OWN_HASH, WEIGHTS, hash_of
from ltray.models.networks import build
from ltray.models.prunable import prunable

STEPS = 12
SIZES = {"classes": 10, "channels": 1, "image_size": 8}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.1),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.01, weight_decay=0.1),
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, lr=0.01, momentum=0.5),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.01),
}

WITHOUT_LTRAY = """
import sys

sys.modules["ltray"] = None  # its import is an error

import torch
from load_ticket import load_ticket
from safetensors.torch import save_file

model, mask = load_ticket(".")
assert model(torch.ones(2, 3, 32, 32)).shape == (2, 10)
save_file(model.state_dict(), "../found.safetensors")
"""


def exported(folder: Path, arch: str = "lenet_300_100", **network: Any) -> Path:
    """A folder as the command writes it, of an untrained network and a random mask."""
    described: dict[str, Any] = {"arch": arch, "own": False, **SIZES, **network}
    sizes = {key: described[key] for key in SIZES}
    model = build(arch if not described["own"] else "conv2", **sizes, seed=0)
    mask = random_mask(model)
    apply_mask(model, mask)
    folder.mkdir(parents=True)
    state = dict(model.state_dict())
    hashes = {}
    for name, tensors in ((MASK, mask), (WEIGHTS["start"], state), (WEIGHTS["trained"], state)):
        (folder / name).write_bytes(save(tensors))
        hashes[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    images = {"crop_size": described["image_size"], "channels": described["channels"]}
    images |= {"mean": [0.0], "std": [255.0]}
    about = {"format": 1, "network": described, "images": images, "sha256": hashes}
    write_about(folder, about)
    return folder


def write_about(folder: Path, about: dict[str, Any]) -> None:
    (folder / ABOUT).write_text(json.dumps({**about, OWN_HASH: hash_of(about)}))


def random_mask(model: nn.Module) -> dict[str, torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    shapes = {name: model.get_parameter(name).shape for name in prunable(model)}
    return {name: torch.rand(shape, generator=source) < 0.2 for name, shape in shapes.items()}


def assert_masked(model: nn.Module, mask: dict[str, torch.Tensor]) -> None:
    for name, part in mask.items():
        weight = model.get_parameter(name)
        assert not bool(weight[~part].any()), name
        assert bool(weight[part].any()), name


def test_a_network_of_torchvision_is_loaded_without_ltray(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t", "mobilenet_v2", channels=3, image_size=32)
    (folder / "load_ticket.py").write_text(loading_code())
    subprocess.run([sys.executable, "-c", WITHOUT_LTRAY], cwd=folder, check=True)
    model, _ = load_ticket(folder)
    found = load_file(tmp_path / "found.safetensors")
    torch.testing.assert_close(found, dict(model.state_dict()), rtol=0, atol=0)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_mask_survives_a_foreign_training_loop(tmp_path: Path, optimizer: str) -> None:
    model, mask = load_ticket(exported(tmp_path / "t"), weights="start")
    before = {name: value.clone() for name, value in model.named_parameters()}
    updates = OPTIMIZERS[optimizer](model.train().parameters())
    keep_masked(updates, model, mask)
    source = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        images = torch.rand(16, 1, 8, 8, generator=source)
        labels = torch.randint(10, (16,), generator=source)
        updates.zero_grad()
        functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        updates.step()
        assert_masked(model, mask)
    assert all(not torch.equal(value, before[name]) for name, value in model.named_parameters())
    for name, part in mask.items():
        held = updates.state[model.get_parameter(name)].values()
        shaped = [value for value in held if torch.is_tensor(value) and value.shape == part.shape]
        assert shaped, name
        assert all(not bool(value[~part].any()) for value in shaped), name


def test_momentum_from_before_does_not_revive_masked_weights(tmp_path: Path) -> None:
    model, mask = load_ticket(exported(tmp_path / "t"))
    updates = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    model(images).square().sum().backward()
    updates.step()
    keep_masked(updates, model, mask)
    for name, part in mask.items():
        momentum = updates.state[model.get_parameter(name)]["momentum_buffer"]
        assert not bool(momentum[~part].any())
        assert bool(momentum[part].any())
    assert_masked(model, mask)


def closure_of(model: torch.nn.Module, updates: torch.optim.Optimizer) -> Callable[[], float]:
    """What `step` computes the loss and its gradients by."""
    images = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(2))

    def closure() -> float:
        updates.zero_grad()
        loss = model(images).square().sum()
        loss.backward()
        return float(loss.detach())

    return closure


def test_no_momentum_grows_where_step_is_given_a_closure(tmp_path: Path) -> None:
    model, mask = load_ticket(exported(tmp_path / "t"))
    updates = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    keep_masked(updates, model, mask)
    closure = closure_of(model, updates)
    for _ in range(3):
        updates.step(closure)
    assert_masked(model, mask)
    for name, part in mask.items():
        momentum = updates.state[model.get_parameter(name)]["momentum_buffer"]
        assert not bool(momentum[~part].any())
        assert bool(momentum[part].any())


@pytest.mark.parametrize("later", [False, True], ids=["in the optimizer", "added later"])
def test_a_layer_that_is_frozen_at_first_stays_masked(tmp_path: Path, later: bool) -> None:
    model, mask = load_ticket(exported(tmp_path / "t"))
    frozen = model.get_parameter("fc1.weight").requires_grad_(False)
    others = [value for value in model.parameters() if value is not frozen]
    updates = torch.optim.SGD(others if later else model.parameters(), lr=0.1, momentum=0.9)
    keep_masked(updates, model, mask)
    closure = closure_of(model, updates)
    before = frozen.clone()
    updates.step(closure)
    assert torch.equal(frozen, before)
    frozen.requires_grad_(True)
    if later:
        updates.add_param_group({"params": [frozen]})
    updates.step(closure)
    assert not torch.equal(frozen, before)
    assert_masked(model, mask)
    momentum = updates.state[frozen]["momentum_buffer"]
    assert not bool(momentum[~mask["fc1.weight"]].any())
    assert bool(momentum[mask["fc1.weight"]].any())


def test_gradients_that_are_not_numbers_do_not_reach_masked_weights(tmp_path: Path) -> None:
    model, mask = load_ticket(exported(tmp_path / "t"))
    updates = torch.optim.AdamW(model.parameters())
    keep_masked(updates, model, mask)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    updates.step()
    for name, part in mask.items():
        assert not bool(model.get_parameter(name)[~part].any())


def test_an_optimizer_of_another_network_is_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t")
    (model, mask), (other, _) = load_ticket(folder), load_ticket(folder)
    with pytest.raises(LtrayError, match="none of the masked weights"):
        keep_masked(torch.optim.SGD(other.parameters(), lr=0.1), model, mask)


def test_a_mask_of_another_network_is_refused(tmp_path: Path) -> None:
    model, mask = load_ticket(exported(tmp_path / "t"))
    with pytest.raises(LtrayError, match=r"no parameter 'module\.fc1\.weight'"):
        apply_mask(model, {f"module.{name}": part for name, part in mask.items()})
    turned = r"'fc1.weight' is \[300, 64\] and \[64, 300\] in the mask"
    with pytest.raises(LtrayError, match=turned):
        apply_mask(model, {name: part.t() for name, part in mask.items()})


def test_torch_prune_takes_the_mask(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t")
    model, mask = load_ticket(folder)
    images = torch.rand(3, 1, 8, 8)
    expected = model(images)
    to_torch_prune(model, mask)
    assert nn.utils.prune.is_pruned(model)
    torch.testing.assert_close(model(images), expected, rtol=0, atol=0)
    assert {name for name, _ in model.named_buffers()} == {f"{name}_mask" for name in mask}


class ReadsWeights(nn.Module):
    """Attention, and a layer whose weight is read without a call of the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.last = nn.Linear(8, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        seen, _ = self.attention(images, images, images)
        return functional.linear(seen.mean(1), self.last.weight, self.last.bias)


def test_torch_prune_trains_layers_that_are_not_called() -> None:
    model = ReadsWeights()
    names = ["attention.out_proj.weight", "last.weight"]
    mask = {name: torch.rand(model.get_parameter(name).shape) < 0.5 for name in names}
    to_torch_prune(model, mask)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = torch.rand(4, 5, 8), torch.tensor([0, 1, 2, 0])
    for _ in range(3):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    given = {name: parameter.clone() for name, parameter in model.named_parameters()}
    logits = model(images)
    plain = ReadsWeights()
    kept = {name: given[f"{name}_orig"] * part for name, part in mask.items()}
    whole = {name: given[name] for name, _ in plain.named_parameters() if name not in mask}
    plain.load_state_dict({**whole, **kept})
    torch.testing.assert_close(logits, plain(images))
    for name in names:
        module, _, weight = name.rpartition(".")
        nn.utils.prune.remove(model.get_submodule(module), weight)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(model(images), logits)


@pytest.mark.parametrize("file", [MASK, *WEIGHTS.values(), ABOUT])
def test_a_changed_byte_is_noticed(tmp_path: Path, file: str) -> None:
    folder = exported(tmp_path / "t")
    content = bytearray((folder / file).read_bytes())
    at = content.index(b'"classes": 10') + 12 if file == ABOUT else len(content) // 2
    content[at] ^= 1
    (folder / file).write_bytes(content)
    weights = "start" if file == WEIGHTS["start"] else "trained"
    with pytest.raises(LtrayError, match="has changed since it was exported"):
        load_ticket(folder, weights=weights)  # type: ignore[arg-type]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t")
    (folder / MASK).unlink()
    with pytest.raises(LtrayError, match=r"mask\.safetensors: is missing"):
        load_ticket(folder)
    with pytest.raises(LtrayError, match="is no exported ticket"):
        load_ticket(tmp_path)
    with pytest.raises(LtrayError, match="is no exported ticket"):
        load_ticket(folder / ABOUT)


def test_a_folder_of_a_later_version_is_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t")
    about = {**read_about(folder), "format": 2}
    del about[OWN_HASH]
    write_about(folder, about)
    with pytest.raises(LtrayError, match="not of format 1"):
        load_ticket(folder)


def test_loading_draws_nothing_from_the_callers_random_numbers(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_ticket(folder)
    assert torch.equal(torch.rand(1), expected)


def test_a_network_of_ones_own_is_made_by_the_caller_alone(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t", arch="network.py:small", own=True)
    (folder / "network.py").write_text("raise SystemExit('this was run')")
    with pytest.raises(LtrayError, match=r"made by a person's own function, network\.py:small"):
        load_ticket(folder)

    def small(classes: int, channels: int, image_size: int) -> nn.Module:
        return build("conv2", classes, channels, image_size, seed=1)

    model, mask = load_ticket(folder, network=small)
    assert_masked(model, mask)
    with pytest.raises(LtrayError, match="the network does not fit"):
        load_ticket(folder, network=lambda **_: nn.Linear(2, 2))


def test_pixels_become_what_the_network_was_evaluated_on(tmp_path: Path) -> None:
    folder = exported(tmp_path / "t", image_size=6)
    pixels = torch.arange(2 * 8 * 8, dtype=torch.uint8).reshape(2, 8, 8, 1)
    inputs = network_inputs(folder, pixels)
    assert inputs.shape == (2, 1, 6, 6)
    assert torch.equal(inputs[1, 0], pixels[1, 1:7, 1:7, 0] / 255)
    with pytest.raises(LtrayError, match="at least 6 x 6"):
        network_inputs(folder, pixels[:, :5])
    with pytest.raises(LtrayError, match="uint8"):
        network_inputs(folder, pixels.float())
