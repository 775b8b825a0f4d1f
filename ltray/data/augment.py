"""Stored images to what the network sees: crops and flips, by hashes of (seed, epoch, position).

B images, H W pixels as stored, S crop_size, C channels. Images are [B, H, W, C] uint8 on the
device, and so is all work; only the few random numbers per image are made on the CPU.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ltray.randomness import seed_for, uniforms

PADDING = 4
AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

Positions = NDArray[np.int64]


def centre(images: torch.Tensor, size: int) -> torch.Tensor:
    """The middle S x S pixels: [B, H, W, C] -> [B, S, S, C]."""
    top = (images.shape[1] - size) // 2
    left = (images.shape[2] - size) // 2
    return images[:, top : top + size, left : left + size]


def augmented(  # noqa: PLR0913, PLR0917 (each is a thing of its own)
    images: torch.Tensor, how: str, size: int, seed: int, epoch: int, positions: Positions
) -> torch.Tensor:
    """Training images: [B, H, W, C] uint8 -> [B, S, S, C], uint8 or float32 in [0, 255].

    Args:
        how: none, random_crop or random_resized_crop, as in the experiment.
        seed: the data_seed of the replicate.
        positions: [B] of the images in the epoch's order.
    """
    if how == "none":
        return centre(images, size)

    def draw(purpose: str) -> NDArray[np.float64]:
        return uniforms(seed_for(seed, purpose, epoch), positions)

    if how == "random_crop":
        cropped = _random_crop(images, size, draw("crop top"), draw("crop left"))
    else:
        tries = [(draw(f"area {t}"), draw(f"ratio {t}")) for t in range(TRIES)]
        boxes = _boxes(images.shape[1], tries, draw("crop top"), draw("crop left"))
        cropped = _resized(images, size, boxes)
    flips = torch.from_numpy(draw("flip") < 0.5).to(images.device)
    return torch.where(flips[:, None, None, None], cropped.flip(2), cropped)


def _random_crop(
    images: torch.Tensor, size: int, top: NDArray[np.float64], left: NDArray[np.float64]
) -> torch.Tensor:
    """S x S pixels from anywhere; images no larger than S get a black border first.

    Source: He et al. 2015, section 4.2 (arXiv 1512.03385).
    """
    if images.shape[1] == size:
        border = (0, 0, PADDING, PADDING, PADDING, PADDING)
        images = functional.pad(images, border)
    places = images.shape[1] - size + 1
    rows = _spans(top, places, size, images.device)[:, :, None]
    columns = _spans(left, places, size, images.device)[:, None, :]
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return images[each, rows, columns]


def _spans(
    where: NDArray[np.float64], places: int, size: int, device: torch.device
) -> torch.Tensor:
    """[B, S] indices of S pixels in a row, starting at one of `places`."""
    first = torch.from_numpy((where * places).astype(np.int64)).to(device)
    return first[:, None] + torch.arange(size, device=device)


def _boxes(
    side: int,
    tries: list[tuple[NDArray[np.float64], NDArray[np.float64]]],
    top: NDArray[np.float64],
    left: NDArray[np.float64],
) -> NDArray[np.int64]:
    """[B, 4] of top, left, height, width: the first try that fits, else the whole image.

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


def _resized(images: torch.Tensor, size: int, boxes: NDArray[np.int64]) -> torch.Tensor:
    """Each image's box scaled to S x S, bilinear with antialiasing: float32 in [0, 255]."""
    scaled = [
        functional.interpolate(
            image[None, top : top + height, left : left + width].permute(0, 3, 1, 2).float(),
            size=(size, size),
            mode="bilinear",
            antialias=True,
        )
        for image, (top, left, height, width) in zip(images, boxes.tolist(), strict=True)
    ]
    return torch.cat(scaled).permute(0, 2, 3, 1)
