"""What a weight is worth: name -> weights to name -> scores, larger is kept.

name -> tensor in every mapping. B images, C channels, S pixels per side, L the mean loss of a
batch, theta the weights that can be pruned, g the gradient of L by them and H its second
derivative.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from ltray.errors import LtrayError
from ltray.experiment import Prune
from ltray.lottery.masks import Mask, make_mask
from ltray.models.seeding import random_numbers_of
from ltray.randomness import seed_for, uniforms
from ltray.tensors import Tensors

Batch = tuple[torch.Tensor, torch.Tensor]
"""Normalised images [B, C, S, S] and labels [B]."""


class Batches(Protocol):
    """Batches that can be gone through again."""

    def __iter__(self) -> Iterator[Batch]: ...


GRASP_TEMPERATURE = 200.0
SYNFLOW_ROUNDS = 100


def magnitude(weights: Tensors) -> Tensors:
    """Absolute values of the weights.

    Source: Han et al. 2015 (arXiv 1506.02626); Frankle & Carbin 2019 (arXiv 1803.03635).
    """
    return {name: tensor.abs() for name, tensor in weights.items()}


def random(weights: Tensors, seed: int) -> Tensors:
    """Numbers that have nothing to do with the weights: all weights are equally likely kept."""
    return {name: _uniforms(seed, name, tensor.shape) for name, tensor in weights.items()}


def snip(network: nn.Module, names: Sequence[str], batches: Batches, seed: int) -> Tensors:
    """|theta x g|: how much the loss changes, to first order, when a weight goes.

    Args:
        network: in training mode, so that BatchNorm normalises by the batch; its statistics change.
        names: of theta.
        batches: the gradients of several are added up.
        seed: of dropout, which is another in each batch.

    Raises:
        LtrayError: all scores are zero, so that weights cannot be told apart.

    Source: Lee, Ajanthan & Torr 2019, section 4.1 (arXiv 1810.02340).
    """
    weights = _named(network, names)
    losses = _Losses(network, batches, seed)
    gradients = _summed(torch.autograd.grad(loss, list(weights.values())) for loss in losses)
    scores = zip(weights.items(), gradients, strict=True)
    found = {name: (weight * gradient).abs().detach() for (name, weight), gradient in scores}
    return _told_apart("snip", found)


def grasp(network: nn.Module, names: Sequence[str], batches: Batches, seed: int) -> Tensors:
    """theta x Hg: what a weight's going takes from the gradient's length, to first order.

    The paper's score is its negative, of which the largest are removed. Logits are divided by its
    temperature of 200 first.

    Args:
        network, names, batches, seed: as of `snip`; batches are gone through twice.

    Raises:
        LtrayError: as of `snip`.

    Source: Wang, Zhang & Grosse 2020, section 4 (arXiv 2002.07376).
    """
    weights = _named(network, names)
    values = list(weights.values())
    losses = _Losses(network, batches, seed, GRASP_TEMPERATURE)
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        gradients = _summed(torch.autograd.grad(loss, values) for loss in losses)
        products = _summed(_hessian_times(loss, values, gradients) for loss in losses)
    scores = zip(weights.items(), products, strict=True)
    found = {name: (weight * product).detach() for (name, weight), product in scores}
    return _told_apart("grasp", found)


def synflow(network: nn.Module, names: Sequence[str], image: torch.Size) -> Tensors:
    """|theta x dR/dtheta|, R the sum of what an image of ones gives in a network of |weights|.

    In double precision and in evaluation mode, as the authors' own code does. What is added to the
    signal on its way, biases and BatchNorm's means, is taken out, so that R is the paper's product
    of |theta|. Their code leaves it in by its absolute value; flow that begins there lets layers
    before it go altogether.

    Args:
        network: changed: pass a copy.
        names: of theta.
        image: [C, S, S].

    Source: Tanaka et al. 2020, section 6 (arXiv 2006.05467).
    """
    network.double().eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.zeros_like(tensor) if _is_added(name) else tensor.abs())
    weights = _named(network, names)
    flow = network(torch.ones(1, *image, dtype=torch.float64)).sum()
    gradients = torch.autograd.grad(flow, list(weights.values()))
    scores = zip(weights.items(), gradients, strict=True)
    return {name: (weight * gradient).abs().detach() for (name, weight), gradient in scores}


def synflow_mask(  # noqa: PLR0913, PLR0917 (what is pruned, and how far)
    network: nn.Module,
    names: Sequence[str],
    image: torch.Size,
    prune: Prune,
    density: Decimal,
    output_layer: str,
) -> Mask:
    """Prune by `synflow` in 100 rounds, each of what the round before has left.

    Round k keeps density ** (k / 100). What is gone has no score and stays gone; so masks of two
    densities come by two ways, and the sparser need not be a subset of the denser.

    Args:
        network, names, image: as of `synflow`.
        prune, density, output_layer: as of `make_mask`.

    Raises:
        LtrayError: nothing flows through some tensor, so that its weights cannot be told apart.

    Source: Tanaka et al. 2020, algorithm 1 (arXiv 2006.05467).
    """
    weights = _named(network, names)
    mask = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    for number in range(1, SYNFLOW_ROUNDS + 1):
        scores = synflow(network, names, image)
        if number == 1:
            _check_flow(scores)
        left = {name: scores[name].where(mask[name], -1.0) for name in names}
        share = (
            density ** (Decimal(number) / SYNFLOW_ROUNDS) if number < SYNFLOW_ROUNDS else density
        )
        mask = make_mask(left, prune, share, output_layer)
        with torch.no_grad():
            for name, weight in weights.items():
                weight.mul_(mask[name])
    return mask


def _is_added(name: str) -> bool:
    """Whether a tensor of a network's state is added to the signal, by the names torch gives."""
    last = name.rpartition(".")[2]
    return last.endswith("bias") or last == "running_mean"


