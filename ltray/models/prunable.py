"""Which tensors of a network can be pruned."""

from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ltray.errors import LtrayError, did_you_mean

IN_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def prunable(model: nn.Module, keep_dense: Sequence[str] = ()) -> tuple[str, ...]:
    """The names, as in state_dict, of the tensors that can be pruned.

    These are the weights of convolutions and linear layers and the input projections of attention;
    never biases, BatchNorm or embeddings. Of a tensor with several names the first one counts.

    Args:
        model: the network.
        keep_dense: names of tensors that are left out.

    Returns:
        Names in the order of their UTF-8 bytes.

    Raises:
        LtrayError: `keep_dense` holds a name that is not prunable, or all that are.
    """
    weights = dict(_weights(model))
    first_names: dict[int, str] = {}
    for name, weight in weights.items():
        first_names.setdefault(id(weight), name)
    for name in keep_dense:
        if name not in weights:
            raise _not_prunable(name, model, tuple(weights))
        first_names.pop(id(weights[name]), None)
    if keep_dense and not first_names:
        raise LtrayError(
            "prune.keep_dense",
            "names every prunable tensor, so that there is nothing to prune",
            "leave out at least one of " + ", ".join(weights),
        )
    # sorted() goes by code points, which is the order of UTF-8 bytes too.
    return tuple(sorted(first_names.values()))


def computed_weights(model: nn.Module) -> list[str]:
    """The weights of such layers that are no parameters, but made of others: by weight_norm, say.

    No mask could be laid on them.
    """
    return [
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        for name in _weight_names(module)
        if isinstance(getattr(module, name), Tensor)
        and name not in module._parameters
        and name not in module._buffers  # a fixed filter
    ]


def output_layer(model: nn.Module) -> str:
    """The name of the last layer's weight: the last linear layer or convolution, as registered."""
    weights = list(_weights(model))
    assert weights, "a network without linear layers and convolutions has no output layer"
    # Never attention's input projection: its output projection, a linear layer, comes after it.
    _, last = weights[-1]
    return next(name for name, weight in weights if weight is last)


def _weights(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """All prunable tensors in the order of their modules, shared ones under every name."""
    for path, module in model.named_modules(remove_duplicate=False):
        for name in _weight_names(module):
            weight = getattr(module, name)
            if isinstance(weight, nn.Parameter):
                yield f"{path}.{name}" if path else name, weight


def _weight_names(module: nn.Module) -> tuple[str, ...]:
    if isinstance(module, _ConvNd | nn.Linear):
        return ("weight",)
    if isinstance(module, nn.MultiheadAttention):
        return IN_PROJECTIONS
    return ()


def _not_prunable(name: str, model: nn.Module, known: Sequence[str]) -> LtrayError:
    exists = name in model.state_dict()
    found = "is never pruned" if exists else "is no tensor of the network"
    return LtrayError(
        "prune.keep_dense",
        f"'{name}' {found}{did_you_mean(name, known)}",
        "choose from " + ", ".join(known),
    )
