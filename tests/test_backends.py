"""Every backend against `loop`, ticket by ticket, without files and without Ray."""

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ltray.errors import LtrayError
from ltray.experiment import Train
from ltray.lottery.masks import Mask
from ltray.lottery.snapshot import Snapshot
from ltray.models.networks import build
from ltray.models.prunable import prunable
from ltray.training.backends.choice import BACKENDS, check_covers, open_backend
from ltray.training.network import Network
from ltray.training.recipe import Recipe

CLASSES = 10
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9, "weight_decay": 1e-3},
    "nesterov": {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9, "nesterov": True},
    "adam": {"optimizer": "adam", "lr": 1e-5, "weight_decay": 1e-3},
    "adamw": {"optimizer": "adamw", "lr": 1e-5, "weight_decay": 1e-2},
}
# Channels and pixels per side of every network that `fused` covers.
NETWORKS = {
    "lenet_300_100": (1, 12),
    "conv2": (3, 16),
    "resnet20": (3, 16),
    "conv4": (3, 16),
    "conv6": (3, 16),
    "vgg16_cifar": (3, 32),
    "mobilenet_v2": (3, 64),
    "resnet18": (3, 64),
    "resnet50": (3, 64),
    "vgg11_bn": (3, 64),
    "alexnet": (3, 64),
}
# Steps grow what rounding leaves, in `loop` alone as well: half of an untrained MobileNetV2, its
# weights changed by one part in 2 ** 52, is 5e-11 away after 20 steps at 1e-4, and 0.1 at 0.05.
RATES = {"mobilenet_v2": 1e-5}
OWN_IMAGES = (3, 8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe_of(**train: Any) -> Recipe:
    return Recipe(Train(epochs=100, batch_size=8, **train), steps_per_epoch=4)


def random_masks(model: torch.nn.Module, count: int) -> list[Mask]:
    """Half of the weights, others in each, save the last mask, which keeps every weight."""
    source = torch.Generator().manual_seed(3)
    shapes = {name: model.get_parameter(name).shape for name in prunable(model)}
    masks = [
        {name: torch.rand(shape, generator=source) < 0.5 for name, shape in shapes.items()}
        for _ in range(count - 1)
    ]
    return [*masks, {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}]


def pack_of(
    arch: str, count: int, recipe: Recipe, dtype: torch.dtype, device: str = "cpu"
) -> list[Network]:
    """Tickets with other masks and other weights."""
    channels, size = NETWORKS.get(arch, OWN_IMAGES)
    models = [build(arch, CLASSES, channels, size, seed).to(dtype) for seed in range(count)]
    masks = random_masks(models[0], count)
    return [
        Network(
            f"ticket {number}",
            model.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
            Snapshot(step=0, model=copy.deepcopy(model.state_dict())),
            mask,
            recipe,
            data_seed=7,
        )
        for number, (model, mask) in enumerate(zip(models, masks, strict=True))
    ]


def batches_for(arch: str, count: int, dtype: torch.dtype) -> Iterator[tuple[torch.Tensor, ...]]:
    channels, size = NETWORKS.get(arch, OWN_IMAGES)
    source = torch.Generator().manual_seed(11)
    for _ in range(count):
        images = torch.randn(8, channels, size, size, generator=source, dtype=dtype)
        labels = torch.randint(CLASSES, (8,), generator=source)
        yield images.contiguous(memory_format=torch.channels_last), labels


def train(backend: str, seats: Sequence[Network | None], arch: str, steps: int) -> None:
    together = open_backend(backend, tuple(seats))
    of = next(iter(together.networks[0].parameters.values()))
    for images, labels in batches_for(arch, steps, of.dtype):
        together.train_step(images.to(of.device), labels.to(of.device))
    together.settle()


def state_of(network: Network) -> dict[str, torch.Tensor]:
    """Weights, running statistics, optimizer state and the loss so far."""
    snapshot = network.snapshot()
    state = {f"model {name}": part for name, part in snapshot.model.items()}
    for name, parts in snapshot.optimizer.items():
        state |= {f"{kind} of {name}": part for kind, part in parts.items()}
    return {name: part.clone() for name, part in {**state, "loss": snapshot.loss_sum}.items()}


@pytest.mark.parametrize(
    ("backend", "arch", "optimizer"),
    [
        ("fused", "conv2", "sgd"),
        ("fused", "resnet20", "sgd"),
        *(("fused", "lenet_300_100", optimizer) for optimizer in OPTIMIZERS),
        *(("csr", "lenet_300_100", optimizer) for optimizer in OPTIMIZERS),
    ],
)
def test_twenty_steps_equal_those_of_the_loop(backend: str, arch: str, optimizer: str) -> None:
    check_equal(backend, arch, optimizer, steps=20, count=3)


def test_the_first_steps_with_depthwise_convolutions_equal_those_of_the_loop() -> None:
    check_equal("fused", "mobilenet_v2", "sgd", steps=2, count=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "optimizer"),
    [*((arch, "sgd") for arch in NETWORKS), *(("resnet20", which) for which in OPTIMIZERS)],
)
def test_twenty_steps_of_larger_networks_equal_those_of_the_loop(arch: str, optimizer: str) -> None:
    check_equal("fused", arch, optimizer, steps=20, count=2)


