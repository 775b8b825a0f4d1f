"""A person's own criterion: one function of one file, which gives scores."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ltray.errors import LtrayError
from ltray.lottery.criteria import Batch, Batches
from ltray.models.seeding import random_numbers_of
from ltray.own_code import OwnCode, its_error, load
from ltray.tensors import Tensors


def own_scores(
    code: OwnCode, network: nn.Module, names: Sequence[str], batches: Batches, seed: int
) -> Tensors:
    """What a person's function gives for the weights that can be pruned.

    Args:
        code: what is run is what was read, wherever its file is now.
        network: on the CPU in training mode, with the weights that are scored; may be changed.
        names: of the tensors that are scored.
        batches: the first of training, read each time that the function goes through them.
        seed: of torch's random numbers while it runs.

    Raises:
        LtrayError: it fails, or gives anything but a finite score for every weight.
        Exception: the batches cannot be read.
    """
    with random_numbers_of(0):  # what the file draws while it is run is the same everywhere
        function = load(code)
    shapes = {name: tuple(network.get_parameter(name).shape) for name in names}
    read = _Read(batches)
    try:
        with random_numbers_of(seed), _settings_kept():
            found = function(network=network, names=tuple(names), batches=read)
    except (Exception, SystemExit) as error:
        if error is read.error:
            raise
        raise its_error(code.path, error, f"{code.function} failed") from error
    if not isinstance(found, dict):
        raise _wrong(code, f"gives a {type(found).__name__}, not a dict")
    for name in shapes:
        if name not in found:
            raise _wrong(code, f"gives no scores for '{name}'")
    for name in found:
        if name not in shapes:
            raise _wrong(code, f"gives scores for {name!r}, which is none of names")
    return {name: _checked(code, name, found[name], shape) for name, shape in shapes.items()}


class _Read:
    """Batches as a person's function sees them, and what reading them raised, if anything."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Batch]:
        try:
            yield from self._batches
        except Exception as error:
            self.error = error
            raise


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Put back what of torch's a function may have set for the whole process."""
    kind, gradients, threads = (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )
    try:
        yield
    finally:
        torch.set_default_dtype(kind)
        torch.set_grad_enabled(gradients)
        torch.set_num_threads(threads)


def _checked(code: OwnCode, name: str, scores: object, expected: tuple[int, ...]) -> torch.Tensor:
    if not isinstance(scores, torch.Tensor):
        raise _wrong(code, f"gives a {type(scores).__name__} for '{name}', not a tensor")
    if scores.is_complex() or scores.is_meta or scores.layout != torch.strided:
        kind = "meta" if scores.is_meta else f"{scores.dtype}, {scores.layout}"
        raise _wrong(code, f"gives a tensor for '{name}' that has no plain numbers: {kind}")
    if tuple(scores.shape) != expected:
        raise _wrong(code, f"gives scores of {tuple(scores.shape)} for '{name}', not {expected}")
    on_cpu = scores.detach().cpu().double()
    if not bool(torch.isfinite(on_cpu).all()):
        raise _wrong(code, f"gives scores for '{name}' that are not finite")
    return on_cpu


def _wrong(code: OwnCode, problem: str) -> LtrayError:
    mend = (
        f"have {code.function} return a dict of each of names to a tensor of the shape of"
        " network.get_parameter(name); larger is kept"
    )
    return LtrayError(code.key, f"{code.function} of {code.path} {problem}", mend)
