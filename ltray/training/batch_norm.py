"""BatchNorm over the whole batch of a group, each process of which has a part of the rows.

B images of this process, C channels, H W pixels; N values of a channel over all processes. torch's
own SyncBatchNorm trains on GPUs only, and what cannot run on a CPU could not be tested on one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from ltray.errors import LtrayError
from ltray.group import Group

KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def synchronise(model: nn.Module, group: Group) -> None:
    """Let every BatchNorm of a model normalise by the mean and variance of the whole batch.

    Parameters and buffers stay the same tensors under the same names.

    Raises:
        LtrayError: a BatchNorm is of a class that is not torch's own.
    """
    for name, module in list(model.named_modules()):
        if type(module) in KNOWN:
            model.set_submodule(name, SynchronisedBatchNorm(module, group))
        elif isinstance(module, _BatchNorm):
            found = f"{name} is a {type(module).__name__}, which sees one process's images only"
            raise LtrayError("sweep.dense_gpus", found, "write 1, or use torch's own BatchNorm")


class SynchronisedBatchNorm(nn.Module):
    """What a BatchNorm of the whole batch computes for this process's part of it.

    Args:
        alone: whose parameters, buffers and settings it takes over.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, alone: _BatchNorm, group: Group) -> None:
        super().__init__()
        self.group = group
        self.eps, self.momentum = alone.eps, alone.momentum
        self.weight, self.bias = alone.weight, alone.bias
        for name, buffer in alone.named_buffers(recurse=False):
            self.register_buffer(name, buffer)
        self.tracks = alone.track_running_stats
        self.training = alone.training

    def forward(self, images: Tensor) -> Tensor:
        """[B, C] or [B, C, H, W] -> the same shape."""
        if not self.training:  # by itself: processes may have other numbers of batches
            mean = self.running_mean if self.tracks else None
            variance = self.running_var if self.tracks else None
            return functional.batch_norm(
                images, mean, variance, self.weight, self.bias, not self.tracks, 0.0, self.eps
            )
        made: Tensor
        made, mean, variance, count = _Normalise.apply(
            images, self.weight, self.bias, self.eps, self.group
        )
        if self.tracks:
            self._track(mean, variance * count / (count - 1))
        return made

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:  # then the running statistics are the mean over all batches
            share = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased_variance.to(self.running_var.dtype), share)


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0913, PLR0917 (what a BatchNorm knows)
        ctx: Any,
        images: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        group: Group,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The normalised images, and of all N values: mean [C], variance [C], N."""
        mean, variance, count = _statistics(images, group)
        ctx.mark_non_differentiable(mean, variance, count)
        ctx.save_for_backward(images, weight, mean, (variance + eps).rsqrt(), count)
        ctx.group = group
        made = functional.batch_norm(images, mean, variance, weight, bias, False, 0.0, eps)
        return made, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_none: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the whole batch's BatchNorm, for this process's images.

        Those of weight and bias are sums over this process's images only: they are added up with
        all other gradients.

        Source: Ioffe & Szegedy 2015, section 3 (arXiv 1502.03167), with sums over all processes.
        """
        images, weight, mean, inverse, count = ctx.saved_tensors
        gradient = gradient.to(mean.dtype)
        normalised = (images.to(mean.dtype) - _broad(mean, images)) * _broad(inverse, images)
        axes = _axes(images)
        own = torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])
        sums = own.clone()
        ctx.group.add_up(sums)
        means = sums / count
        scale = inverse if weight is None else inverse * weight
        inner = gradient - _broad(means[0], images) - normalised * _broad(means[1], images)
        of_images = (inner * _broad(scale, images)).to(images.dtype)
        of_weight, of_bias = (own[1], own[0]) if weight is not None else (None, None)
        return of_images, of_weight, of_bias, None, None


def _statistics(images: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [C] and biased variance [C] of all processes' images, and their N as a tensor [].

    Each process's own are combined, not its sums of squares: these would lose the digits of a
    variance that is small beside the mean.

    Source: Chan, Golub & LeVeque 1983, equation 2.1.
    """
    exact = images.to(torch.promote_types(images.dtype, torch.float32))
    variance, mean = torch.var_mean(exact, _axes(images), correction=0)
    count = torch.full_like(mean[:1], images.numel() // images.shape[1], dtype=torch.float64)
    every = group.every(torch.cat([mean.double(), variance.double(), count]))
    counts = every[:, -1:]
    means, variances = every[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    whole_mean = (counts * means).sum(0) / total
    whole_variance = (counts * (variances + (means - whole_mean) ** 2)).sum(0) / total
    return whole_mean.to(mean.dtype), whole_variance.to(mean.dtype), total.to(mean.dtype)


def _axes(images: Tensor) -> list[int]:
    """All but the channels'."""
    return [axis for axis in range(images.dim()) if axis != 1]


def _broad(of_channels: Tensor, images: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1], as the images have axes."""
    return of_channels.view(1, -1, *[1] * (images.dim() - 2))
