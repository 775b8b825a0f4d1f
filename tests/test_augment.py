"""Crops and flips: where they come from, and the same bits however they are made."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ltray.data.augment import (
    Crops,
    centre_crops,
    crop_many,
    crop_one,
    resized_boxes,
    training_crops,
)
from ltray.data.scaling import scaled_boxes


def picture(side: int, count: int = 1) -> torch.Tensor:
    """Images whose pixel at row r, column c is (r, c)."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return torch.stack([rows, columns], dim=2).to(torch.uint8)[None].repeat(count, 1, 1, 1)


def augmented(images: torch.Tensor, how: str, size: int, key: tuple[int, int]) -> torch.Tensor:
    crops = training_crops(how, images.shape[1], size, *key, np.arange(len(images)))
    return crop_many(images, crops, size)


def one_by_one(images: torch.Tensor, crops: Crops, size: int) -> torch.Tensor:
    made = torch.empty((len(images), size, size, images.shape[3]), dtype=torch.uint8)
    for image, box, mirrored, into in zip(images, *crops, made, strict=True):
        crop_one(image, box, bool(mirrored), into)
    return made


def noise(count: int, side: int, channels: int = 3) -> torch.Tensor:
    random = np.random.default_rng(0)
    return torch.from_numpy(random.integers(0, 256, (count, side, side, channels), np.uint8))


def test_the_centre_is_the_middle() -> None:
    image = picture(8)
    assert crop_many(image, centre_crops(1, 8, 4), 4)[0, 0, 0].tolist() == [2, 2]
    assert crop_many(image, centre_crops(1, 8, 8), 8).shape == (1, 8, 8, 2)


@pytest.mark.parametrize("how", ["none", "random_crop", "random_resized_crop"])
@pytest.mark.parametrize(("side", "size"), [(40, 32), (32, 32), (64, 24)])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_image_and_many_give_the_same_bits(
    how: str, side: int, size: int, channels: int
) -> None:
    images = noise(50, side, channels)
    crops = training_crops(how, side, size, 3, 1, np.arange(50))
    each = one_by_one(images, crops, size)
    assert torch.equal(crop_many(images, crops, size), each)
    if how == "random_resized_crop":  # what a GPU does, in whole numbers, so here as there
        assert torch.equal(scaled_boxes(images, *crops, size), each)


@pytest.mark.long
@given(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), min_size=1, max_size=5))
def test_scaling_many_gives_torchs_bits_at_any_size(sizes: list[tuple[int, int]]) -> None:
    boxes = np.array([(80 - height, 0, height, width) for height, width in sizes])
    crops = Crops(boxes, np.arange(len(sizes)) % 2 == 1)
    images = noise(len(sizes), 80)
    assert torch.equal(scaled_boxes(images, *crops, 37), one_by_one(images, crops, 37))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_bits() -> None:
    images = noise(200, 227)
    for how in ("random_crop", "random_resized_crop"):
        crops = training_crops(how, 227, 224, 3, 1, np.arange(200))
        on_gpu = crop_many(images.cuda(), crops, 224).cpu()
        assert torch.equal(on_gpu, one_by_one(images, crops, 224))


def test_random_crops_are_pieces_of_the_image_in_every_place_half_of_them_flipped() -> None:
    count = 4000
    cropped = augmented(picture(10, count), "random_crop", 8, (0, 0))
    assert cropped.shape == (count, 8, 8, 2)
    flipped = cropped[:, 0, 0, 1] > cropped[:, 0, 7, 1]
    # 4,000 coins: further from half than this is a 6-sigma event.
    assert abs(float(flipped.float().mean()) - 0.5) < 6 * 0.5 / 63
    corner = torch.where(flipped[:, None], cropped[:, 0, 7], cropped[:, 0, 0])
    assert {tuple(place) for place in corner.tolist()} == {
        (r, c) for r in range(3) for c in range(3)
    }
    straight = cropped[~flipped].long()
    assert bool((straight[:, 1:, :, 0] - straight[:, :-1, :, 0] == 1).all())
    assert bool((straight[:, :, 1:, 1] - straight[:, :, :-1, 1] == 1).all())


def test_equal_sizes_are_padded_by_four_black_pixels() -> None:
    white = torch.full((2000, 6, 6, 1), 255, dtype=torch.uint8)
    cropped = augmented(white, "random_crop", 6, (0, 0))
    seen = {int(one.bool().any(dim=1).sum()) for one in cropped[..., 0]}
    assert seen == {2, 3, 4, 5, 6}


def test_resized_crops_take_areas_and_ratios_as_published() -> None:
    draws = np.random.default_rng(0).random((12, 3000))
    tries = [(draws[n], draws[n + 1]) for n in range(0, 10, 2)]
    boxes = resized_boxes(200, tries, draws[10], draws[11])
    top, left, height, width = boxes.T
    assert bool(((top >= 0) & (left >= 0) & (top + height <= 200) & (left + width <= 200)).all())
    share = height * width / 200**2
    assert 0.078 < share.min() < 0.1
    assert share.max() > 0.9
    ratio = width / height
    assert ratio.min() >= 0.74
    assert ratio.max() <= 1.35


def test_a_resized_crop_of_the_whole_image_is_the_image() -> None:
    images = noise(2, 8)
    boxes = np.array([[0, 0, 8, 8]] * 2)
    made = scaled_boxes(images, boxes, np.array([False, True]), 8)
    assert torch.equal(made[0], images[0])
    assert torch.equal(made[1], images[1].flip(1))


def test_augmentation_depends_on_seed_epoch_and_position_alone() -> None:
    image = picture(12, 6)
    keys = [(0, 0), (0, 1), (1, 0)]
    made = [augmented(image, "random_crop", 6, key) for key in keys]
    assert not torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    some = training_crops("random_crop", 12, 6, 0, 0, np.array([2, 3]))
    assert torch.equal(crop_many(image[2:4], some, 6), made[0][2:4])
