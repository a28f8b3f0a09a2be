"""From an image file's pixels to those that evaluation and training see, by the hparam ``image_crop``.

==============  ==========================================  ==================================================
``image_crop``  evaluation                                  training, where images are augmented
==============  ==========================================  ==================================================
None            the whole image resized to a square, as in  DomainBed's: RandomResizedCrop(scale (0.7, 1)),
                DomainBed, whatever its aspect              flip, ColorJitter, RandomGrayscale
"short_side"    its short side resized to ``resize_to`` px, the same resizing, a window at random, flipped for
                then the window in its middle               one image in two
"square"        both its sides, then the same               both its sides, then the same
==============  ==========================================  ==================================================

The last two are the fine-grained recipes'. ``resize_to`` 0 is 8/7 of ``image_size``: 256 px for 224, 512 for 448.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torchvision import transforms

from domainbed_adm.datasets.augmentation import AREA, FLIPPED, GREY, JITTER
from domainbed_adm.errors import UserError


@dataclass(frozen=True)
class Resize:
    """Resizes an image with Pillow's bilinear filter so that its short side has ``side`` px, or both have (``square``).

    As torchvision's ``Resize``: the long side is rounded down. As text it names the kind and the side.
    """

    side: int
    square: bool

    def __call__(self, image: Image.Image) -> Image.Image:  # noqa: D102
        short = min(image.size)
        width, height = (self.side if self.square else self.side * length // short for length in image.size)
        return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.BILINEAR)

    def __str__(self) -> str:
        return f"{'square' if self.square else 'short'}{self.side}"


def first_resize(hparams: Mapping[str, Any]) -> Resize | None:
    """What evaluation and training both begin with; None where ``image_crop`` is, also where it is missing.

    Raises:
        UserError: ``resize_to`` is smaller than ``image_size``.
    """
    crop, size, side = hparams.get("image_crop"), hparams.get("image_size", 224), hparams.get("resize_to", 0)
    if crop is None:
        return None
    if side and side < size:
        raise UserError(f"hparam resize_to must be 0 or at least image_size, {size} px, not {side}")
    return Resize(side or round(size * 8 / 7), crop == "square")


def eval_transform(image_size: int, channels: int = 3, resize: Resize | None = None) -> transforms.Compose:
    """Return the transform of evaluation, up to the pixels.

    It maps an image of ``load_image`` to uint8 of shape (channels, image_size, image_size), channels being 1 or 3.
    """
    grey = [transforms.Grayscale()] if channels == 1 else []
    sized = [resize, transforms.CenterCrop(image_size)] if resize else [transforms.Resize((image_size, image_size))]
    return transforms.Compose([*grey, *sized, transforms.PILToTensor()])


def augment_transform(image_size: int, resize: Resize | None = None) -> transforms.Compose:
    """Return the transform of training, up to the pixels, which draws from torch's global generator."""
    flip = transforms.RandomHorizontalFlip(FLIPPED)
    if resize:
        return transforms.Compose([resize, transforms.RandomCrop(image_size), flip, transforms.PILToTensor()])
    crop = transforms.RandomResizedCrop(image_size, scale=AREA)
    colours = transforms.ColorJitter(*[JITTER] * 4), transforms.RandomGrayscale(GREY)
    return transforms.Compose([crop, flip, *colours, transforms.PILToTensor()])
