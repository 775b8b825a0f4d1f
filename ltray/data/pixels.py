"""Any image -> the pixels that a shard stores, and back.

H W pixels, C channels: stored images are square, uint8, rows first, channels last.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from ltray.data.decode import (
    Array,
    Header,
    Unreadable,
    decode,
    decode_stored_jpeg,
)
from ltray.errors import LtrayError
from ltray.experiment import Data, SourceFacts

MADE_BY = "bicubic with antialiasing, EXIF orientation ignored, JPEG quality 90 with 4:2:0 colours"
JPEG_QUALITY = 90


@dataclass(frozen=True)
class Pixels:
    """How stored pixels are made.

    `any_size` and `any_channels` are False where the experiment left them to the source: then an
    image that is not like the first one is a person's mistake, since it would be changed unasked.
    """

    image_size: int
    resize: Literal["crop", "squash"]
    encoding: Literal["raw", "jpeg"]
    channels: Literal[1, 3]
    any_size: bool = True
    any_channels: bool = True

    def decides(self) -> dict[str, Any]:
        """What decides the stored bytes, as JSON."""
        return {
            "image_size": self.image_size,
            "resize": self.resize,
            "encoding": self.encoding,
            "channels": self.channels,
            "made_by": MADE_BY,
        }


class Stored(NamedTuple):
    """An image as a shard stores it, and what statistics need.

    Args:
        image: what `from_stored` reads.
        width: in the source, as height.
        sums: int [C], of the sampled pixels from 0 to 255 (before JPEG).
        square_sums: likewise, of their squares.
        odd: what is unusual about the source's file; empty for most.
    """

    image: bytes
    width: int
    height: int
    sums: NDArray[np.int64]
    square_sums: NDArray[np.int64]
    odd: str


def pixels_of(asked: Data, facts: SourceFacts) -> Pixels:
    """How to make the pixels that an experiment asks for; `asked` is what the person wrote.

    Raises:
        LtrayError: neither the experiment nor the source says how large.
    """
    image_size = asked.image_size or facts.image_size
    if image_size is None:
        raise LtrayError(
            "data.image_size",
            "is not written, and the source's images are not all square and alike",
            "write data.image_size, the pixels per side to store",
        )
    small = image_size < 64
    encoding = ("raw" if small else "jpeg") if asked.encoding == "auto" else asked.encoding
    channels = facts.channels if asked.channels == "auto" else asked.channels
    return Pixels(
        image_size=image_size,
        resize=asked.resize,
        encoding=encoding,
        channels=channels,
        any_size=asked.image_size is not None,
        any_channels=asked.channels != "auto",
    )


def to_stored(image: bytes | Array, pixels: Pixels, jpeg_expected: bool = False) -> Stored:
    """Decode, fit and encode one image.

    Nothing is resampled where the size already fits.

    Args:
        image: an encoded file, or uint8 [H, W] or [H, W, C] with C 1 or 3.
        jpeg_expected: whether another format is odd.

    Raises:
        Unreadable: it is no whole image, or a decompression bomb.
        LtrayError: it is not like the source's first image, and the experiment relied on that.
    """
    decoded = decode(image, pixels.channels, jpeg_expected)
    _check_alike(decoded.header, pixels)
    fitted = _fitted(decoded.array, pixels)
    sums, square_sums = _sums(fitted)
    header = decoded.header
    blob = _encoded(fitted, pixels)
    return Stored(blob, header.width, header.height, sums, square_sums, decoded.odd)


def sample_step(size: int) -> int:
    """Statistics take one row and column in so many: 64 to 127 a side are enough."""
    return max(1, size // 64)


def from_stored(blob: bytes, pixels: Pixels) -> Array:
    """The uint8 [H, W, C] of a stored image.

    Raises:
        Unreadable: it is not such an image.
    """
    shape = (pixels.image_size, pixels.image_size, pixels.channels)
    if pixels.encoding == "raw":
        if len(blob) != np.prod(shape):
            raise Unreadable(f"damaged: {len(blob)} bytes instead of {np.prod(shape)}")
        return np.frombuffer(blob, dtype=np.uint8).reshape(shape)
    array = decode_stored_jpeg(blob, pixels.channels)
    if array.shape != shape:
        raise Unreadable(f"damaged: {array.shape[1]} x {array.shape[0]} pixels")
    return array


@cache
def versions() -> dict[str, str]:
    """The libraries whose bits are in the pixels."""
    return {name: version(name) for name in ("pillow", "simplejpeg", "torch")}


def _check_alike(header: Header, pixels: Pixels) -> None:
    size = pixels.image_size
    if not pixels.any_size and (header.width, header.height) != (size, size):
        raise LtrayError(
            "data.image_size",
            f"is not written, and the source's images are not alike: the first is {size} x {size}"
            f" pixels, another {header.width} x {header.height}",
            "write data.image_size, the pixels per side to store",
        )
    if not pixels.any_channels and header.channels > pixels.channels:
        raise LtrayError(
            "data.channels",
            "is not written, and the source's images are not alike: the first is grey, another"
            " has colours",
            "write data.channels: 3 to keep the colours, or 1 to drop them",
        )


def _fitted(array: Array, pixels: Pixels) -> Array:
    """[H, W, C] -> [S, S, C], with S image_size."""
    height, width = array.shape[:2]
    if pixels.resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        array = array[top : top + side, left : left + side]
    size = pixels.image_size
    return array if array.shape[:2] == (size, size) else _resized(array, size)


def _resized(array: Array, size: int) -> Array:
    """Bicubic with antialiasing, in whole numbers as Pillow does it, and about twice as fast."""
    import torch  # not before: data that is stored as it is needs no torch
    from torch.nn import functional

    image = torch.from_numpy(np.require(array, requirements="W"))[None].permute(0, 3, 1, 2)
    scaled = functional.interpolate(
        image.contiguous(memory_format=torch.channels_last),
        size=(size, size),
        mode="bicubic",
        antialias=True,
    )
    return np.ascontiguousarray(scaled[0].permute(1, 2, 0).numpy())


def _sums(array: Array) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of the sampled pixels of each channel, and of their squares."""
    step = sample_step(len(array))
    sample = np.ascontiguousarray(array[::step, ::step].reshape(-1, array.shape[2]).T)
    wide = sample.astype(np.uint32)
    return wide.sum(axis=1, dtype=np.int64), (wide * wide).sum(axis=1, dtype=np.int64)


def _encoded(array: Array, pixels: Pixels) -> bytes:
    if pixels.encoding == "raw":
        return array.tobytes()
    grey = pixels.channels == 1
    return bytes(
        simplejpeg.encode_jpeg(
            np.ascontiguousarray(array),
            quality=JPEG_QUALITY,
            colorspace="GRAY" if grey else "RGB",
            colorsubsampling="Gray" if grey else "420",
        )
    )
