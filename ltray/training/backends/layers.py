"""Layers that do for K networks of one architecture what a layer does for one.

K networks, B images, C channels, H W pixels, F features. Between layers the networks lie side by
side in the channel axis: [B, K * C, H, W] or [B, K * F]. The images themselves are not repeated: a
first layer that sees [B, C, H, W] serves all networks from it. Parameters and buffers are those of
the K networks, stacked along their first axis.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltray.models.classics import BasicBlock, Shortcut
from ltray.training.backends.plain import flattens_images, why_not_plain

CHANNEL_WISE = (
    nn.ReLU,
    nn.ReLU6,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Flatten,
    nn.Identity,
)
# Modules whose forward() does nothing to channels but add them, pool them and flatten them: what
# they hold is exchanged, they themselves stay. Names, since torchvision takes a second to import.
HOLDERS = {
    "AlexNet",
    "BasicBlock",
    "Bottleneck",
    "Conv2dNormActivation",
    "InvertedResidual",
    "MobileNetV2",
    "ResNet",
    "Sequential",
    "VGG",
}
HOLDERS_FROM = ("torch.", "torchvision.")


def why_not(model: nn.Module) -> str | None:
    """Why K copies of a model cannot be one network, or None.

    Decided by exact types: what a class of unknown code does to channels cannot be seen.
    """
    for name, module in model.named_modules():
        if not (type(module) in FUSED or _stays(module)):
            return f"{name or 'the network'} is a {type(module).__name__}"
        if reason := _why_not_layer(module):
            return f"{name or 'the network'} {reason}"
    return why_not_plain(model) or _why_not_order(model)


def _why_not_layer(module: nn.Module) -> str | None:
    """What a layer of a known type is told to do that its fused form does not."""
    if isinstance(module, nn.BatchNorm2d):
        if module.momentum is None:
            return "averages over all batches"
        if module.weight is None or module.running_mean is None:
            return "lacks weights or running statistics"
    if isinstance(module, nn.Conv2d) and module.padding_mode != "zeros":
        return f"pads with {module.padding_mode}"
    if isinstance(module, nn.Flatten) and not flattens_images(module):
        return "does not make rows of images"
    owns = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    if owns and type(module) not in FUSED:
        return f"has a {owns[0][0]} of its own"
    return None


def _why_not_order(model: nn.Module) -> str | None:
    """The first layer sees images that the networks share; Linear takes rows of features."""
    layers = [(name, layer) for name, layer in model.named_modules() if type(layer) in FUSED]
    name, first = layers[0]
    if not isinstance(first, nn.Linear | nn.Conv2d) or getattr(first, "groups", 1) > 1:
        return f"{name} comes before any Linear layer or convolution over all channels"
    if type(model) is nn.Sequential:  # the other holders flatten by themselves
        kinds = [type(layer) for layer in model.modules()]
        for kind in (nn.Linear, nn.Dropout):
            if kind in kinds and nn.Flatten not in kinds[: kinds.index(kind)]:
                return f"its first {kind.__name__} comes before a Flatten"
    return None


def stacked(models: Sequence[nn.Module]) -> nn.Module:
    """One module for K networks: [B, C, H, W] -> [B, K * classes].

    From here on the models' parameters and buffers are views of its own, so that each model always
    has what was learnt.

    Args:
        models: K of one architecture, for which `why_not` has no reason.
    """
    one = copy.deepcopy(models[0])
    for name, module in models[0].named_modules():
        if make := FUSED.get(type(module)):
            one.set_submodule(name, make([model.get_submodule(name) for model in models]))
    return one


def _stays(module: nn.Module) -> bool:
    of = type(module)
    holds = of.__name__ in HOLDERS and of.__module__.startswith(HOLDERS_FROM)
    return of in CHANNEL_WISE or of is BasicBlock or holds


class FusedConv2d(nn.Module):
    """Weight [K * O, C / groups, kernel, kernel], bias [K * O]."""

    def __init__(self, peers: Sequence[nn.Conv2d]) -> None:
        super().__init__()
        one = peers[0]
        self.channels, self.groups, self.networks = one.in_channels, one.groups, len(peers)
        self.stride, self.padding, self.dilation = one.stride, one.padding, one.dilation
        self.weight = nn.Parameter(_stack([peer.weight for peer in peers]))
        self.bias = _stacked_bias(peers)

    def forward(self, images: Tensor) -> Tensor:
        """[B, C, H, W] or [B, K * C, H, W] -> [B, K * O, H', W']."""
        shared = images.shape[1] == self.channels and self.groups == 1
        groups = 1 if shared else self.groups * self.networks
        return functional.conv2d(
            images, self.weight, self.bias, self.stride, self.padding, self.dilation, groups
        )  # type: ignore[call-overload,no-any-return,unused-ignore]


class FusedLinear(nn.Module):
    """Weight [K * O, F], bias [K * O]."""

    def __init__(self, peers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.features, self.networks = peers[0].in_features, len(peers)
        self.weight = nn.Parameter(_stack([peer.weight for peer in peers]))
        self.bias = _stacked_bias(peers)

    def forward(self, features: Tensor) -> Tensor:
        """[B, F] or [B, K * F] -> [B, K * O]."""
        if features.shape[1] == self.features:
            return functional.linear(features, self.weight, self.bias)
        weights = self.weight.view(self.networks, -1, self.features).transpose(1, 2)
        each = features.view(-1, self.networks, self.features).transpose(0, 1)
        if self.bias is None:
            made = torch.bmm(each, weights)
        else:
            made = torch.baddbmm(self.bias.view(self.networks, 1, -1), each, weights)
        return made.transpose(0, 1).flatten(1)


class FusedBatchNorm2d(nn.Module):
    """Everything [K * C], save the batches tracked, [K]."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, peers: Sequence[nn.BatchNorm2d]) -> None:
        super().__init__()
        self.momentum, self.eps = peers[0].momentum, peers[0].eps
        self.weight = nn.Parameter(_stack([peer.weight for peer in peers]))
        self.bias = nn.Parameter(_stack([peer.bias for peer in peers]))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, _stack([getattr(peer, name) for peer in peers]))

    def forward(self, images: Tensor) -> Tensor:
        """[B, K * C, H, W], each channel over batch and pixels."""
        if self.training:
            self.num_batches_tracked.add_(1)
        return functional.batch_norm(
            images,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.training,
            self.momentum or 0.0,
            self.eps,
        )


