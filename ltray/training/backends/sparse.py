"""Linear layers of K networks by their kept weights alone.

B images, F features, O outputs. Kept weights of a network lie in row-major order, the networks' one
after the other.

A sparse matrix times a dense one is a bag of embeddings for each row: a sum of rows of the dense
matrix, weighted by what is kept. torch computes such bags two to four times as fast as products of
its own sparse matrices.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

# The share of weights kept from which the gradient of all weights takes less time than that of the
# kept ones alone (benchmarks/backends.py); bfloat16 where the CPU has instructions for it.
WHOLE_FROM = 0.3
WHOLE_FROM_BFLOAT16 = 0.07


class SparseLinear:
    """One layer of all networks: [F, B] or [K * F, B] -> [K * O, B].

    Args:
        peers: the K layers.
        factors: their masks as 0.0 and 1.0; None where nothing is pruned.
        shared: all networks see the same features.
        bfloat16: whether products of gradients may be computed so.
    """

    def __init__(
        self,
        peers: Sequence[nn.Linear],
        factors: Sequence[Tensor | None],
        shared: bool,
        bfloat16: bool,
    ) -> None:
        masks = [
            torch.ones_like(peer.weight, dtype=torch.bool) if factor is None else factor != 0
            for peer, factor in zip(peers, factors, strict=True)
        ]
        self._pattern = _Pattern(masks, shared, bfloat16)
        self._weights = _Stack([peer.get_parameter("weight") for peer in peers], masks)
        self._biases = None
        if peers[0].bias is not None:
            every = [torch.ones_like(peer.bias, dtype=torch.bool) for peer in peers]
            self._biases = _Stack([peer.get_parameter("bias") for peer in peers], every)
        self.stacks = [self._weights] + ([self._biases] if self._biases else [])

    def product(self, features: Tensor) -> Tensor:
        """The layer's outputs."""
        made: Tensor = _SparseProduct.apply(self._weights.values, features, self._pattern)
        return made if self._biases is None else made + self._biases.values[:, None]


class Kept:
    """The entries of one network's parameter that are trained.

    Attributes:
        whole: the network's own parameter.
        values: [kept]; the optimizer's parameter, a view of all networks' values.
    """

    def __init__(self, whole: nn.Parameter, mask: Tensor, values: nn.Parameter) -> None:
        self.whole = whole
        self.values = values
        self._index = mask.flatten().nonzero().flatten()

    def of(self, part: Tensor) -> Tensor:
        """The kept entries of a tensor shaped like the whole; any other as it is."""
        return part.flatten()[self._index] if part.shape == self.whole.shape else part.clone()

    def write(self, values: Tensor, into: Tensor) -> None:
        """The opposite; what is pruned is zero there already."""
        into.view(-1)[self._index] = values.detach()


class _Stack:
    """Kept entries of K parameters end to end, as one tensor that gradients reach.

    Attributes:
        values: [kept of all].
        parts: one for each network.
    """

    def __init__(self, wholes: Sequence[nn.Parameter], masks: Sequence[Tensor]) -> None:
        entries = [whole.detach()[mask] for whole, mask in zip(wholes, masks, strict=True)]
        self._sizes = [part.numel() for part in entries]
        self.values = torch.cat(entries).requires_grad_()
        views = map(nn.Parameter, torch.split(self.values.detach(), self._sizes))
        self.parts = [Kept(*one) for one in zip(wholes, masks, views, strict=True)]

    def hand_out_gradients(self) -> None:
        """Each part gets its own; the next backward() starts afresh."""
        assert self.values.grad is not None, "a layer is not used"
        gradients = torch.split(self.values.grad, self._sizes)
        for part, gradient in zip(self.parts, gradients, strict=True):
            part.values.grad = gradient
        self.values.grad = None


