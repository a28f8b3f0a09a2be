"""Augmentation of the CIFAR recipes: a crop of the padded image, a flip, and Cutout."""

from __future__ import annotations

import numpy as np
import torch

PADDING = 4


class CropFlipCutout:
    """Augments an image, uint8 of shape (channels, height, width), by six numbers of torch's global generator.

    Black borders of 4 px are added, a window of the image's size is cut out of that at random, and flipped in one of
    two. Then, in one of two, a square of ``cutout`` px is painted over, whose corner lies up to half its side outside
    (DeVries and Taylor, 2017, arXiv 1708.04552; the chance is that of F-SAM's authors). 0 means no Cutout.

    Its colour is the training images' mean, rounded to 8 bits: after the normalisation it is within 0.01 of the 0 that
    the recipes paint with.
    """

    def __init__(self, cutout: int, mean: tuple[float, ...]) -> None:
        self.cutout = cutout
        self._fill = np.rint(255 * np.array(mean)).astype(np.uint8).reshape(-1, 1, 1)

    def __call__(self, pixels: np.ndarray) -> np.ndarray:  # noqa: D102
        top, left, flip, painted, *corner = torch.rand(6).tolist()
        down, right = (int(place * (2 * PADDING + 1)) - PADDING for place in (top, left))
        window = np.zeros(pixels.shape, pixels.dtype)
        (rows, from_rows), (columns, from_columns) = (
            _overlap(shift, size) for shift, size in zip((down, right), pixels.shape[1:], strict=True)
        )
        window[:, rows, columns] = pixels[:, from_rows, from_columns]
        if flip < 0.5:
            window = np.ascontiguousarray(window[:, :, ::-1])
        if self.cutout and painted < 0.5:
            places = zip(corner, pixels.shape[1:], strict=True)
            rows, columns = (_square(place, self.cutout, size) for place, size in places)
            window[:, rows, columns] = self._fill
        return window


def _overlap(shift: int, size: int) -> tuple[slice, slice]:
    """Where a window that is moved by ``shift`` shows the image, and what part of the image."""
    return slice(max(0, -shift), size - max(0, shift)), slice(max(0, shift), size + min(0, shift))


def _square(place: float, side: int, size: int) -> slice:
    """The part of an image's side that Cutout paints; ``place`` in [0, 1)."""
    start = int(place * size) - side // 2
    return slice(max(0, start), start + side)