def check_equal(backend: str, arch: str, optimizer: str, steps: int, count: int) -> None:
    keys = OPTIMIZERS[optimizer]
    recipe = recipe_of(**{**keys, "lr": RATES.get(arch, keys["lr"])}, label_smoothing=0.1)
    packs = {name: pack_of(arch, count, recipe, torch.float64) for name in ("loop", backend)}
    for name, pack in packs.items():
        train(name, pack, arch, steps)
    for one, other in zip(packs["loop"], packs[backend], strict=True):
        expected, found = state_of(one), state_of(other)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-12, atol=1e-12, msg=key)


def test_masked_weights_and_their_state_stay_exactly_zero_over_200_steps() -> None:
    for keys in OPTIMIZERS.values():
        for backend in BACKENDS:
            pack = pack_of("lenet_300_100", 3, recipe_of(**keys), torch.float32)
            train(backend, pack, "lenet_300_100", 200)
            for network in pack:
                assert network.step == 200
                for name, kept in network.factors.items():
                    assert_zero_outside(network, name, kept.bool())


def assert_zero_outside(network: Network, name: str, kept: torch.Tensor) -> None:
    snapshot = network.snapshot()
    parts = [snapshot.model[name], *snapshot.optimizer[name].values()]
    shaped = [part for part in parts if part.shape == kept.shape]
    assert len(shaped) > 1
    for part in shaped:
        assert not bool(part[~kept].any())
        assert bool(part[kept].any())


@pytest.mark.parametrize("arch", ["lenet_300_100", "resnet20"])
def test_an_empty_seat_leaves_the_bits_of_the_others_as_they_are(arch: str) -> None:
    recipe = recipe_of(**OPTIMIZERS["sgd"])
    whole, others = (pack_of(arch, 4, recipe, torch.float32) for _ in range(2))
    train("fused", whole, arch, 10)
    train("fused", [others[0], None, others[2], None], arch, 10)
    for place in (0, 2):
        expected, found = state_of(whole[place]), state_of(others[place])
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert others[1].step == 0


def test_a_network_whose_loss_is_not_finite_disturbs_no_other() -> None:
    recipe = recipe_of(**OPTIMIZERS["sgd"])
    whole, ill = (pack_of("resnet20", 3, recipe, torch.float32) for _ in range(2))
    with torch.no_grad():
        ill[1].parameters["conv1.weight"].fill_(torch.nan)
    train("fused", whole, "resnet20", 5)
    train("fused", ill, "resnet20", 5)
    assert ill[1].loss_sum.isnan()
    for place in (0, 2):
        expected, found = state_of(whole[place]), state_of(ill[place])
        assert all(torch.equal(found[key], value) for key, value in expected.items())


def test_what_fused_cannot_train_is_said_with_the_layer() -> None:
    model = build("densenet121", CLASSES, 3, 32, seed=0)
    check_covers("loop", model)
    with pytest.raises(LtrayError, match="DenseNet") as caught:
        check_covers("fused", model)
    assert "write auto or loop" in str(caught.value)


def flat(*layers: torch.nn.Module) -> torch.nn.Module:
    """A network of rows of 48 features."""
    return nn.Sequential(nn.Flatten(), *layers)


