"""An exported ticket: a folder of plain files that any PyTorch program can load and keep sparse.

Needs torch and safetensors alone, and torchvision for the networks that are torchvision's: an
exported folder has this module, and what it takes from others, as one file of its own.

name -> tensor in every mapping; a mask's tensors are bool, True = kept.
B images, H W pixels, C channels, S pixels per side as the network sees them.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load
from torch import nn
from torch.nn.utils import prune

from ltray.errors import LtrayError, did_you_mean
from ltray.models.networks import construct
from ltray.models.seeding import random_numbers_of

FORMAT = 1
ABOUT = "ticket.json"
MASK = "mask.safetensors"
WEIGHTS = {"start": "start.safetensors", "trained": "model.safetensors"}
OWN_HASH = "sha256_of_all_else"  # in ticket.json

State = dict[str, torch.Tensor]


def load_ticket(
    folder: Path | str,
    weights: Literal["trained", "start"] = "trained",
    network: Callable[..., nn.Module] | None = None,
) -> tuple[nn.Module, State]:
    """The network of an exported ticket, on the CPU and in evaluation mode, and its mask.

    The files' SHA-256 are compared with those in ticket.json: this finds accidents, and no attack.

    Args:
        folder: as `python -m ltray.export` wrote it.
        weights: what it was trained to, or what its training started with. Both are masked.
        network: makes the network where that was a person's own: called with `classes`,
            `channels` and `image_size`. Code is never taken from the folder.

    Returns:
        a module that maps float images [B, C, S, S] to logits [B, classes]; the mask of its
        prunable weights.

    Raises:
        LtrayError: a file is missing or has changed, or `network` is missing or does not fit.
    """
    return load_described(_path(folder), read_about(folder), weights, network)


def load_described(
    place: Path,
    about: Mapping[str, Any],
    weights: str,
    network: Callable[..., nn.Module] | None = None,
) -> tuple[nn.Module, State]:
    """`load_ticket` of a folder whose ticket.json says `about`."""
    if weights not in WEIGHTS:
        raise LtrayError("weights", f"there are no '{weights}' ones", "ask for trained or start")
    state = _read_tensors(place, WEIGHTS[weights], about)
    model = _network(place, about["network"], network)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        mend = "pass network= the function that the ticket was trained with"
        raise LtrayError(str(place), f"the network does not fit: {error}", mend) from error
    return model.eval(), _read_tensors(place, MASK, about)


def read_about(folder: Path | str) -> dict[str, Any]:
    """What ticket.json says: network, images, results, recipe and where the ticket comes from.

    Raises:
        LtrayError: it is missing, has changed, or is of a version that is not known here.
    """
    path = _path(folder) / ABOUT
    try:
        about = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        mend = "name the folder that `python -m ltray.export` wrote"
        raise LtrayError(str(folder), f"is no exported ticket: it has no {ABOUT}", mend) from None
    except ValueError as error:
        raise _changed(path, str(error)) from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        found = f"is not of format {FORMAT}, the only one that this version reads"
        raise LtrayError(str(path), found, "use the load_ticket.py beside it")
    if about.get(OWN_HASH) != hash_of(about):
        raise _changed(path, "its own hash is another")
    return about


def hash_of(about: Mapping[str, Any]) -> str:
    """The SHA-256 of everything in ticket.json but the place where this is written."""
    rest = {key: value for key, value in about.items() if key != OWN_HASH}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def network_inputs(folder: Path | str, pixels: Any) -> torch.Tensor:
    """What the network was shown for such images when it was evaluated: the centre, normalised.

    Args:
        folder: of the exported ticket.
        pixels: uint8 [B, H, W, C], a tensor or an array, in the size of the ticket's data set;
            larger is cropped.

    Returns:
        float32 [B, C, S, S].

    Raises:
        LtrayError: they are of another kind, or too small.
    """
    images = read_about(folder)["images"]
    size, channels = images["crop_size"], images["channels"]
    given: torch.Tensor = torch.as_tensor(pixels)
    fits = given.dtype == torch.uint8 and given.dim() == 4 and given.shape[3] == channels
    if not fits or min(given.shape[1:3]) < size:
        found = f"{given.dtype} {list(given.shape)}"
        mend = f"give uint8 [B, H, W, {channels}] of at least {size} x {size} pixels"
        raise LtrayError("pixels", found, mend)
    top, left = ((side - size) // 2 for side in given.shape[1:3])
    centre = given[:, top : top + size, left : left + size].float()
    mean, std = (torch.tensor(images[key], device=given.device) for key in ("mean", "std"))
    return ((centre - mean) / std).permute(0, 3, 1, 2)


@torch.no_grad()
def apply_mask(model: nn.Module, mask: Mapping[str, torch.Tensor]) -> None:
    """Set the masked weights of a network to zero, in place.

    Raises:
        LtrayError: the network has no such weights.
    """
    for name, parameter in _parameters(model, mask).items():
        parameter.masked_fill_(~mask[name].to(parameter.device), 0)


def keep_masked(
    optimizer: torch.optim.Optimizer, model: nn.Module, mask: Mapping[str, torch.Tensor]
) -> None:
    """Let a training loop of any kind leave masked weights at exactly zero.

    From now on gradients are masked when they come and before each `optimizer.step()`, so that no
    momentum or moment of a masked weight grows, and the weights after it. What there is by now is
    masked at once. Frozen weights may be unfrozen later, and added to the optimizer then.

    Args:
        optimizer: any of torch's interface, with the network's own parameters.

    Raises:
        LtrayError: the network has no such weights, or none of them is the optimizer's.
    """
    apply_mask(model, mask)
    held = {id(one) for group in optimizer.param_groups for one in group["params"]}
    gone = {weight: ~mask[name] for name, weight in _parameters(model, mask).items()}
    if gone and not any(id(weight) in held for weight in gone):
        mend = "make it of model.parameters(), of this very model"
        raise LtrayError("optimizer", "has none of the masked weights", mend)

    kept = _Kept(gone)
    kept.clear_state(optimizer)
    kept.watch_gradients()
    optimizer.register_step_pre_hook(kept.clear_gradients)
    optimizer.register_step_post_hook(kept.clear_weights)


class _Kept:
    """Weights that stay zero where a mask takes them out.

    Args:
        gone: weight -> True where it is taken out.
    """

    def __init__(self, gone: dict[nn.Parameter, torch.Tensor]) -> None:
        self._gone = gone
        self._watched: set[nn.Parameter] = set()

    def watch_gradients(self) -> None:
        """Clear them when they come, which is within a step where that is given a closure.

        A frozen weight cannot be watched.
        """
        for weight in self._gone:
            if weight.requires_grad and weight not in self._watched:
                weight.register_post_accumulate_grad_hook(self._clear_gradient)  # type: ignore[no-untyped-call]
                self._watched.add(weight)

    def clear_gradients(self, *_: Any) -> None:
        self.watch_gradients()
        for weight in self._gone:
            self._clear_gradient(weight)

    @torch.no_grad()
    def clear_weights(self, *_: Any) -> None:
        for weight in self._gone:
            self._clear(weight, weight)

    def clear_state(self, optimizer: torch.optim.Optimizer) -> None:
        for weight in self._gone:
            for value in optimizer.state.get(weight, {}).values():
                self._clear(weight, value)

    def _clear_gradient(self, weight: nn.Parameter) -> None:
        self._clear(weight, weight.grad)

    def _clear(self, weight: nn.Parameter, value: object) -> None:
        if isinstance(value, torch.Tensor) and value.shape == weight.shape:
            gone = self._gone[weight] = self._gone[weight].to(value.device)
            value.masked_fill_(gone, 0)


def to_torch_prune(model: nn.Module, mask: Mapping[str, torch.Tensor]) -> None:
    """Hand a mask over to torch.nn.utils.prune, in place: each weight becomes weight_orig x mask.

    That makes this product when a layer is called. Here it is also made when the network is: where
    attention reads a layer's weight without calling the layer, it would stay as it was.

    Raises:
        LtrayError: the network has no such weights.
    """
    for name, parameter in _parameters(model, mask).items():
        module, _, weight = name.rpartition(".")
        part = mask[name].to(parameter.device)
        prune.custom_from_mask(model.get_submodule(module), weight, part)  # type: ignore[no-untyped-call]
    model.register_forward_pre_hook(_make_products)


def _make_products(model: nn.Module, _inputs: Any) -> None:
    """weight_orig x mask of every layer that is still pruned."""
    for module in model.modules():
        for hook in module._forward_pre_hooks.values():
            if isinstance(hook, prune.BasePruningMethod):
                product = hook.apply_mask(module)  # type: ignore[no-untyped-call]
                setattr(module, hook._tensor_name, product)


def _parameters(model: nn.Module, mask: Mapping[str, torch.Tensor]) -> dict[str, nn.Parameter]:
    """The parameters that a mask is about."""
    parameters = dict(model.named_parameters())
    for name, part in sorted(mask.items()):
        if name not in parameters:
            near = did_you_mean(name, list(parameters))
            mend = "give the network itself, not what wraps it, and the mask that came with it"
            raise LtrayError("mask", f"the network has no parameter '{name}'{near}", mend)
        if parameters[name].shape != part.shape:
            shape = list(parameters[name].shape)
            found = f"'{name}' is {shape} and {list(part.shape)} in the mask"
            raise LtrayError("mask", found, "give the mask that came with the network")
    return {name: parameters[name] for name in mask}


def _network(
    folder: Path, described: Mapping[str, Any], network: Callable[..., nn.Module] | None
) -> nn.Module:
    sizes = {key: described[key] for key in ("classes", "channels", "image_size")}
    with random_numbers_of(0):  # its weights are replaced; the caller's random numbers are not
        if network is not None:
            return network(**sizes)
        if described["own"]:
            found = f"its network was made by a person's own function, {described['arch']}"
            mend = "read the copy of that file in the folder, and pass network= the function"
            raise LtrayError(str(folder), found, mend)
        return construct(described["arch"], **sizes)


def _read_tensors(folder: Path, name: str, about: Mapping[str, Any]) -> State:
    path = folder / name
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise LtrayError(str(path), "is missing", "copy the whole folder again") from None
    if hashlib.sha256(content).hexdigest() != about["sha256"][name]:
        raise _changed(path, f"its SHA-256 is not the one in {ABOUT}")
    return load(content)


def _path(folder: Path | str) -> Path:
    """What is a path already may lie in an object store, and must stay what it is."""
    return Path(folder) if isinstance(folder, str) else folder


def _changed(path: Path, how: str) -> LtrayError:
    return LtrayError(str(path), f"has changed since it was exported: {how}", "copy it again")
