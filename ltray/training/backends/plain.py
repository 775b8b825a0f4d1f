"""What a backend that computes a model's layers in its own way would miss."""

import torch
from torch import Tensor, nn


def why_not_plain(model: nn.Module) -> str | None:
    """Why a model may be more than its layers one by one, or None.

    Layers under two names with weights in them are refused before, when a network is built.
    """
    for name, module in model.named_modules():
        if _has_hooks(module) or "forward" in vars(module):
            return f"{name or 'the network'} has a hook"
        for part in ("weight", "bias"):
            own = getattr(module, part, None)
            if isinstance(own, Tensor) and not isinstance(own, nn.Parameter):
                return f"{name}.{part} is no parameter"
    for name, parameter in model.named_parameters():
        if parameter._backward_hooks or parameter._post_accumulate_grad_hooks:
            return f"{name} has a hook"
        if not parameter.requires_grad:
            return f"{name} is kept from training"
        if not (parameter.is_contiguous() or _is_channels_last(parameter)):
            return f"{name} does not lie in memory in its own order"
    places = [id(module) for _, module in model.named_modules(remove_duplicate=False)]
    return "a layer of it stands in two places" if len(set(places)) < len(places) else None


def flattens_images(layer: nn.Module) -> bool:
    """Whether a layer makes [B, F] of [B, C, H, W]."""
    return type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1)


def _is_channels_last(parameter: nn.Parameter) -> bool:
    last = torch.channels_last
    return parameter.dim() == 4 and parameter.is_contiguous(memory_format=last)


def _has_hooks(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )
