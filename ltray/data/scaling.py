"""Many boxes of images scaled at once on their device, with the bits of scaling one in host memory.

Bilinear with antialiasing. Rows and then columns of pixels are weighted sums in whole numbers,
rounded in between: what torch does with a uint8 image in host memory, written so that a device can
do many. B images, H W pixels, C channels; each box becomes S x S, of T pixels a line for each.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from ltray.data.copies_to_device import on_device

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def scaled_boxes(
    images: torch.Tensor, boxes: Integers, mirrored: NDArray[np.bool_], size: int
) -> torch.Tensor:
    """Uint8 [B, H, W, C] -> [B, S, S, C].

    Args:
        boxes: [B, 4] of top, left, height, width, within the images.
        mirrored: [B], from left to right.
    """
    top, left, _, width = boxes.T[:, :, None, None]
    every = _taps(max(images.shape[1:3]), size)
    rows, columns = every.of(boxes[:, 2]), every.of(boxes[:, 3])
    flipped = np.where(mirrored[:, None, None], width - 1 - columns.places, columns.places)
    wide = _weighted(images, columns._replace(places=flipped + left), axis=2)
    return _weighted(wide, rows._replace(places=rows.places + top), axis=1)


class _Taps(NamedTuple):
    """Which pixels of N lines make each of S, and with which weights.

    Args:
        places: [N, S, T], counted from the beginning of the line.
        weights: int32 [N, S, T]; their sum stands for 1.
        precision: int32 [N]: weights are fractions of 2 ** precision.
        numbers: [N]: how many of the T have a weight.
    """

    places: Integers
    weights: NDArray[np.int32]
    precision: NDArray[np.int32]
    numbers: Integers

    def of(self, lengths: Integers) -> "_Taps":
        """Those of lines of 1, 2, ... pixels -> those of lines of these lengths."""
        lines = lengths - 1
        most = int(self.numbers[lines].max())
        return _Taps(
            self.places[lines, :, :most],
            self.weights[lines, :, :most],
            self.precision[lines],
            self.numbers[lines],
        )


@lru_cache(maxsize=4)
def _taps(longest: int, size: int) -> _Taps:
    """Of lines of 1 to `longest` pixels: a triangle as wide as a pixel of the coarser grid."""
    sizes = np.arange(1, longest + 1)
    scale = (sizes / size)[:, None]
    support = np.maximum(scale, 1.0)
    centre = scale * (np.arange(size) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), sizes[:, None])
    places = first[:, :, None] + np.arange((last - first).max())
    distance = np.abs(places - centre[:, :, None] + 0.5) / support[:, :, None]
    weights = np.where(places < last[:, :, None], (1 - distance).clip(0), 0)
    weights /= weights.sum(axis=2, keepdims=True)
    precision = _precision(weights.max(axis=(1, 2)))
    whole = np.floor(weights * (1 << precision)[:, None, None] + 0.5)
    return _Taps(
        np.minimum(places, sizes[:, None, None] - 1),
        whole.astype(np.int32),
        precision.astype(np.int32),
        (last - first).max(axis=1),
    )


def _precision(largest: Floats) -> Integers:
    """[N]: the bits with which weights up to `largest` [N] still fit 16 bits."""
    bits = np.arange(1, 23)
    fits = (largest[:, None] * (1 << bits) + 0.5).astype(np.int64) < 1 << 15
    return np.asarray(fits.cumprod(axis=1).sum(axis=1), dtype=np.int64)


def _weighted(images: torch.Tensor, taps: _Taps, axis: int) -> torch.Tensor:
    """Sums over the taps along one axis of [B, H, W, C], rounded to uint8."""
    shape = [-1, 1, 1, 1]
    shape[axis] = taps.places.shape[1]
    lines = list(images.shape)
    lines[axis] = taps.places.shape[1]
    at = on_device(taps.places, images.device)
    weights = on_device(taps.weights, images.device)
    bits = on_device(taps.precision, images.device).reshape(-1, 1, 1, 1)
    half = 1 << (taps.precision - 1)  # the shift below rounds down
    total = on_device(half, images.device).reshape(-1, 1, 1, 1)
    for tap in range(taps.places.shape[2]):
        picked = images.gather(axis, at[:, :, tap].reshape(shape).expand(lines))
        total = torch.addcmul(total, picked.int(), weights[:, :, tap].reshape(shape))
    return (total >> bits).clamp_(0, 255).to(torch.uint8)
