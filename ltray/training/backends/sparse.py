"""Fully connected networks of one mask by their kept weights alone.

T tickets, B images, F features, O outputs. All that is trained of a ticket is one vector: the kept
entries of its parameters one after the other, each in row-major order. Between layers the features
come first, [T, F, B]: a row of weights is then a sum of few contiguous rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ltray.training.backends.sparse_kernels import (
    Floats,
    Indices,
    compile_for,
    multiply,
    multiply_at_entries,
)
from ltray.training.network import Network

Numbers = NDArray[np.int64]


class SparseTickets:
    """Tickets of one mask, their vectors and the gradients of these.

    Args:
        networks: T fully connected networks.

    Attributes:
        vectors: each ticket's, [kept], with a `grad` that `backward` fills.
    """

    def __init__(self, networks: Sequence[Network]) -> None:
        self._networks = networks
        first = networks[0]
        self._pieces = _pieces(first)
        self._layers = _layers(first.model, {piece.name: piece for piece in self._pieces})
        every = torch.stack([self._vector(network.parameters) for network in networks])
        gradients = torch.zeros_like(every)
        self._values: Floats = every.numpy()
        self._gradients: Floats = gradients.numpy()
        self.vectors = [nn.Parameter(vector) for vector in every]
        for vector, gradient in zip(self.vectors, gradients, strict=True):
            vector.grad = gradient
        self._seen: list[Floats] = []
        compile_for(self._values.dtype)

    def outputs(self, images: Floats) -> Floats:
        """[T, O, B] of images [F, B]."""
        self._seen = [images[None]]
        *hidden, last = self._layers
        for layer in hidden:
            self._seen.append(self._multiplied(layer, relu=True))
        return self._multiplied(last, relu=False)

    def backward(self, gradient: Floats) -> None:
        """Give each vector its gradient, from that of the outputs, [T, O, B]."""
        for layer in reversed(self._layers):
            features = self._seen.pop()
            multiply_at_entries(*layer.by_rows, gradient, features, self._gradients)
            if layer.biases is not None:
                gradient.sum(axis=2, out=self._gradients[:, layer.biases])
            if layer.transpose is not None:
                gradient = self._transposed(layer.transpose, gradient, features)

    def _multiplied(self, layer: "_Layer", relu: bool) -> Floats:
        """Of what the layer before made."""
        features = self._seen[-1]
        made, starts = self._room(layer.size, features.shape[2])
        if layer.biases is not None:
            starts[:] = self._values[:, layer.biases]
        multiply(*layer.by_rows, self._values, starts, features, relu, made[:0], made)
        return made

    def _transposed(self, transpose: "_Transpose", gradient: Floats, features: Floats) -> Floats:
        """The gradient of a layer's features, which a ReLU has made."""
        made, starts = self._room(*features.shape[1:])
        values = np.take(self._values, transpose.order, axis=1)
        multiply(*transpose.by_rows, values, starts, gradient, False, features, made)
        return made

    def _room(self, rows: int, images: int) -> tuple[Floats, Floats]:
        """Of [T, rows, B] anything, of [T, rows] zeros."""
        # torch's memory begins with a cache line, numpy's does not: each wide load would need two.
        made = torch.empty(len(self.vectors), rows, images, dtype=self.vectors[0].dtype).numpy()
        return made, np.zeros(made.shape[:2], made.dtype)

    def restore(self, optimizer: torch.optim.Optimizer) -> None:
        """Let the optimizer of the vectors know what the networks' own know."""
        for network, vector in zip(self._networks, self.vectors, strict=True):
            state = optimizer.state[vector]
            for piece in self._pieces:
                whole = network.parameters[piece.name]
                for name, part in network.optimizer.state.get(whole, {}).items():
                    if part.shape == whole.shape:
                        into = state.setdefault(name, torch.zeros_like(vector))
                        into[piece.span] = part.view(-1)[piece.kept]
                    else:
                        state[name] = part.clone()  # Adam's step count

    @torch.no_grad()
    def settle(self, optimizer: torch.optim.Optimizer) -> None:
        """Write weights and optimizer state back; what is pruned is zero there already."""
        for network, vector in zip(self._networks, self.vectors, strict=True):
            for piece in self._pieces:
                whole = network.parameters[piece.name]
                whole.view(-1)[piece.kept] = vector[piece.span]
                state = network.optimizer.state[whole]
                for name, part in optimizer.state[vector].items():
                    if part.shape == vector.shape:
                        into = state.setdefault(name, torch.zeros_like(whole))
                        into.view(-1)[piece.kept] = part[piece.span]
                    else:
                        state[name] = part.clone()

    def _vector(self, parameters: dict[str, nn.Parameter]) -> Tensor:
        wholes = [parameters[piece.name].detach() for piece in self._pieces]
        kept = zip(wholes, self._pieces, strict=True)
        return torch.cat([whole.view(-1)[piece.kept] for whole, piece in kept])


