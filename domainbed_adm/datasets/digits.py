"""RotatedDigits and ColoredDigits, of the handwritten digits that ship with scikit-learn: no download.

``mnist`` makes RotatedMNIST and ColoredMNIST of its images in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate
from torchvision.transforms.functional import InterpolationMode, rotate

from domainbed_adm.datasets.base import MultipleDomainDataset, TensorEnvironment, digest
from domainbed_adm.system.seeding import seed_hash

ANGLES = (0, 15, 30, 45, 60, 75)
LABEL_NOISE = 0.25
#: Probability, per environment, that the colour is not the label's.
COLOR_FLIPS = (0.1, 0.2, 0.9)


def scaled_up(images: torch.Tensor) -> torch.Tensor:
    """Images, float32 (n, side, side), at 28 px a side; themselves where they have it."""
    if images.shape[-1] == 28:
        return images
    return interpolate(images[:, None], size=(28, 28), mode="bilinear")[:, 0]


def rotated(images: torch.Tensor, digits: np.ndarray, number: int) -> TensorEnvironment:
    """Return environment ``number`` of the rotated digits.

    Each image is turned counter-clockwise by ``ANGLES[number]`` degrees about its centre, with bilinear
    interpolation and black outside. DomainBed turns 8-bit images, which truncates to multiples of 1/255; here nothing
    is rounded. Pixels at the image's very border are blended with the black outside.

    Args:
        images: float32 (n, 28, 28) in [0, 1].
        digits: int64 (n,).
        number: of the environment.

    Returns:
        Inputs of shape (1, 28, 28); targets are the digits.
    """
    inputs = images[:, None]
    if ANGLES[number]:
        inputs = rotate(inputs, ANGLES[number], InterpolationMode.BILINEAR, fill=[0.0])
    return TensorEnvironment(inputs, digits)


def colored(images: torch.Tensor, digits: np.ndarray, number: int) -> TensorEnvironment:
    """Return environment ``number`` of the coloured digits (Arjovsky et al., 2019, arXiv 1907.02893, section 5.1).

    The label is 1 for digits below 5, flipped with probability 0.25. The colour is the label, flipped with
    probability ``COLOR_FLIPS[number]``. Colour 1 leaves channel 0 black, colour 0 channel 1, as in DomainBed.

    Args:
        images: float32 (n, 28, 28) in [0, 1].
        digits: int64 (n,).
        number: of the environment.

    Returns:
        Inputs of shape (2, 28, 28); targets are the noisy labels.
    """
    random = np.random.RandomState(seed_hash("colors", number))
    labels = (digits < 5) ^ (random.random_sample(len(digits)) < LABEL_NOISE)
    colors = labels ^ (random.random_sample(len(digits)) < COLOR_FLIPS[number])
    inputs = images[:, None].repeat(1, 2, 1, 1)
    inputs[torch.arange(len(inputs)), torch.from_numpy(1 - colors.astype(np.int64))] = 0
    return TensorEnvironment(inputs, labels.astype(np.int64))


class DigitsDataset(MultipleDomainDataset):
    """Digits dealt out to environments: number i of n gets images i, i + n, i + 2n, ... of one fixed permutation.

    DomainBed permutes with the global generator, which each run's seed sets: there, two runs of one sweep have
    different images in environment i. Here the permutation and the colours are the same in every run, so that the
    runs that leave-one-domain-out selection pairs up saw the same environments.
    """

    @classmethod
    def load(cls, data_dir: str | None) -> tuple[torch.Tensor, np.ndarray]:
        """Return grey images in [0, 1], float32 of shape (n, side, side), and their digits, int64 of shape (n,)."""
        raise NotImplementedError

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        source, digits = self.load(data_dir)
        images = scaled_up(source)
        order = np.random.RandomState(seed_hash("digits")).permutation(len(digits))
        self.environments = list(self.card.environments or ())
        build, self.classes = (
            (rotated, list("0123456789")) if self.card.num_classes == 10 else (colored, ["5 to 9", "0 to 4"])
        )
        self.input_shape = self.card.input_shape
        self.normalization = None
        self.datasets = []
        for i in range(len(self.environments)):
            own = order[i :: len(self.environments)]
            environment = build(images[own], digits[own], i)
            # of the images as they were read: turned ones differ between machines in their last bits
            environment.fingerprint = digest(environment.targets, (255 * source[own]).round().byte().numpy())
            self.datasets.append(environment)


class ScikitDigits(DigitsDataset):
    """RotatedDigits and ColoredDigits."""

    @classmethod
    def load(cls, data_dir: str | None) -> tuple[torch.Tensor, np.ndarray]:
        """Return the 1797 images of 8 px a side; ``data_dir`` is not read."""
        from sklearn.datasets import load_digits  # here: a second to import, and MNIST does without

        digits = load_digits()
        return torch.from_numpy(digits.images).float() / 16, digits.target.astype(np.int64)