class FusedDropout(nn.Module):
    """The same features of all networks, as when each draws from the seed of the step."""

    def __init__(self, peers: Sequence[nn.Dropout]) -> None:
        super().__init__()
        self.p, self.networks = peers[0].p, len(peers)

    def forward(self, features: Tensor) -> Tensor:
        """[B, K * F]."""
        if not self.training:
            return features
        each = features.view(len(features), self.networks, -1)
        kept = functional.dropout(torch.ones_like(each[:, 0]), self.p)
        return (each * kept[:, None]).flatten(1)


class FusedShortcut(nn.Module):
    """New channels after those of each network."""

    def __init__(self, peers: Sequence[Shortcut]) -> None:
        super().__init__()
        self.stride, self.new_channels = peers[0].stride, peers[0].new_channels
        self.networks = len(peers)

    def forward(self, images: Tensor) -> Tensor:
        """[B, K * C, H, W] -> [B, K * (C + new channels), H / stride, W / stride]."""
        picked = images[:, :, :: self.stride, :: self.stride]
        if not self.new_channels:
            return picked
        last = picked.permute(0, 2, 3, 1)
        each = last.reshape(*last.shape[:3], self.networks, -1)
        return functional.pad(each, (0, self.new_channels)).flatten(3).permute(0, 3, 1, 2)


FUSED: dict[type[nn.Module], Callable[[Sequence[Any]], nn.Module]] = {
    nn.Conv2d: FusedConv2d,
    nn.Linear: FusedLinear,
    nn.BatchNorm2d: FusedBatchNorm2d,
    nn.Dropout: FusedDropout,
    Shortcut: FusedShortcut,
}


def _stacked_bias(peers: Sequence[nn.Conv2d] | Sequence[nn.Linear]) -> nn.Parameter | None:
    biases = [peer.bias for peer in peers if peer.bias is not None]
    return nn.Parameter(_stack(biases)) if biases else None


def _stack(peers: Sequence[Tensor]) -> Tensor:
    """One tensor [K * first axis, ...], or [K] of scalars, of which the peers become views."""
    whole = torch.cat(
        [peer.detach().view(-1) if peer.dim() == 0 else peer.detach() for peer in peers]
    )
    for peer, part in zip(peers, whole.chunk(len(peers)), strict=True):
        peer.data = part.view(peer.shape) if peer.dim() == 0 else part
    return whole
