"""Augmentation of training images, drawn per sample and computed for a whole batch on its device.

The same distributions as ``transforms.augment_transform``. DomainBed's (:func:`draw`): a random crop of 70 to 100 % of
the area resized to a square, a flip, colour jitter of 0.3 in brightness, contrast, saturation and hue in random order,
and grey for one in ten. The fine-grained recipes' (:func:`draw_windows`): a window of the size asked for, and a flip.
Pixels are levels from 0 to 255 throughout, rounded as Pillow rounds them after each operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from domainbed_adm.datasets.base import constants
from domainbed_adm.system.seeding import raw_stream

AREA, RATIO, ATTEMPTS = (0.7, 1.0), (3 / 4, 4 / 3), 10
JITTER, FLIPPED, GREY = 0.3, 0.5, 0.1
#: Weights of red, green and blue in Pillow's grey.
LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)


@dataclass(frozen=True)
class Draws:
    """The random choices for n images, on the CPU; without any colours where none are changed.

    Attributes:
        boxes: int64 of shape (n, 4): top, left, height and width of the crop.
        flipped: bool of shape (n,).
        order: int64 of shape (n, 4), a permutation each of brightness 0, contrast 1, saturation 2, hue 3; or (n, 0).
        factors: float64 of the same shape, of the operations 0 to 3; hue in turns, from -0.3 to 0.3.
        grey: bool of shape (n,).
    """

    boxes: NDArray[np.int64]
    flipped: NDArray[np.bool_]
    order: NDArray[np.int64]
    factors: NDArray[np.float64]
    grey: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """Those of several groups of images, one after another."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def of(self, images: Sequence[int]) -> Draws:
        """Those of some of the images, by their numbers."""
        return Draws(*(getattr(self, field.name)[list(images)] for field in fields(self)))


def draw(sizes: NDArray[np.int64], *key: object) -> Draws:
    """The draws for n images, a function of their sizes and of ``key`` alone; image i's do not depend on the others.

    Args:
        sizes: shape (n, 2), height and width.
        *key: as in ``seeding.raw_stream``.
    """
    n = len(sizes)
    numbers = raw_stream(n * (4 * ATTEMPTS + 10), *key).reshape(n, -1) / 2.0**64
    crop, rest = numbers[:, : 4 * ATTEMPTS].reshape(n, ATTEMPTS, 4), numbers[:, 4 * ATTEMPTS :]
    factors = 1 + JITTER * (2 * rest[:, :4] - 1)
    factors[:, 3] -= 1
    return Draws(_boxes(sizes, crop), rest[:, 8] < FLIPPED, rest[:, 4:8].argsort(1), factors, rest[:, 9] < GREY)


def draw_windows(sizes: NDArray[np.int64], side: int, *key: object) -> Draws:
    """The same for windows of ``side`` px at any place in images that are no smaller, each place as likely."""
    n = len(sizes)
    numbers = raw_stream(3 * n, *key).reshape(n, 3) / 2.0**64
    corner = np.floor(numbers[:, :2] * (sizes - side + 1)).astype(np.int64)
    boxes = np.concatenate([corner, np.full((n, 2), side)], 1)
    no_colours = np.empty((n, 0), np.int64), np.empty((n, 0)), np.zeros(n, np.bool_)
    return Draws(boxes, numbers[:, 2] < FLIPPED, *no_colours)


