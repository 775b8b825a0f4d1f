"""Packs of small tickets with random masks, weights and batches, without files and without Ray."""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from ltray.experiment import Train
from ltray.lottery.masks import Mask
from ltray.lottery.snapshot import Snapshot
from ltray.models.networks import build
from ltray.models.prunable import prunable
from ltray.training.backends.choice import open_backend
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
RATES = {"mobilenet_v2": 1e-5, "resnet50": 1e-6}
OWN_IMAGES = (3, 8)


def recipe_of(**train: Any) -> Recipe:
    return Recipe(Train(epochs=100, batch_size=8, **train), steps_per_epoch=4)


def random_masks(model: torch.nn.Module, count: int, sparsity: float) -> list[Mask]:
    """One for two neighbours each, as reset points have; the last mask keeps every weight."""
    source = torch.Generator().manual_seed(3)
    shapes = {name: model.get_parameter(name).shape for name in prunable(model)}
    masks = [
        {name: torch.rand(shape, generator=source) >= sparsity for name, shape in shapes.items()}
        for _ in range(count // 2)
    ]
    every = {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}
    return [*(masks[number // 2] for number in range(count - 1)), every]


def pack_of(  # noqa: PLR0917 (what tests vary)
    arch: str,
    count: int,
    recipe: Recipe,
    dtype: torch.dtype,
    device: str = "cpu",
    sparsity: float = 0.5,
) -> list[Network]:
    """Tickets with masks of their own, or of two, and other weights."""
    channels, size = NETWORKS.get(arch, OWN_IMAGES)
    models = [build(arch, CLASSES, channels, size, seed).to(dtype) for seed in range(count)]
    masks = random_masks(models[0], count, sparsity)
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


def assert_zero_outside(network: Network, name: str, kept: torch.Tensor) -> None:
    snapshot = network.snapshot()
    parts = [snapshot.model[name], *snapshot.optimizer[name].values()]
    shaped = [part for part in parts if part.shape == kept.shape]
    assert len(shaped) > 1
    for part in shaped:
        assert not bool(part[~kept].any())
        assert bool(part[kept].any())
