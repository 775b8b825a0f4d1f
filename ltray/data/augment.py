"""Stored images to what the network sees: crops and flips, by hashes of (seed, epoch, position).

B images, H W pixels as stored, S crop_size, C channels; all images are uint8 with channels last.
An image is cropped by itself in host memory, or many at once on a device: the bits are the same.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ltray.data.copies_to_device import on_device
from ltray.data.scaling import scaled_boxes
from ltray.randomness import seed_for, uniforms

PADDING = 4
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10
DEVICE_BATCH = 64  # images scaled at once on a device: some 200 MB of whole numbers at 224 pixels

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class Crops(NamedTuple):
    """What to cut from B images: a box of each, mirrored or not, then scaled to S x S.

    Args:
        boxes: [B, 4] of top, left, height, width; it may reach over the border, into black.
        mirrored: bool [B].
    """

    boxes: Integers
    mirrored: NDArray[np.bool_]


def centre_crops(count: int, side: int, size: int) -> Crops:
    """The middle S x S pixels of every image of `side` pixels a side."""
    first = (side - size) // 2
    boxes = np.tile(np.array([first, first, size, size]), (count, 1))
    return Crops(boxes, np.zeros(count, dtype=np.bool_))


def training_crops(  # noqa: PLR0913, PLR0917 (each is a thing of its own)
    how: str, side: int, size: int, seed: int, epoch: int, positions: Integers
) -> Crops:
    """The crops of B training images of `side` pixels a side.

    Args:
        how: none, random_crop or random_resized_crop, as in the experiment.
        seed: the data_seed of the replicate.
        positions: [B] of the images in the epoch's order.
    """
    if how == "none":
        return centre_crops(len(positions), side, size)

    def draw(purpose: str) -> Floats:
        return uniforms(seed_for(seed, purpose, epoch), positions)

    if how == "random_crop":
        boxes = _random_boxes(side, size, draw("crop top"), draw("crop left"))
    else:
        tries = [(draw(f"area {t}"), draw(f"ratio {t}")) for t in range(TRIES)]
        boxes = resized_boxes(side, tries, draw("crop top"), draw("crop left"))
    return Crops(boxes, draw("flip") < 0.5)


def _random_boxes(side: int, size: int, top: Floats, left: Floats) -> Integers:
    """[B, 4]: S x S pixels from anywhere; images no larger than S get a black border first.

    Source: He et al. 2015, section 4.2 (arXiv 1512.03385).
    """
    border = PADDING if side == size else 0
    places = side + 2 * border - size + 1
    tops = (top * places).astype(np.int64) - border
    lefts = (left * places).astype(np.int64) - border
    sizes = np.full_like(tops, size)
    return np.stack([tops, lefts, sizes, sizes], axis=1)


def resized_boxes(
    side: int, tries: list[tuple[Floats, Floats]], top: Floats, left: Floats
) -> Integers:
    """[B, 4]: of an area and a ratio by the first try that fits, else the whole image.

    Source: Szegedy et al. 2014 (arXiv 1409.4842), section 6.
    """
    heights = np.full(len(top), side, dtype=np.int64)
    widths = heights.copy()
    for area_draw, ratio_draw in reversed(tries):
        area = side * side * (AREA[0] + (AREA[1] - AREA[0]) * area_draw)
        low, high = math.log(RATIO[0]), math.log(RATIO[1])
        ratio = np.exp(low + (high - low) * ratio_draw)
        width = np.rint(np.sqrt(area * ratio)).astype(np.int64)
        height = np.rint(np.sqrt(area / ratio)).astype(np.int64)
        fits = (width >= 1) & (height >= 1) & (width <= side) & (height <= side)
        widths = np.where(fits, width, widths)
        heights = np.where(fits, height, heights)
    tops = (top * (side - heights + 1)).astype(np.int64)
    lefts = (left * (side - widths + 1)).astype(np.int64)
    return np.stack([tops, lefts, heights, widths], axis=1)


def crop_one(image: torch.Tensor, box: Integers, mirrored: bool, into: torch.Tensor) -> None:
    """Write one crop: image [H, W, C] -> into [S, S, C], both in host memory.

    Scaling is bilinear with antialiasing, in whole numbers.
    """
    top, left, height, width = box.tolist()
    size = len(into)
    if (height, width) == (size, size):
        _cut(image, top, left, into)
        if mirrored:
            into.copy_(into.flip(1))
        return
    piece = image[None, top : top + height, left : left + width]
    piece = piece.flip(2) if mirrored else piece.contiguous()
    # torch looks at the strides, and takes a kernel three times as slow unless they are those of
    # a channels-last batch: a batch axis that is added after permute() does not give them.
    scaled = functional.interpolate(
        piece.permute(0, 3, 1, 2), size=(size, size), mode="bilinear", antialias=True
    )
    into.copy_(scaled[0].permute(1, 2, 0))


def _cut(image: torch.Tensor, top: int, left: int, into: torch.Tensor) -> None:
    """Copy an unscaled box; what lies outside the image is black."""
    size = len(into)
    height, width = image.shape[:2]
    rows = slice(max(top, 0), min(top + size, height))
    columns = slice(max(left, 0), min(left + size, width))
    inside = image[rows, columns]
    if inside.shape != into.shape:
        into.zero_()
    first_row, first_column = rows.start - top, columns.start - left
    into[first_row : first_row + inside.shape[0], first_column : first_column + inside.shape[1]] = (
        inside
    )


def crop_many(images: torch.Tensor, crops: Crops, size: int) -> torch.Tensor:
    """Crop a batch where it lies: [B, H, W, C] -> [B, S, S, C]."""
    if _takes_all(images, crops, size):
        return images
    if bool((crops.boxes[:, 2:] == size).all()):
        return _cut_many(images, crops, size)
    if images.device.type == "cpu":
        made = torch.empty((len(images), size, size, images.shape[3]), dtype=torch.uint8)
        for image, box, mirrored, into in zip(images, *crops, made, strict=True):
            crop_one(image, box, bool(mirrored), into)
        return made
    parts = [slice(first, first + DEVICE_BATCH) for first in range(0, len(images), DEVICE_BATCH)]
    return torch.cat(
        [
            scaled_boxes(images[part], crops.boxes[part], crops.mirrored[part], size)
            for part in parts
        ]
    )


def _takes_all(images: torch.Tensor, crops: Crops, size: int) -> bool:
    """Whether every crop is the whole image as it is."""
    whole = (0, 0, size, size)
    return (
        images.shape[1:3] == (size, size)
        and bool((crops.boxes == whole).all())
        and not bool(crops.mirrored.any())
    )


def _cut_many(images: torch.Tensor, crops: Crops, size: int) -> torch.Tensor:
    """Unscaled boxes, all at once; what lies outside an image is black."""
    span = np.arange(size)
    rows = crops.boxes[:, :1] + span
    columns = crops.boxes[:, 1:2] + np.where(crops.mirrored[:, None], span[::-1], span)
    height, width = images.shape[1:3]
    rows_at = on_device(rows.clip(0, height - 1), images.device)
    columns_at = on_device(columns.clip(0, width - 1), images.device)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    cut = images[each, rows_at[:, :, None], columns_at[:, None, :]]
    if rows.min() >= 0 and columns.min() >= 0 and rows.max() < height and columns.max() < width:
        return cut
    inside_rows = on_device((rows >= 0) & (rows < height), images.device)
    inside_columns = on_device((columns >= 0) & (columns < width), images.device)
    return cut * (inside_rows[:, :, None, None] & inside_columns[:, None, :, None])
