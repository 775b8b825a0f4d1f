import warnings
import zlib
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from ltray.data.decode import Unreadable, decode, header_of
from ltray.data.pixels import Pixels, from_stored, pixels_of, to_stored
from ltray.errors import LtrayError
from ltray.experiment import Data, SourceFacts

SIDE = 16


def encoded(array: NDArray[Any], file_format: str, **options: Any) -> bytes:
    return saved(Image.fromarray(array), file_format, **options)


def saved(picture: Image.Image, file_format: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, file_format, **options)
    return file.getvalue()


def pixels(
    size: int = SIDE,
    channels: Literal[1, 3] = 3,
    encoding: Literal["raw", "jpeg"] = "raw",
    resize: Literal["crop", "squash"] = "crop",
) -> Pixels:
    return Pixels(size, resize, encoding, channels)


def decoded(image: bytes | NDArray[np.uint8], made: Pixels) -> NDArray[np.uint8]:
    return from_stored(to_stored(image, made).image, made)


def scene(height: int = SIDE, width: int = SIDE) -> NDArray[np.uint8]:
    """Smooth colours, so that JPEG keeps them nearly as they are."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) * 2], axis=2).astype(np.uint8)


@given(
    arrays.arrays(np.uint8, st.sampled_from([(5, 5), (5, 5, 1), (5, 5, 3)])),
    st.booleans(),
)
def test_raw_images_of_the_stored_size_come_back_bit_for_bit(
    array: NDArray[np.uint8], as_file: bool
) -> None:
    grey = array.shape[2:] != (3,)
    made = pixels(5, 1 if grey else 3)
    flat = array.reshape(5, 5) if grey else array
    image = encoded(flat, "PNG") if as_file else array
    assert np.array_equal(decoded(image, made), array.reshape(5, 5, -1))


def test_crop_takes_the_centre_square() -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 200
    assert (decoded(wide, pixels(4)) == 200).all()
    assert (decoded(wide.swapaxes(0, 1), pixels(4)) == 200).all()


def test_squash_keeps_both_halves() -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 4:] = 200
    stored = decoded(wide, pixels(4, resize="squash"))
    assert (stored[:, 0] == 0).all()
    assert (stored[:, 3] >= 200).all()  # bicubic overshoots by some 2 %


def test_making_smaller_is_antialiased() -> None:
    # Stripes of one pixel average out to grey; without antialiasing they stay black or white.
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    inner = decoded(stripes, pixels(8, 1))[:, 2:-2]
    assert np.abs(inner.astype(int) - 127).max() <= 4


def test_jpeg_comes_back_nearly() -> None:
    made = pixels(64, encoding="jpeg")
    difference = decoded(scene(64, 64), made).astype(int) - scene(64, 64)
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "RGBA", "L", "LA", "P", "1"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    file_format = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    picture = Image.fromarray(scene()).convert(mode)
    stored = decoded(saved(picture, file_format), pixels())
    # JPEG at quality 75 and palettes of web colours are rough: a wrong conversion is off by 100.
    reference = np.asarray(picture.convert("RGB")).astype(int)
    assert np.abs(stored - reference).mean() < 12


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    steep = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 256
    stored = decoded(encoded(steep, "PNG"), pixels(channels=1))
    assert np.array_equal(stored[:, :, 0].ravel(), np.arange(256))


def test_of_a_moving_gif_the_first_frame_is_taken() -> None:
    first, second = Image.new("L", (SIDE, SIDE), 10), Image.new("L", (SIDE, SIDE), 250)
    film = saved(first, "GIF", save_all=True, append_images=[second])
    assert (decoded(film, pixels(channels=1)) == 10).all()


def test_exif_orientation_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(scene(), "JPEG", exif=exif)
    assert np.array_equal(decoded(turned, pixels()), decoded(encoded(scene(), "JPEG"), pixels()))


def test_colours_become_grey_when_asked() -> None:
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[:, :, 0] = 255
    assert (decoded(red, pixels(channels=1)) == 76).all()  # ITU-R 601: 0.299 x 255


@pytest.mark.parametrize(
    ("height", "width", "size"), [(300, 401, 227), (61, 47, 64), (500, 90, 33)]
)
def test_resizing_equals_pillows_bicubic(height: int, width: int, size: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(noise[top : top + side, left : left + side])
    reference = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC)).astype(float)
    error = ((decoded(noise, pixels(size)) - reference) ** 2).mean()
    assert 10 * np.log10(255**2 / error) >= 55


def damaged_scan() -> bytes:
    """A JPEG whose scan has wrong bytes, and still its end."""
    content = bytearray(encoded(scene(200, 200), "JPEG", quality=95))
    content[-1200:-1100] = b"\xff\x00" * 50
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "jpeg_expected", "odd"),
    [
        (encoded(scene(), "JPEG"), True, ""),
        (encoded(scene(), "JPEG", progressive=True), True, ""),
        (encoded(scene()[:, :, 0], "JPEG"), True, ""),
        (encoded(scene(), "PNG"), False, ""),
        (encoded(scene(), "PNG"), True, "a PNG file under the name of a JPEG"),
        (saved(Image.fromarray(scene()).convert("CMYK"), "JPEG"), True, "CMYK colours"),
        (damaged_scan(), True, "damaged, but whole: "),
        (encoded(np.full((4, 4), 9, np.uint16), "PNG"), False, "16 bits a pixel"),
    ],
)
def test_what_is_unusual_is_said_and_taken(content: bytes, jpeg_expected: bool, odd: str) -> None:
    found = to_stored(content, pixels(), jpeg_expected).odd
    assert found.startswith(odd)
    assert bool(found) == bool(odd)


def test_the_fast_decoder_and_pillow_give_the_same_pixels() -> None:
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        content = encoded(scene(203, 97), "JPEG", **options)
        ours = decode(content, 3).array
        assert np.array_equal(ours, np.asarray(Image.open(BytesIO(content)).convert("RGB")))


@pytest.mark.parametrize(("side", "step"), [(16, 1), (127, 1), (128, 2), (227, 3)])
def test_sums_are_of_the_stored_pixels_sampled_in_large_images(side: int, step: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    stored = to_stored(noise, pixels(side))
    sampled = noise[::step, ::step].astype(np.int64)
    assert stored.sums.tolist() == sampled.sum((0, 1)).tolist()
    assert stored.square_sums.tolist() == (sampled**2).sum((0, 1)).tolist()


def bomb(side: int) -> bytes:
    """A PNG whose header claims side x side pixels."""
    png = bytearray(encoded(scene(), "PNG"))
    png[16:24] = side.to_bytes(4, "big") * 2
    png[29:33] = zlib.crc32(png[12:29]).to_bytes(4, "big")
    return bytes(png)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "zero bytes"),
        (b"<html><body>404 Not Found</body></html>", "no image"),
        (b"\x00\x05\x16\x07" + bytes(60), "AppleDouble"),
        (encoded(scene(200, 200), "JPEG")[:1500], "truncated"),
        (encoded(scene(200, 200), "PNG")[:-400], "damaged"),
        (encoded(scene(), "JPEG")[:30], "damaged|no image"),
        (bomb(13_350), "decompression bomb"),
        (bomb(60_000), "decompression bomb"),
        (encoded(np.zeros((4, 4), np.float32), "TIFF"), "floating-point"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n", "no image"),
    ],
)
def test_what_is_no_whole_image_is_unreadable(content: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        to_stored(content, pixels())


def test_reasons_do_not_depend_on_the_process() -> None:
    reasons = set()
    for _ in range(2):
        with pytest.raises(Unreadable) as caught:
            to_stored(b"no image at all", pixels())
        reasons.add(caught.value.reason)
    assert len(reasons) == 1
    assert "0x" not in reasons.pop()


def test_the_limit_on_pixels_needs_no_warnings() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(Unreadable, match="13350 x 13350"):
            header_of(bomb(13_350))


def test_a_damaged_stored_image_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        from_stored(b"short", pixels())
    with pytest.raises(Unreadable, match="8 x 8"):
        from_stored(encoded(scene(8, 8), "JPEG"), pixels(encoding="jpeg"))


def facts(image_size: int | None, channels: Literal[1, 3]) -> SourceFacts:
    return SourceFacts(fingerprint="f", image_size=image_size, channels=channels)


def test_images_that_are_not_alike_are_an_error_only_when_left_to_the_source() -> None:
    left_to_source = pixels_of(Data(source="parquet"), facts(SIDE, 1))
    with pytest.raises(LtrayError, match=r"data\.image_size"):
        to_stored(np.zeros((SIDE, SIDE + 1), np.uint8), left_to_source)
    with pytest.raises(LtrayError, match=r"data\.channels"):
        to_stored(scene(), left_to_source)
    written = pixels_of(Data(source="parquet", image_size=SIDE, channels=1), facts(SIDE, 1))
    assert decoded(scene(20, 30), written).shape == (SIDE, SIDE, 1)


def test_grey_among_colours_is_no_error() -> None:
    made = pixels_of(Data(source="parquet"), facts(SIDE, 3))
    assert decoded(np.full((SIDE, SIDE), 7, np.uint8), made).tolist() == [[[7] * 3] * SIDE] * SIDE


def test_encoding_is_raw_below_64_pixels() -> None:
    data = Data(source="parquet")
    assert pixels_of(data, facts(63, 3)).encoding == "raw"
    assert pixels_of(data, facts(64, 3)).encoding == "jpeg"


def test_a_size_that_nobody_says_is_an_error() -> None:
    with pytest.raises(LtrayError, match=r"write data\.image_size"):
        pixels_of(Data(source="image_folder"), facts(None, 3))
