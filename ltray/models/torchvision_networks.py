"""torchvision's classification models, for images of the size and channels that are there."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

from ltray.errors import LtrayError
from ltray.torchvision_import import import_torchvision

WRITTEN_FOR_CHANNELS = 3  # every torchvision model has it as a constant


def torchvision_network(arch: str, classes: int, channels: int, image_size: int) -> nn.Module:
    """An untrained torchvision model that maps [B, channels, size, size] to [B, classes].

    Raises:
        LtrayError: it cannot take such images.
    """
    models = import_torchvision().models
    arguments = _arguments(arch, image_size)
    try:
        with _image_channels(channels):
            network = models.get_model(arch, weights=None, num_classes=classes, **arguments)
        _try_forward(network, channels, image_size)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise LtrayError(
            "model.arch",
            f"{arch} cannot take images of {image_size} x {image_size} pixels and {channels} "
            f"channels: {error}",
            "set data.crop_size (or data.image_size) to what it was made for, often 224, or "
            "choose another network",
        ) from error
    assert isinstance(network, nn.Module)
    return network


def _arguments(arch: str, image_size: int) -> dict[str, Any]:
    """What single families must be told beside the number of classes."""
    if arch.startswith("vit_"):
        return {"image_size": image_size}
    if arch.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    if arch in {"googlenet", "inception_v3"}:
        # Auxiliary heads would make the output a tuple while training. Asking for the published
        # initialisation keeps torchvision from warning that its default may change.
        return {"aux_logits": False, "init_weights": True}
    return {}


@contextmanager
def _image_channels(channels: int) -> Iterator[None]:
    """Within it, the first layer of a model that is built takes images of so many channels.

    The layer is changed while the model is put together, before the model initialises its layers,
    so that it is initialised as the architecture does it.
    """
    changed = channels == WRITTEN_FOR_CHANNELS

    def change(_parent: nn.Module, _name: str, layer: nn.Module) -> None:
        nonlocal changed
        if changed or not isinstance(layer, nn.Conv2d):
            return
        if layer.in_channels == WRITTEN_FOR_CHANNELS:
            layer.in_channels = channels
            shape = (layer.out_channels, channels, *layer.kernel_size)
            layer.weight = nn.Parameter(torch.empty(shape))
            layer.reset_parameters()
            changed = True

    handle = register_module_module_registration_hook(change)
    try:
        yield
    finally:
        handle.remove()


def _try_forward(network: nn.Module, channels: int, image_size: int) -> None:
    """Let one image through, on the meta device: shapes are worked out, numbers are not."""
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in chain(network.named_parameters(), network.named_buffers())
    }
    image = torch.empty(1, channels, image_size, image_size, device="meta")
    network.eval()
    with torch.no_grad():
        torch.func.functional_call(network, state, (image,))
    network.train()