def of_one_mask(networks: Sequence[Network]) -> Iterator[list[Network]]:
    """Neighbours with equal masks."""
    run: list[Network] = []
    for network in networks:
        if run and not _equal_masks(run[0], network):
            yield run
            run = []
        run.append(network)
    yield run


def _equal_masks(one: Network, other: Network) -> bool:
    return one.factors.keys() == other.factors.keys() and all(
        torch.equal(factor, other.factors[name]) for name, factor in one.factors.items()
    )


@dataclass(frozen=True)
class _Piece:
    """Where the kept entries of a parameter are.

    Attributes:
        kept: their numbers in the flattened parameter.
        span: their place in the ticket's vector.
    """

    name: str
    kept: Tensor
    span: slice


class _Rows(NamedTuple):
    """A matrix in compressed sparse rows, as the kernels take it.

    Attributes:
        ends: [rows + 1].
        places: the column of each entry.
    """

    ends: Indices
    places: Indices


@dataclass(frozen=True)
class _Transpose:
    """A layer's weights as [F, O].

    Attributes:
        by_rows: entries of what `order` picks from the vectors.
    """

    by_rows: _Rows
    order: Numbers


@dataclass(frozen=True)
class _Layer:
    """A Linear layer's place in the vectors.

    Attributes:
        size: outputs.
        by_rows: its weights [O, F] as entries of the vectors.
        transpose: none for the first layer, since nobody asks for the images' gradient.
    """

    size: int
    biases: slice | None
    by_rows: _Rows
    transpose: _Transpose | None


def _pieces(network: Network) -> list[_Piece]:
    made: list[_Piece] = []
    for name, parameter in network.parameters.items():
        first = made[-1].span.stop if made else 0
        factor = network.factors.get(name)
        every = torch.ones_like(parameter) if factor is None else factor
        kept = every.flatten().nonzero().flatten()
        made.append(_Piece(name, kept, slice(first, first + len(kept))))
    return made


def _layers(model: nn.Module, pieces: Mapping[str, _Piece]) -> list[_Layer]:
    """In the order in which features pass through them."""
    places = np.zeros(max(piece.span.stop for piece in pieces.values()), np.int32)
    layers: list[_Layer] = []
    for name, linear in model.named_modules():
        if isinstance(linear, nn.Linear):
            weights, biases = pieces[f"{name}.weight"], pieces.get(f"{name}.bias")
            outputs, features = np.divmod(weights.kept.numpy(), linear.in_features)
            places[weights.span] = features
            by_rows = _Rows(weights.span.start + _ends(outputs, linear.out_features), places)
            transpose = _transpose(outputs, features, linear, weights) if layers else None
            span = biases.span if biases else None
            layers.append(_Layer(linear.out_features, span, by_rows, transpose))
    return layers


def _transpose(
    outputs: Numbers, features: Numbers, linear: nn.Linear, weights: _Piece
) -> _Transpose:
    """Of the output and the feature of each entry."""
    order = np.argsort(features, kind="stable")
    columns = _Rows(_ends(features, linear.in_features), outputs[order].astype(np.int32))
    return _Transpose(columns, weights.span.start + order)


def _ends(row_of_each: Numbers, count: int) -> Indices:
    """[count + 1] of entries in the order of rows."""
    return np.cumsum(np.bincount(row_of_each + 1, minlength=count + 1)).astype(np.int32)