class _Pattern:
    """Where a matrix of K blocks is not zero, by rows and, along a diagonal, by columns.

    Args:
        masks: K times [O, F] bool.
        shared: the blocks lie below each other, [K * O, F], and else along the diagonal,
            [K * O, K * F].
        bfloat16: whether products of gradients may be computed so.
    """

    def __init__(self, masks: Sequence[Tensor], shared: bool, bfloat16: bool) -> None:
        rows, columns = masks[0].shape
        self._count = len(masks)
        self._shared = shared
        self._by_rows = _bags(masks, 0 if shared else columns)
        if not shared:
            self._by_columns = _bags([mask.t() for mask in masks], rows)
            self._order = _order_by_columns(masks)
        self._shape = (len(masks) * rows, columns if shared else len(masks) * columns)
        self._kept = torch.cat([mask.flatten() for mask in masks]).nonzero().flatten()
        density = len(self._kept) / (len(masks) * rows * columns)
        self._bfloat16 = bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        self._whole = density > (WHOLE_FROM_BFLOAT16 if self._bfloat16 else WHOLE_FROM)

    def product(self, values: Tensor, features: Tensor) -> Tensor:
        """The matrix of these values, [kept of all], times [F, B] or [K * F, B]."""
        return _weighted_sums(self._by_rows, values, features)

    def transposed_product(self, values: Tensor, gradient: Tensor) -> Tensor:
        """Its transpose times [K * O, B]."""
        assert not self._shared, "nothing asks for the gradient of images"
        return _weighted_sums(self._by_columns, values.index_select(0, self._order), gradient)

    def gradient_of_values(self, values: Tensor, gradient: Tensor, features: Tensor) -> Tensor:
        """[kept of all]: products of rows of the gradient and of the features."""
        if self._whole:
            whole = self._whole_gradient(gradient, features)
            return whole.index_select(0, self._kept).to(values.dtype)
        bags = (self._by_rows.ends, self._by_rows.places)
        with warnings.catch_warnings():  # once per process torch says that this is in beta
            warnings.filterwarnings("ignore", message="Sparse")
            matrix = torch.sparse_csr_tensor(*bags, values, self._shape, check_invariants=False)
        sampled: Tensor = torch.sparse.sampled_addmm(matrix, gradient, features.t(), beta=0.0)
        return sampled.values()

    def _whole_gradient(self, gradient: Tensor, features: Tensor) -> Tensor:
        """[K * O * F], of what is pruned too: where much is kept that is faster."""
        if self._bfloat16:
            gradient, features = gradient.bfloat16(), features.bfloat16()
        if self._shared:
            return (gradient @ features.t()).flatten()
        each = features.view(self._count, -1, features.shape[1]).transpose(1, 2)
        return (gradient.view(self._count, -1, gradient.shape[1]) @ each).flatten()


class _Bags(NamedTuple):
    """Rows of a sparse matrix.

    Attributes:
        ends: [rows + 1], where in `places` each row begins, and the last one ends.
        places: [kept], the column of each entry.
    """

    ends: Tensor
    places: Tensor


class _SparseProduct(torch.autograd.Function):
    """A sparse matrix times a dense one; the gradient of its values has their length."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, features: Tensor, pattern: _Pattern) -> Tensor:
        ctx.save_for_backward(values, features)
        ctx.pattern = pattern
        return pattern.product(values, features)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        values, features = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        by_values = ctx.pattern.gradient_of_values(values, gradient, features)
        by_features = None
        if ctx.needs_input_grad[1]:
            by_features = ctx.pattern.transposed_product(values, gradient)
        return by_values, by_features, None


def _weighted_sums(bags: _Bags, values: Tensor, of: Tensor) -> Tensor:
    """[rows, B] of [columns, B]."""
    return functional.embedding_bag(
        bags.places,
        of,
        bags.ends,
        mode="sum",
        per_sample_weights=values,
        include_last_offset=True,
    )


def _bags(masks: Sequence[Tensor], stride: int) -> _Bags:
    """Of blocks, of which number k starts at column k * stride."""
    ends = torch.cat([mask.sum(1) for mask in masks]).cumsum(0).int()
    columns = [mask.nonzero()[:, 1] + block * stride for block, mask in enumerate(masks)]
    return _Bags(functional.pad(ends, (1, 0)), torch.cat(columns).int())


def _order_by_columns(masks: Sequence[Tensor]) -> Tensor:
    """[kept of all]: the number by rows of each entry in the order by columns."""
    orders, before = [], 0
    for mask in masks:
        kept = int(mask.sum())
        numbers = torch.zeros(mask.shape, dtype=torch.int64)
        numbers[mask] = torch.arange(before, before + kept)
        orders.append(numbers.t()[mask.t()])
        before += kept
    return torch.cat(orders)
