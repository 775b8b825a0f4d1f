"""A person's own networks: built by their function, tried out before anything is trained.

B images, C channels, S pixels per side.
"""

from collections.abc import Mapping
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ltray.errors import LtrayError
from ltray.models.prunable import computed_weights, prunable
from ltray.models.seeding import random_numbers_of
from ltray.own_code import OwnCode, its_error, load

TRIED_WITH = 2  # images: BatchNorm cannot train on a single value


def own_network(
    code: OwnCode, classes: int, channels: int, image_size: int, seed: int
) -> nn.Module:
    """What a person's function gives, with the initial weights of a seed.

    Raises:
        LtrayError: the file cannot be run here, or the function fails or gives no module.
    """
    with random_numbers_of(0):  # what the file draws while it is run is the same everywhere
        function = load(code)
    arguments = {"classes": classes, "channels": channels, "image_size": image_size}
    try:
        with random_numbers_of(seed):
            network = function(**arguments)
    except Exception as error:
        written = ", ".join(f"{name}={value}" for name, value in arguments.items())
        raise its_error(code.path, error, f"{code.function}({written}) failed") from error
    if not isinstance(network, nn.Module):
        raise _wrong(code, f"gives a {type(network).__name__}, not a torch.nn.Module")
    return network.train()


@cache
def check_own_network(code: OwnCode, classes: int, channels: int, image_size: int) -> None:
    """Build a network and let images through, forth and back, as training will; once per process.

    On the CPU and with real numbers: on the meta device a forward that asks for a value or makes a
    tensor of its own fails though it is right, and one that needs another memory layout does not.

    Raises:
        LtrayError: it cannot be trained and pruned, or its weights are not the seed's alone.
    """
    one, again = (own_network(code, classes, channels, image_size, seed=0) for _ in range(2))
    _check_state(code, one, again)
    # The layout in which it will be trained.
    one.to(memory_format=torch.channels_last)
    with random_numbers_of(0):
        images = torch.rand(TRIED_WITH, channels, image_size, image_size)
        images = images.contiguous(memory_format=torch.channels_last)
        one.eval()
        _tried(code, one, images, classes)
        one.train()
        _tried(code, one, images, classes).sum().backward()  # type: ignore[no-untyped-call]
    _check_prunable(code, one)


def _check_state(code: OwnCode, network: nn.Module, again: nn.Module) -> None:
    """Two networks of one seed must be equal, and all that is in them must fit into a file."""
    state, other = network.state_dict(), again.state_dict()
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise _wrong(code, f"keeps '{name}' in its state, which is no tensor")
        if is_lazy(tensor):
            mend = "give its layer the size of what comes in, or let an image through in it"
            raise _wrong(code, f"has '{name}', whose shape is not known yet", mend)
    for name, parameter in network.named_parameters():
        _check_parameter(code, name, parameter)
    for one, next_one in _overlapping(state):
        raise _wrong(code, f"has memory under two names, '{one}' and '{next_one}'")
    for name, tensor in state.items():
        if name not in other or not _equal(tensor, other[name]):
            raise _wrong(
                code,
                f"gives '{name}' other values when it is called again with torch's same seed",
                "draw initial weights with torch alone, on the CPU, and set every one of them",
            )


def _check_parameter(code: OwnCode, name: str, parameter: nn.Parameter) -> None:
    """torch's one-kernel optimizers take a parameter's memory as it lies, and miss gaps in it."""
    if parameter.dtype not in (torch.float32, torch.float64):
        mend = "leave weights in float32; train.precision: bfloat16 computes with them in bfloat16"
        raise _wrong(code, f"has '{name}' in {str(parameter.dtype)[6:]}", mend)
    if parameter.numel() and _extent(parameter) != parameter.nbytes:
        mend = "make it of what .contiguous() gives"
        raise _wrong(code, f"has '{name}', a part of a larger tensor", mend)


def _overlapping(state: Mapping[str, Tensor]) -> list[tuple[str, str]]:
    """Names of neighbours in memory that have bytes in common, ordered by name, not by address."""
    filled = [(tensor.data_ptr(), name) for name, tensor in state.items() if tensor.numel()]
    return sorted(
        (one, next_one)
        for (start, one), (next_start, next_one) in pairwise(sorted(filled))
        if next_start < start + _extent(state[one])
    )


def _extent(tensor: Tensor) -> int:
    """Bytes from the first entry to the end of the last."""
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return (1 + sum((size - 1) * stride for size, stride in steps)) * tensor.element_size()


def _equal(one: Tensor, other: Tensor) -> bool:
    """Bit for bit; not-a-number is equal to itself."""
    return one.shape == other.shape and torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def _tried(code: OwnCode, network: nn.Module, images: Tensor, classes: int) -> Tensor:
    """The logits of images."""
    _, channels, _, size = images.shape
    mode = "training" if network.training else "evaluation"
    try:
        logits = network(images)
    except Exception as error:
        taken = f"cannot take images of {size} x {size} pixels and {channels} channels in {mode}"
        raise its_error(code.path, error, taken) from error
    expected = (len(images), classes)
    found = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if found != expected:
        raise _wrong(code, f"gives {found} for {len(images)} images in {mode}, not {expected}")
    if not logits.is_floating_point() or (network.training and not logits.requires_grad):
        raise _wrong(code, f"gives logits without a gradient ({logits.dtype}) in {mode}")
    return logits  # type: ignore[no-any-return]


def _check_prunable(code: OwnCode, network: nn.Module) -> None:
    """A weight without a gradient would be counted as prunable, and never be trained.

    One that is computed from others would not be counted, and be left out of every sparsity.
    """
    if computed := computed_weights(network):
        mend = "give these layers no norm and no parametrization of torch.nn.utils"
        problem = f"has weights that are computed from others: {', '.join(computed)}"
        raise _wrong(code, problem, mend)
    names = prunable(network)
    if not names:
        raise _wrong(code, "has no convolution and no linear layer, so nothing to prune")
    idle = [name for name in names if network.get_parameter(name).grad is None]
    if idle:
        mend = "take these layers out, or let what they give reach the logits"
        raise _wrong(code, f"has layers that are never trained: {', '.join(idle)}", mend)


def _wrong(code: OwnCode, problem: str, mend: str | None = None) -> LtrayError:
    expected = (
        f"have {code.function} return a torch.nn.Module that maps float images "
        "[B, channels, image_size, image_size] to logits [B, classes]"
    )
    return LtrayError(code.key, f"{code.function} of {code.path} {problem}", mend or expected)
