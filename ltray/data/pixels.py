"""Any image -> the pixels that a shard stores, and back.

H W pixels, C channels: stored images are square, uint8, rows first, channels last.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, NamedTuple

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image

from ltray.errors import LtrayError
from ltray.experiment import Data, SourceFacts

MADE_BY = "Pillow: bicubic with antialiasing, EXIF orientation ignored, JPEG quality 90"
JPEG_QUALITY = 90
MAX_PIXELS = 178_000_000
APPLE_DOUBLE = b"\x00\x05\x16\x07"
# Only formats that decode in the process: Pillow would hand EPS to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L")


class Unreadable(Exception):
    """An input that is no whole image; its reason goes to the quarantine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
        histogram: int [C, 256], how many of the stored pixels have each value (before JPEG).
    """

    image: bytes
    width: int
    height: int
    histogram: NDArray[np.int64]


class Header(NamedTuple):
    """What an image says of itself before it is decoded."""

    width: int
    height: int
    channels: Literal[1, 3]


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


def header_of(image: bytes | NDArray[np.uint8]) -> Header:
    """Size and channels of an image, from its header alone.

    Raises:
        Unreadable: it is no image.
    """
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
        return Header(width, height, 3 if image.ndim == 3 and image.shape[2] == 3 else 1)
    with broken_is_unreadable(), _no_warnings():
        return _header(_opened(image))


def to_stored(image: bytes | NDArray[np.uint8], pixels: Pixels) -> Stored:
    """Decode, fit and encode one image.

    Nothing is resampled where the size already fits.

    Args:
        image: an encoded file, or uint8 [H, W] or [H, W, C] with C 1 or 3.

    Raises:
        Unreadable: it is no whole image, or a decompression bomb.
        LtrayError: it is not like the source's first image, and the experiment relied on that.
    """
    with broken_is_unreadable(), _no_warnings():
        picture = _picture(image) if isinstance(image, np.ndarray) else _opened(image)
        header = _header(picture)
        _check_alike(header, pixels)
        fitted = _fitted(_in_channels(picture, pixels.channels), pixels)
        histogram = np.array(fitted.histogram()).reshape(pixels.channels, 256)
        return Stored(_encoded(fitted, pixels), header.width, header.height, histogram)


def from_stored(blob: bytes, pixels: Pixels) -> NDArray[np.uint8]:
    """The uint8 [H, W, C] of a stored image.

    Raises:
        Unreadable: it is not such an image.
    """
    shape = (pixels.image_size, pixels.image_size, pixels.channels)
    with broken_is_unreadable():
        if pixels.encoding == "raw":
            return np.frombuffer(blob, dtype=np.uint8).reshape(shape)
        picture = _opened(blob)
        if (picture.height, picture.width, len(picture.getbands())) != shape:
            raise Unreadable(f"{picture.width} x {picture.height} pixels in mode {picture.mode}")
        return np.asarray(picture).reshape(shape)


def versions() -> dict[str, str]:
    """The libraries whose bits are in the pixels."""
    return {"pillow": PIL.__version__}


@contextmanager
def broken_is_unreadable() -> Iterator[None]:
    """Whatever a decoder raises becomes Unreadable."""
    # Decoders raise anything on damaged bytes: OSError, SyntaxError, struct.error, ... Running
    # out of memory is the machine's fault and must not put an image into the quarantine.
    try:
        yield
    except (Unreadable, LtrayError, MemoryError):
        raise
    except Exception as error:
        raise Unreadable(f"damaged: {error}") from error


@contextmanager
def _no_warnings() -> Iterator[None]:
    # Odd metadata is no news among a million images. Filters belong to the whole process, so
    # from_stored, which threads call, leaves them alone.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _opened(content: bytes) -> Image.Image:
    if not content:
        raise Unreadable("zero bytes")
    if content.startswith(APPLE_DOUBLE):
        raise Unreadable("an AppleDouble resource file, not an image")
    try:
        picture = Image.open(BytesIO(content), formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise Unreadable(f"no image of a known format; starts with {content[:16]!r}") from None
    except Image.DecompressionBombError:
        raise Unreadable("a decompression bomb") from None
    if picture.width * picture.height > MAX_PIXELS:
        raise Unreadable(f"a decompression bomb of {picture.width} x {picture.height} pixels")
    return picture


def _picture(array: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(array[:, :, 0] if array.shape[2:] == (1,) else array)


def _header(picture: Image.Image) -> Header:
    grey = picture.mode in GREY_MODES
    return Header(picture.width, picture.height, 1 if grey else 3)


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


def _in_channels(picture: Image.Image, channels: Literal[1, 3]) -> Image.Image:
    if picture.mode == "F":
        raise Unreadable("floating-point pixels, whose range is not known")
    if picture.mode.startswith("I"):  # convert() would clip 16 bits instead of scaling them
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
    mode = "L" if channels == 1 else "RGB"
    picture.load()
    return picture if picture.mode == mode else picture.convert(mode)


def _fitted(picture: Image.Image, pixels: Pixels) -> Image.Image:
    size = (pixels.image_size, pixels.image_size)
    left, top, right, bottom = 0, 0, picture.width, picture.height
    if pixels.resize == "crop":
        short = min(picture.size)
        left, top = (picture.width - short) // 2, (picture.height - short) // 2
        right, bottom = left + short, top + short
    if (right - left, bottom - top) == size:
        return picture.crop((left, top, right, bottom))
    return picture.resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))


def _encoded(picture: Image.Image, pixels: Pixels) -> bytes:
    if pixels.encoding == "raw":
        return picture.tobytes()
    file = BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
