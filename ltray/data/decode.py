"""Any image file -> its pixels, by the fast decoder where it can and by Pillow where it cannot.

H W pixels, C channels: decoded images are uint8, rows first, channels last.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Literal, NamedTuple

import numpy as np
import PIL
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from ltray.errors import LtrayError

MAX_PIXELS = 178_000_000
MAX_FILE_BYTES = 512 * 1024 * 1024
JPEG_START = b"\xff\xd8\xff"
APPLE_DOUBLE = b"\x00\x05\x16\x07"
# Only formats that decode in the process: Pillow would hand EPS to Ghostscript.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
GREY_MODES = ("1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L")
FAST_COLOURS = ("Gray", "YCbCr", "RGB")

Array = NDArray[np.uint8]
Channels = Literal[1, 3]


class Unreadable(Exception):
    """An input that is no whole image; its reason goes to the quarantine."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Header(NamedTuple):
    """What an image says of itself before it is decoded."""

    width: int
    height: int
    channels: Channels


class Decoded(NamedTuple):
    """An image and what was found on the way.

    Args:
        array: uint8 [H, W, C].
        header: as the source has it; C may be another.
        odd: what is unusual about it, though it could be read; empty for most.
    """

    array: Array
    header: Header
    odd: str = ""


def too_large(size: int) -> str | None:
    """Why a file of so many bytes is not even read, or None."""
    return f"{size:,} bytes, too large for an image" if size > MAX_FILE_BYTES else None


def header_of(image: bytes | Array) -> Header:
    """Size and channels of an image, from its header alone.

    Raises:
        Unreadable: it is no image.
    """
    if isinstance(image, np.ndarray):
        height, width = image.shape[:2]
        return Header(width, height, 3 if image.ndim == 3 and image.shape[2] == 3 else 1)
    with broken_is_unreadable(), _no_warnings():
        return _header(_opened(image))


def decode(image: bytes | Array, channels: Channels, jpeg_expected: bool = False) -> Decoded:
    """The pixels of one image; EXIF orientation is ignored.

    Damage that leaves a whole image is odd and no reason to refuse it: JPEG scans with wrong
    bytes, for one, which Pillow alone would pass over in silence.

    Args:
        image: an encoded file, or uint8 [H, W] or [H, W, C] with C 1 or 3.
        jpeg_expected: whether another format is odd.

    Raises:
        Unreadable: it is no whole image, or a decompression bomb.
    """
    if isinstance(image, np.ndarray):
        header = header_of(image)
        return Decoded(_array_in_channels(image, header.channels, channels), header)
    with broken_is_unreadable(), _no_warnings():
        fault = ""
        if image.startswith(JPEG_START):
            found = _fast(image, channels)
            if isinstance(found, Decoded):
                return found
            fault = found
        return _slow(image, channels, fault, jpeg_expected)


def decode_stored_jpeg(blob: bytes, channels: Channels) -> Array:
    """The uint8 [H, W, C] of a JPEG that a shard holds.

    Raises:
        Unreadable: it is none, or damaged.
    """
    try:
        array: Array = simplejpeg.decode_jpeg(blob, _colours(channels))
    except ValueError as error:
        raise Unreadable(f"damaged: {error}") from error
    return array


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


def _fast(image: bytes, channels: Channels) -> Decoded | str:
    """The image, or why only the slow decoder may be able to read it."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(image)
        _check_size(width, height)
        if colours not in FAST_COLOURS:
            return ""
        array = simplejpeg.decode_jpeg(image, _colours(channels))
    except ValueError as error:
        return str(error)
    return Decoded(array, Header(width, height, 1 if colours == "Gray" else 3))


def _slow(image: bytes, channels: Channels, fault: str, jpeg_expected: bool) -> Decoded:
    picture = _opened(image)
    header, mode = _header(picture), picture.mode
    array = np.asarray(_in_channels(picture, channels)).reshape(header.height, header.width, -1)
    odd = []
    if jpeg_expected and picture.format != "JPEG":
        odd.append(f"a {picture.format} file under the name of a JPEG")
    if fault:
        odd.append(f"damaged, but whole: {fault}")
    if mode in ("CMYK", "I;16", "I;16B", "I;16L", "I"):
        odd.append("CMYK colours" if mode == "CMYK" else "16 bits a pixel")
    return Decoded(array, header, "; ".join(odd))


@contextmanager
def _no_warnings() -> Iterator[None]:
    # Odd metadata is no news among a million images. Filters belong to the whole process, so
    # decode_stored_jpeg, which threads call, leaves them alone.
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
    _check_size(picture.width, picture.height)
    return picture


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise Unreadable(f"a decompression bomb of {width} x {height} pixels")


def _header(picture: Image.Image) -> Header:
    grey = picture.mode in GREY_MODES
    return Header(picture.width, picture.height, 1 if grey else 3)


def _in_channels(picture: Image.Image, channels: Channels) -> Image.Image:
    if picture.mode == "F":
        raise Unreadable("floating-point pixels, whose range is not known")
    if picture.mode.startswith("I"):  # convert() would clip 16 bits instead of scaling them
        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) >> 8).astype(np.uint8))
    mode = "L" if channels == 1 else "RGB"
    picture.load()
    return picture if picture.mode == mode else picture.convert(mode)


def _array_in_channels(array: Array, has: Channels, wanted: Channels) -> Array:
    whole = array.reshape(*array.shape[:2], has)
    if has == wanted:
        return whole
    if has == 1:
        return np.repeat(whole, 3, axis=2)
    return np.asarray(Image.fromarray(whole).convert("L"))[:, :, None]


def _colours(channels: Channels) -> str:
    return "GRAY" if channels == 1 else "RGB"
