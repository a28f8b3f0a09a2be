"""Crop, flip and Cutout of the CIFAR recipes against torchvision's pad and crop, and the stated chances."""

from collections import Counter

import numpy as np
import torch
from torchvision.transforms import functional

from domainbed_adm.datasets.classification.augmentation import CropFlipCutout

IMAGE = np.random.RandomState(0).randint(1, 256, (3, 32, 32)).astype(np.uint8)
MEAN = (0.4914, 0.4822, 0.4465)
FILL = np.array([125, 123, 114], np.uint8)


def every_crop():
    """All 162 results of crop and flip, by torchvision."""
    padded = functional.pad(torch.from_numpy(IMAGE), 4)
    crops = {}
    for top in range(9):
        for left in range(9):
            crop = functional.crop(padded, top, left, 32, 32)
            crops[crop.numpy().tobytes()] = (top, left, False)
            crops[functional.hflip(crop).numpy().tobytes()] = (top, left, True)
    return crops


def test_every_crop_and_flip_comes_as_often_as_the_others():
    torch.manual_seed(0)
    crops, n = every_crop(), 20_000
    seen = Counter(crops[CropFlipCutout(0, MEAN)(IMAGE).tobytes()] for _ in range(n))
    assert len(seen) == 162
    expected = n / 162
    chi_squared = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_squared < 161 + 5 * (2 * 161) ** 0.5  # five standard deviations above its mean


def test_cutout_paints_half_of_the_images_with_the_mean_colour():
    """A side of 16 px is whole for 17 of its 32 places; at the others 8 to 15 px of it lie within the image."""
    torch.manual_seed(0)
    sides, painted, n = Counter(), 0, 4000
    for _ in range(n):
        result = CropFlipCutout(16, MEAN)(IMAGE)
        square = (result == FILL[:, None, None]).all(0) & (result > 0).all(0)
        rows = square.sum(0).max()
        if rows > 2:  # fewer are the image's own
            painted += 1
            assert square[np.ix_(square.any(1), square.any(0))].mean() > 0.9
            sides[int(rows)] += 1
    assert abs(painted / n - 0.5) < 0.03
    assert (min(sides), max(sides)) == (8, 16)
    assert abs(sides[16] / painted - 17 / 32) < 0.04


def test_the_image_itself_stays_and_draws_follow_the_seed():
    before = IMAGE.copy()
    torch.manual_seed(3)
    first = [CropFlipCutout(16, MEAN)(IMAGE) for _ in range(5)]
    torch.manual_seed(3)
    again = [CropFlipCutout(16, MEAN)(IMAGE) for _ in range(5)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert np.array_equal(before, IMAGE)
