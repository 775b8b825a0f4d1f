"""Fully connected networks on a CPU, by their kept weights alone.

B images, F features. Between layers the features come first, [F, B]: a row of weights is then a sum
of few contiguous rows. Weights of a layer in compressed sparse rows (CSR); what is pruned is
neither computed nor updated, so it stays exactly zero.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ltray.training.backends.backend import Seats
from ltray.training.network import Network


def why_not(model: nn.Module) -> str | None:
    """Why a model cannot be trained so, or None."""
    if not isinstance(model, nn.Sequential):
        return f"the network is a {type(model).__name__}, not a sequence of layers"
    for name, layer in model.named_children():
        if not isinstance(layer, nn.Flatten | nn.Linear | nn.ReLU):
            return f"{name} is a {type(layer).__name__}"
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        return "it is not on a CPU"
    return None


class Csr:
    """Each network by itself, in float32 whatever precision the recipe allows."""

    def __init__(self, seats: Seats) -> None:
        self.seats = seats
        self.networks = [network for network in seats if network is not None]
        self._sparse = [_Sparse(network) for network in self.networks]

    def train_step(self, images: Tensor, labels: Tensor) -> None:
        features = _features_first(images)
        for one in self._sparse:
            one.train_step(features, labels)

    def train(self, mode: bool) -> None:
        """There is nothing that would know the difference."""

    @torch.no_grad()
    def logits(self, images: Tensor) -> Sequence[Tensor]:
        features = _features_first(images)
        return [one.logits(features) for one in self._sparse]

    def settle(self) -> None:
        for one in self._sparse:
            one.settle()


class _Sparse:
    """One network's layers and its optimizer, over kept weights."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._layers = [
            _Layer(network, name)
            for name, module in network.model.named_children()
            if isinstance(module, nn.Linear)
        ]
        self._kept = [kept for layer in self._layers for kept in layer.parameters]
        self._optimizer = network.recipe.optimizer([one.values for one in self._kept])
        for one in self._kept:
            state = network.optimizer.state.get(one.whole, {})
            self._optimizer.state[one.values] = {name: one.of(part) for name, part in state.items()}

    def train_step(self, features: Tensor, labels: Tensor) -> None:
        network = self._network
        network.prepare_step(self._optimizer)
        self._optimizer.zero_grad(set_to_none=True)
        smoothing = network.recipe.train.label_smoothing
        loss = functional.cross_entropy(self.logits(features), labels, label_smoothing=smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        network.loss_sum.add_(loss.detach())
        network.count_step()

    def logits(self, features: Tensor) -> Tensor:
        """[F, B] -> [B, classes]."""
        *hidden, output = self._layers
        for layer in hidden:
            features = functional.relu(layer.product(features))
        return output.product(features).t()

    @torch.no_grad()
    def settle(self) -> None:
        """Write weights and optimizer state back into the network's own."""
        for one in self._kept:
            one.write(one.values, one.whole)
            state = self._network.optimizer.state[one.whole]
            for name, part in self._optimizer.state[one.values].items():
                if part.shape == one.values.shape:
                    one.write(part, state.setdefault(name, torch.zeros_like(one.whole)))
                else:
                    state[name] = part.clone()  # Adam's step count


class _Kept:
    """The entries of a parameter that are trained, as a parameter of their own.

    Attributes:
        values: [kept], or the shape of the whole where nothing is pruned.
    """

    def __init__(self, whole: nn.Parameter, factor: Tensor | None) -> None:
        self.whole = whole
        self._index = None if factor is None else factor.flatten().nonzero().flatten()
        self.values = nn.Parameter(self.of(whole.detach()).clone())

    def of(self, part: Tensor) -> Tensor:
        """The kept entries of a tensor like the whole; any other as it is."""
        if self._index is None or part.shape != self.whole.shape:
            return part.clone()
        return part.flatten()[self._index]

    def write(self, values: Tensor, into: Tensor) -> None:
        """The opposite; what is pruned is zero there already."""
        if self._index is None:
            into.copy_(values)
        else:
            into.view(-1)[self._index] = values.detach()


class _Layer:
    """A Linear layer; its weight is sparse if its mask prunes any of it."""

    def __init__(self, network: Network, name: str) -> None:
        parameters, factor = network.parameters, network.factors.get(f"{name}.weight")
        self._weight = _Kept(parameters[f"{name}.weight"], factor)
        bias = parameters.get(f"{name}.bias")
        self._bias = None if bias is None else _Kept(bias, None)
        self._pattern = None if factor is None else _Pattern(factor)
        self.parameters = [self._weight] + ([self._bias] if self._bias else [])

    def product(self, features: Tensor) -> Tensor:
        """[F, B] -> [O, B]."""
        weight = self._weight.values
        if self._pattern is None:
            made = weight @ features
        else:
            made = _SparseProduct.apply(weight, features, self._pattern)
        return made if self._bias is None else made + self._bias.values[:, None]


class _Pattern:
    """Where a sparse weight [O, F] is not zero, by rows and by columns."""

    def __init__(self, factor: Tensor) -> None:
        self._by_rows = _compressed(factor)
        self._by_columns = _compressed(factor.t())
        numbers = torch.zeros_like(factor, dtype=torch.int64)
        numbers[factor != 0] = torch.arange(int(factor.count_nonzero()))
        self._order = numbers.t()[factor.t() != 0]
        self._shape = factor.shape
        with warnings.catch_warnings():  # once per process torch says that this is in beta
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support")
            self.matrix(factor[factor != 0])

    def matrix(self, values: Tensor) -> Tensor:
        """[O, F] of its values."""
        return torch.sparse_csr_tensor(*self._by_rows, values, self._shape, check_invariants=False)

    def transposed(self, values: Tensor) -> Tensor:
        """[F, O]."""
        shape = self._shape[::-1]
        return torch.sparse_csr_tensor(
            *self._by_columns, values[self._order], shape, check_invariants=False
        )


class _SparseProduct(torch.autograd.Function):
    """A sparse [O, F] times a dense [F, B]; the gradient of the weight has its kept entries."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, features: Tensor, pattern: _Pattern) -> Tensor:
        ctx.save_for_backward(values, features)
        ctx.pattern = pattern
        return pattern.matrix(values) @ features

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        values, features = ctx.saved_tensors
        (gradient,) = gradients
        by_weight = torch.sparse.sampled_addmm(
            ctx.pattern.matrix(values), gradient, features.t(), beta=0.0
        ).values()
        by_features = None
        if ctx.needs_input_grad[1]:
            by_features = ctx.pattern.transposed(values) @ gradient
        return by_weight, by_features, None


def _compressed(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Where each row begins, and the column of each entry."""
    kept = factor != 0
    ends = kept.sum(1).cumsum(0).int()
    columns = kept.nonzero()[:, 1].int()
    return functional.pad(ends, (1, 0)), columns


def _features_first(images: Tensor) -> Tensor:
    """[B, C, H, W] -> [F, B]."""
    return images.flatten(1).t().contiguous()