def _boxes(sizes: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
    """The first of ten tries that lies within the image, as torchvision does it; else the largest box in the middle."""
    full = sizes[:, None, :]
    area = full.prod(2) * (AREA[0] + (AREA[1] - AREA[0]) * uniform[:, :, 0])
    ratio = np.exp(np.log(RATIO[0]) + (np.log(RATIO[1]) - np.log(RATIO[0])) * uniform[:, :, 1])
    tries = np.stack([np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))], 2).astype(np.int64)
    fits = ((tries > 0) & (tries <= full)).all(2)
    first = fits.argmax(1)[:, None, None]
    size = np.take_along_axis(tries, first, 1)[:, 0]
    corner = np.take_along_axis(uniform[:, :, 2:], first, 1)[:, 0]
    height, width = sizes[:, 0], sizes[:, 1]
    largest = np.stack(
        [
            np.where(width / height < RATIO[0], np.rint(width / RATIO[0]), height),
            np.where(width / height > RATIO[1], np.rint(height * RATIO[1]), width),
        ],
        1,
    ).astype(np.int64)
    found = np.any(fits, axis=1, keepdims=True)
    size = np.where(found, size, largest)
    random_place = np.floor(corner * (sizes - size + 1)).astype(np.int64)
    place = np.where(found, random_place, (sizes - size) // 2)
    return np.concatenate([place, size], 1)


@dataclass(frozen=True)
class RawImages:
    """n images of several sizes that are to be augmented, and what was drawn for them; see :func:`raw_images`.

    Attributes:
        pixels: uint8, the images one after another, each (height, width, channels); None: they lie on the device.
        table: float64 of shape (14, n), all that the device reads: of each crop its first byte, the bytes from row to
            row, height and width; whether it is flipped; which images are grey first; for each of four turns of jitter
            which images have brightness, then contrast, saturation and hue, and their factors in that order. Without
            colours of shape (6, n).
        counts: how many images have each operation, turn by turn.
        grey: how many are grey.
        largest: height and width that hold every crop.
        shape: of the results: channels, 1 or 3, and twice the pixels a side.
    """

    pixels: Tensor | None
    table: NDArray[np.float64] | Tensor
    counts: list[list[int]]
    grey: int
    largest: tuple[int, int]
    shape: tuple[int, int, int]

    def pin_memory(self) -> RawImages:
        """The same in page-locked memory, for transfers beside computation."""
        pixels = None if self.pixels is None else self.pixels.pin_memory()
        return replace(self, pixels=pixels, table=torch.as_tensor(self.table).pin_memory())

    def augmented(self, device: torch.device, held: Tensor | None = None) -> Tensor:
        """Augment on the device; the host does not wait for it.

        Args:
            device: where.
            held: the images on the device already, uint8, where ``pixels`` is None.

        Returns:
            uint8 of shape (n, *shape).
        """
        channels, image_size, _ = self.shape
        pixels = held if self.pixels is None else self.pixels.to(device, non_blocking=True)
        assert pixels is not None
        table = torch.as_tensor(self.table).to(device, non_blocking=True)
        first, stride, height, width, flipped = table[:5].long()
        levels = _crops(pixels, first, stride, self.largest, channels).float()
        levels = resize(levels, height, width, flipped.bool(), image_size)
        turns = len(self.counts)
        for rows, factors, counts in zip(
            table[6 : 6 + turns].long(), table[6 + turns :].float(), self.counts, strict=True
        ):
            turn = zip(OPERATIONS, rows.split(counts), factors.view(-1, 1, 1, 1).split(counts), strict=True)
            for operation, chosen, factor in turn:
                if len(chosen) and (channels == 3 or operation in {brightness, contrast}):
                    levels[chosen] = operation(levels[chosen], factor)
        if self.grey and channels == 3:
            chosen = table[5, : self.grey].long()
            levels[chosen] = grey(levels[chosen]).expand(-1, 3, -1, -1)
        return levels.to(torch.uint8)


def raw_images(
    pixels: Tensor | None,
    starts: NDArray[np.int64],
    sizes: NDArray[np.int64],
    draws: Draws,
    shape: tuple[int, int, int],
) -> RawImages:
    """Lay out images and draws for the device; on the CPU.

    Args:
        pixels: as in :class:`RawImages`.
        starts: where each image begins in them, in bytes, shape (n,).
        sizes: height and width of each, shape (n, 2).
        draws: for these images.
        shape: of the results.
    """
    top, left, height, width = draws.boxes.T
    stride = sizes[:, 1] * shape[0]
    rows = draws.order.argsort(0, kind="stable")
    factors = np.take_along_axis(np.take_along_axis(draws.factors, draws.order, 1), rows, 0)
    crops = starts + top * stride + left * shape[0], stride, height, width
    grey_first = (~draws.grey).argsort(kind="stable")
    table = np.stack([*crops, draws.flipped, grey_first, *rows.T, *factors.T]).astype(float)
    counts = [np.bincount(turn, minlength=len(OPERATIONS)).tolist() for turn in draws.order.T]
    largest = int(height.max()), int(width.max())
    return RawImages(pixels, table, counts, int(draws.grey.sum()), largest, shape)


def _crops(pixels: Tensor, first: Tensor, stride: Tensor, largest: tuple[int, int], channels: int) -> Tensor:
    """Each crop in the upper left corner of one of uint8 (n, channels, *largest), beside bytes that mean nothing."""
    rows, columns = (torch.arange(length, device=pixels.device) for length in largest)
    places = (first.view(-1, 1, 1) + stride.view(-1, 1, 1) * rows.view(-1, 1) + channels * columns).clamp_(
        max=len(pixels) - channels
    )
    every = pixels.as_strided((len(pixels) - channels + 1, channels), (1, 1))  # each byte and those that follow it
    return every[places].permute(0, 3, 1, 2)


def resize(levels: Tensor, height: Tensor, width: Tensor, flipped: Tensor, image_size: int) -> Tensor:
    """Resize the upper left (height, width) of each image to a square with Pillow's bilinear filter, flip where told.

    Resizing is linear in rows and in columns: one matrix product each, whose matrices hold size and flip too.
    """
    columns = _resizing(width.float(), levels.shape[3], image_size)
    columns = torch.where(flipped.view(-1, 1, 1), columns.flip(1), columns)
    rows = _resizing(height.float(), levels.shape[2], image_size)
    narrow = (levels @ columns.mT.unsqueeze(1)).round_()
    return (rows.unsqueeze(1) @ narrow).round_()


def _resizing(length: Tensor, full: int, image_size: int) -> Tensor:
    """Matrices (n, image_size, full) of the triangle filter over each length, as wide as the scale where it shrinks."""
    scale = (length / image_size).view(-1, 1, 1)
    centre = (torch.arange(image_size, device=length.device).view(1, -1, 1) + 0.5) * scale
    place = torch.arange(full, device=length.device).view(1, 1, -1)
    weights = (1 - (place + 0.5 - centre).abs() / scale.clamp(min=1)).clamp_(min=0)
    weights *= place < length.view(-1, 1, 1)
    return weights / weights.sum(2, keepdim=True)


def grey(levels: Tensor) -> Tensor:
    """Pillow's grey of colour images, shape (n, 1, H, W)."""
    luma = constants(LUMA, levels.device).view(3, 1, 1)
    return (levels * luma).sum(1, keepdim=True).add_(0.5).floor_()


def _blend(other: Tensor, levels: Tensor, factor: Tensor) -> Tensor:
    return (other + factor * (levels - other)).clamp_(0, 255).floor_()


def brightness(levels: Tensor, factor: Tensor) -> Tensor:
    """``factor`` times the levels, clipped."""
    return _blend(torch.zeros_like(levels), levels, factor)


def contrast(levels: Tensor, factor: Tensor) -> Tensor:
    """Blended with the image's mean grey."""
    one = grey(levels) if levels.shape[1] == 3 else levels
    return _blend(one.mean((1, 2, 3), keepdim=True).add_(0.5).floor_(), levels, factor)


def saturation(levels: Tensor, factor: Tensor) -> Tensor:
    """Blended with the image's own grey."""
    return _blend(grey(levels), levels, factor)


def hue(levels: Tensor, factor: Tensor) -> Tensor:
    """Turned on the colour circle by ``factor`` turns, in Pillow's HSV of 8 bits."""
    value, least = levels.amax(1, keepdim=True), levels.amin(1, keepdim=True)
    spread = value - least
    far = (value - levels) / spread.clamp(min=1)
    red, green, blue = far[:, :1], far[:, 1:2], far[:, 2:]
    at_red, at_green = levels[:, :1] == value, levels[:, 1:2] == value
    sector = torch.where(at_red, blue - green, torch.where(at_green, 2 + red - blue, 4 + green - red))
    circle = torch.where(spread == 0, 0.0, (sector / 6 + 1) % 1)
    turned = ((circle * 255).floor_() + (factor * 255).trunc()) % 256
    saturated = (spread / value.clamp(min=1) * 255).floor_() / 255
    sextant = turned * (6 / 255)
    place = constants((5.0, 3.0, 1.0), levels.device).view(3, 1, 1)
    k = (place + sextant) % 6
    mixed = 1 - saturated * torch.minimum(k, 4 - k).clamp(0, 1)
    return (value * mixed).round_().clamp_(0, 255)


#: The operations of colour jitter, by their numbers in ``Draws``.
OPERATIONS = (brightness, contrast, saturation, hue)