def _check_flow(scores: Tensors) -> None:
    still = [name for name, part in scores.items() if not bool(part.any())]
    if still:
        more = f" and {len(still) - 1} more" if len(still) > 1 else ""
        found = (
            f"synflow gives {still[0]}{more} nothing but zeros: ReLU6 and the gates of"
            " squeeze-and-excitation are at their ceiling when all weights are positive, and an"
            " output layer of zeros lets nothing through"
        )
        raise LtrayError("prune.criterion", found, "choose another one for this network")


def _told_apart(criterion: str, scores: Tensors) -> Tensors:
    """The scores, if any is not zero: of zeros alone, masks would go by the tensors' names."""
    if any(bool(part.any()) for part in scores.values()):
        return scores
    found = (
        f"{criterion} gives nothing but zeros: an output layer that starts with zeros, as those of"
        " torchvision's vit_*, lets no gradient through"
    )
    mend = "write prune.scores: reset, with reset points after the first step, or another criterion"
    raise LtrayError("prune.criterion", found, mend)


def _named(network: nn.Module, names: Sequence[str]) -> dict[str, nn.Parameter]:
    return {name: network.get_parameter(name) for name in names}


@dataclass(frozen=True)
class _Losses:
    """The cross-entropy of each batch, as often as one goes through them.

    Dropout is a function of the seed and the batch's position.
    """

    network: nn.Module
    batches: Batches
    seed: int
    temperature: float = 1.0

    def __iter__(self) -> Iterator[torch.Tensor]:
        for number, (images, labels) in enumerate(self.batches):
            with random_numbers_of(seed_for(self.seed, "dropout of scores", number)):
                logits = self.network(images) / self.temperature
            yield functional.cross_entropy(logits, labels)


def _hessian_times(
    loss: torch.Tensor, weights: Sequence[torch.Tensor], vector: Sequence[torch.Tensor]
) -> Sequence[torch.Tensor]:
    gradients = torch.autograd.grad(loss, weights, create_graph=True)
    products = [(one * other).sum() for one, other in zip(gradients, vector, strict=True)]
    return torch.autograd.grad(products, weights)


def _summed(terms: Iterable[Sequence[torch.Tensor]]) -> list[torch.Tensor]:
    """Tensor by tensor."""
    total: list[torch.Tensor] = []
    for term in terms:
        total = (
            [one + other for one, other in zip(total, term, strict=True)] if total else list(term)
        )
    return total


def _uniforms(seed: int, name: str, shape: torch.Size) -> torch.Tensor:
    numbers = uniforms(seed_for(seed, "random criterion", name), np.arange(shape.numel()))
    return torch.from_numpy(numbers).reshape(shape)
