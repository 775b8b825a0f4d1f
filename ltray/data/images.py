"""Rows of the shards to uint8 images on a device: resident when they fit, else streamed.

B images, H W pixels, C channels.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from ltray.data.pixels import Pixels, from_stored
from ltray.data.selection import Labelled
from ltray.layout import DataFolder

CACHED_PARTS = 64  # two windows of the order; a part of 512 images of 227 pixels is 10 MB
DECODED_AT_ONCE = 512
Image = NDArray[np.uint8]


class Images(Protocol):
    """The images of one Labelled, taken by position in it."""

    def take(self, positions: NDArray[np.int64]) -> torch.Tensor:
        """[B, H, W, C] uint8 on the device."""


class ResidentImages:
    """All images decoded once and kept on the device."""

    def __init__(self, images: torch.Tensor) -> None:
        self._images = images

    def take(self, positions: NDArray[np.int64]) -> torch.Tensor:
        index = torch.from_numpy(positions).to(self._images.device)
        return self._images.index_select(0, index)


class StreamedImages:
    """Images read and decoded when they are asked for, with the parts last used kept encoded."""

    def __init__(self, decode: "Decoder", labelled: Labelled, device: torch.device) -> None:
        self._decode = decode
        self._labelled = labelled
        self._device = device

    def take(self, positions: NDArray[np.int64]) -> torch.Tensor:
        parts, rows = self._labelled.parts[positions], self._labelled.rows[positions]
        images = torch.from_numpy(self._decode(parts, rows))
        if self._device.type == "cuda":
            return images.pin_memory().to(self._device, non_blocking=True)
        return images


class Decoder:
    """Rows of one split to decoded images, on as many threads as the trial has CPUs."""

    def __init__(self, folder: DataFolder, pixels: Pixels, split: str, threads: int) -> None:
        self._pixels = pixels
        self._threads = ThreadPoolExecutor(max(1, threads))
        self._part: Callable[[int], list[bytes]] = lru_cache(CACHED_PARTS)(
            lambda number: _encoded(folder.part(split, number))
        )

    def __call__(self, parts: NDArray[np.int64], rows: NDArray[np.int64]) -> Image:
        """[B, H, W, C] uint8 for B rows, each of its part."""
        places = zip(parts.tolist(), rows.tolist(), strict=True)
        blobs = [self._part(part)[row] for part, row in places]
        return np.stack(list(self._threads.map(self._one, blobs)))

    def _one(self, blob: bytes) -> Image:
        return from_stored(blob, self._pixels)


def open_images(  # noqa: PLR0913, PLR0917 (where from, which, and where to)
    folder: DataFolder,
    pixels: Pixels,
    labelled: Labelled,
    device: torch.device,
    threads: int,
    resident: bool,
) -> Images:
    """The images of a Labelled, decoded now if they are to be resident, else when taken."""
    decode = Decoder(folder, pixels, labelled.split, threads)
    if not resident:
        return StreamedImages(decode, labelled, device)
    count, side = len(labelled.rows), pixels.image_size
    images = torch.empty((count, side, side, pixels.channels), dtype=torch.uint8, device=device)
    for first in range(0, count, DECODED_AT_ONCE):
        some = slice(first, first + DECODED_AT_ONCE)
        images[some] = torch.from_numpy(decode(labelled.parts[some], labelled.rows[some]))
    return ResidentImages(images)


def resident_budget(device: torch.device) -> int:
    """Bytes that a trial's resident images may fill.

    On a GPU half of what is free; on a CPU a quarter of the memory, shared by one process per core.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 2
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return memory // 4 // (os.cpu_count() or 1)


def _encoded(path: Path) -> list[bytes]:
    column: list[bytes] = pq.read_table(path, columns=["image"])["image"].to_pylist()
    return column