def hooked() -> torch.nn.Module:
    model = flat(nn.Linear(48, 10))
    model.register_forward_hook(lambda _module, _images, logits: 2 * logits)
    return model


class OwnSequence(nn.Sequential):
    """Of a person: its forward() may do anything."""


def frozen() -> torch.nn.Module:
    return flat(nn.Linear(48, 8).requires_grad_(False), nn.ReLU(), nn.Linear(8, 10))


def with_a_weight_of_its_own() -> torch.nn.Module:
    model = flat(nn.Linear(48, 10))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    return model


RELU = nn.ReLU()
# Images are 3 x 4 x 4. Networks of known layers that do something else than they seem to.
PECULIAR: dict[str, tuple[torch.nn.Module, str]] = {
    "own class": (OwnSequence(nn.Flatten(), nn.Linear(48, 10)), "OwnSequence"),
    "hook": (hooked(), "hook"),
    "frozen": (frozen(), "1.weight is kept from training"),
    "one layer twice": (
        flat(nn.Linear(48, 8), RELU, nn.Linear(8, 8), RELU, nn.Linear(8, 10)),
        "two places",
    ),
}
NOT_FUSED: dict[str, tuple[torch.nn.Module, str]] = {
    **PECULIAR,
    "own weight": (with_a_weight_of_its_own(), "scale of its own"),
    "BatchNorm without weights": (
        nn.Sequential(nn.Conv2d(3, 10, 4), nn.BatchNorm2d(10, affine=False), nn.Flatten()),
        "1 lacks weights",
    ),
    "BatchNorm first": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 10, 4)), "0 comes before"),
    "groups first": (nn.Sequential(nn.Conv2d(3, 3, 3, groups=3)), "0 comes before"),
    "Dropout first": (flat(nn.Dropout(), nn.Linear(48, 10)), "1 comes before"),
    "pixels": (nn.Sequential(nn.Linear(4, 4), nn.Flatten(), nn.Linear(48, 10)), "before a Flatten"),
    "rows": (nn.Sequential(nn.Flatten(2), nn.Linear(16, 10)), "does not make rows"),
}
NOT_CSR: dict[str, tuple[torch.nn.Module, str]] = {
    **PECULIAR,
    "no ReLU": (flat(nn.Linear(48, 8), nn.Linear(8, 10)), "one ReLU between each two"),
    "ReLU at the end": (flat(nn.Linear(48, 10), nn.ReLU()), "one ReLU between each two"),
    "ReLU first": (flat(nn.ReLU(), nn.Linear(48, 10)), "one ReLU between each two"),
    "nothing": (nn.Sequential(), "one ReLU between each two"),
    "rows": (nn.Sequential(nn.Flatten(2), nn.Linear(16, 10)), "does not make rows"),
}


@pytest.mark.parametrize(
    ("backend", "case"),
    [*(("fused", case) for case in NOT_FUSED), *(("csr", case) for case in NOT_CSR)],
)
def test_known_layers_that_do_something_unknown_are_left_to_the_loop(
    backend: str, case: str
) -> None:
    model, said = {"fused": NOT_FUSED, "csr": NOT_CSR}[backend][case]
    check_covers("loop", model)
    with pytest.raises(LtrayError, match=said):
        check_covers(backend, model)


OWN = {
    "fused": (
        "nn.Sequential(nn.Conv2d(channels, 6, 3, 2, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(),"
        " nn.Dropout(0.2), nn.Linear(6 * (image_size // 2) ** 2, classes))"
    ),
    "csr": (
        "nn.Sequential(nn.Flatten(), nn.Linear(channels * image_size**2, 20), nn.ReLU(),"
        " nn.Linear(20, classes, bias=False))"
    ),
}


@pytest.mark.parametrize("backend", OWN)
def test_a_persons_own_sequence_of_known_layers_equals_the_loop(
    backend: str, tmp_path: Path
) -> None:
    path = tmp_path / "own.py"
    path.write_text(
        f"from torch import nn\ndef net(classes, channels, image_size):\n    return {OWN[backend]}"
    )
    check_equal(backend, f"{path}:net", "sgd", steps=20, count=3)
