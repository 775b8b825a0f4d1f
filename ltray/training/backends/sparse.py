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
# kept ones alone (benchmarks/backends.py); bfloat16 where the CPU has instructions for it. Fewer
# kept ones than the last take less time than the calls that the whole gradient needs.
WHOLE_FROM = 0.3
WHOLE_FROM_BFLOAT16 = 0.17
WHOLE_FROM_KEPT = 4000


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
        self._pattern = _Pattern(masks, shared, bfloat16, peers[0].weight.dtype)
        self._weights = _Stack([peer.get_parameter("weight") for peer in peers], masks)
        self._biases = None
        if peers[0].bias is not None:
            every = [torch.ones_like(peer.bias, dtype=torch.bool) for peer in peers]
            self._biases = _Stack([peer.get_parameter("bias") for peer in peers], every)
        self.stacks = [self._weights] + ([self._biases] if self._biases else [])

    def product(self, features: Tensor) -> Tensor:
        """The layer's outputs."""
        biases = self._biases.values if self._biases else None
        made: Tensor = _SparseProduct.apply(self._weights.values, biases, features, self._pattern)
        return made


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

    How a block's gradient is computed depends on that block alone, and so do its bits.

    Args:
        masks: K times [O, F] bool.
        shared: the blocks lie below each other, [K * O, F], and else along the diagonal,
            [K * O, K * F].
        bfloat16: whether products of gradients may be computed so.
        dtype: of the weights.
    """

    def __init__(
        self, masks: Sequence[Tensor], shared: bool, bfloat16: bool, dtype: torch.dtype
    ) -> None:
        rows, columns = masks[0].shape
        stride = 0 if shared else columns
        self._shared = shared
        self._by_rows = _bags(masks, stride)
        if not shared:
            self._by_columns = _bags([mask.t() for mask in masks], rows)
            self._order = _order_by_columns(masks)
        self._shape = (len(masks) * rows, columns if shared else len(masks) * columns)
        self._bfloat16 = bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        least = WHOLE_FROM_BFLOAT16 if self._bfloat16 else WHOLE_FROM
        whole = [int(mask.sum()) > max(least * mask.numel(), WHOLE_FROM_KEPT) for mask in masks]
        self._kept = [mask.flatten().nonzero().flatten() for mask in masks]
        self._whole = [number for number, is_whole in enumerate(whole) if is_whole]
        sampled = [
            torch.zeros_like(mask) if is_whole else mask
            for mask, is_whole in zip(masks, whole, strict=True)
        ]
        ends, places = _bags(sampled, stride)
        zeros = torch.zeros(len(places), dtype=dtype)
        with warnings.catch_warnings():  # once per process torch says that this is in beta
            warnings.filterwarnings("ignore", message="Sparse")
            self._sampled = torch.sparse_csr_tensor(
                ends, places, zeros, self._shape, check_invariants=False
            )

    def product(self, values: Tensor, features: Tensor) -> Tensor:
        """The matrix of these values, [kept of all], times [F, B] or [K * F, B]."""
        return _weighted_sums(self._by_rows, values, features)

    def transposed_product(self, values: Tensor, gradient: Tensor) -> Tensor:
        """Its transpose times [K * O, B]."""
        assert not self._shared, "nothing asks for the gradient of images"
        return _weighted_sums(self._by_columns, values.index_select(0, self._order), gradient)

    def gradient_of_values(self, gradient: Tensor, features: Tensor) -> Tensor:
        """[kept of all]: products of rows of the gradient and of the features."""
        if not self._whole:
            return self._sampled_gradient(gradient, features)
        made = gradient.new_empty(sum(map(len, self._kept)))
        parts = torch.split(made, [len(kept) for kept in self._kept])
        if left := [number for number in range(len(parts)) if number not in self._whole]:
            sampled = self._sampled_gradient(gradient, features)
            lengths = [len(self._kept[number]) for number in left]
            for number, part in zip(left, torch.split(sampled, lengths), strict=True):
                parts[number].copy_(part)
        low = (gradient.bfloat16(), features.bfloat16()) if self._bfloat16 else (gradient, features)
        for number in self._whole:
            block = self._block_gradient(number, *low)
            parts[number].copy_(block.flatten().index_select(0, self._kept[number]))
        return made

    def _block_gradient(self, number: int, gradient: Tensor, features: Tensor) -> Tensor:
        """[O, F], of what is pruned too: where much is kept that is faster."""
        count = len(self._kept)
        own = gradient.chunk(count)[number]
        return own @ (features if self._shared else features.chunk(count)[number]).t()

    def _sampled_gradient(self, gradient: Tensor, features: Tensor) -> Tensor:
        at = self._sampled
        sampled: Tensor = torch.sparse.sampled_addmm(at, gradient, features.t(), beta=0.0)
        return sampled.values()


class _Bags(NamedTuple):
    """Rows of a sparse matrix.

    Attributes:
        ends: [rows + 1], where in `places` each row begins, and the last one ends.
        places: [kept], the column of each entry.
    """

    ends: Tensor
    places: Tensor


class _SparseProduct(torch.autograd.Function):
    """A sparse matrix times a dense one, plus biases; gradients of values have their length."""

    @staticmethod
    def forward(
        ctx: Any, values: Tensor, biases: Tensor | None, features: Tensor, pattern: _Pattern
    ) -> Tensor:
        ctx.save_for_backward(values, features)
        ctx.pattern = pattern
        made = pattern.product(values, features)
        return made if biases is None else made.add_(biases[:, None])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        values, features = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        by_values = ctx.pattern.gradient_of_values(gradient, features)
        by_biases = gradient.sum(1) if ctx.needs_input_grad[1] else None
        by_features = None
        if ctx.needs_input_grad[2]:
            by_features = ctx.pattern.transposed_product(values, gradient)
        return by_values, by_biases, by_features, None


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
