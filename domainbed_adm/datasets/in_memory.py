"""Datasets held in memory: digits of scikit-learn and of MNIST, turned or coloured, and random noise for tests."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.nn.functional import grid_sample, interpolate

from domainbed_adm.datasets.base import MultipleDomainDataset, TensorEnvironment, digest
from domainbed_adm.datasets.classification.digits import digits_table
from domainbed_adm.datasets.layout import existing_data_dir
from domainbed_adm.errors import UserError, one_line
from domainbed_adm.system.seeding import seed_hash

ANGLES = (0, 15, 30, 45, 60, 75)
LABEL_NOISE = 0.25
#: Probability, per environment, that the colour is not the label's.
COLOR_FLIPS = (0.1, 0.2, 0.9)
#: Images of each environment of noise.
_IMAGES = 16
_MNIST_FILES = [f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]


class DebugDataset(MultipleDomainDataset):
    """Standard normal inputs and random labels, as in DomainBed, but the same in every run.

    The inputs are not pixels in [0, 1]; ADM's step is taken in their own units.
    """

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        random = torch.Generator().manual_seed(seed_hash("debug"))
        self.classes = ["0", "1"]
        self.datasets = []
        for _ in self.environments:
            inputs = torch.randn(_IMAGES, *self.input_shape, generator=random)
            targets = torch.randint(len(self.classes), (_IMAGES,), generator=random)
            self.datasets.append(TensorEnvironment(inputs, targets.numpy()))


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
        turned = self.card.num_classes == 10
        self.classes = list("0123456789") if turned else ["5 to 9", "0 to 4"]
        self.datasets = []
        for i in range(len(self.environments)):
            own = order[i :: len(self.environments)]
            environment = (rotated if turned else colored)(images[own], digits[own], i)
            # of the images as they were read: turned ones differ between machines in their last bits
            environment.fingerprint = digest(environment.targets, (255 * source[own]).round().byte().numpy())
            self.datasets.append(environment)


class ScikitDigits(DigitsDataset):
    """RotatedDigits and ColoredDigits, of the handwritten digits that ship with scikit-learn: no download."""

    @classmethod
    def load(cls, data_dir: str | None) -> tuple[torch.Tensor, np.ndarray]:
        """Return the 1797 images of 8 px a side; ``data_dir`` is not read."""
        table = digits_table()
        return torch.from_numpy(table[:, :-1]).float().view(-1, 8, 8) / 16, table[:, -1].astype(np.int64)


class MnistDigits(DigitsDataset):
    """RotatedMNIST and ColoredMNIST, of torchvision's MNIST, which is downloaded where it is not there."""

    @classmethod
    def load(cls, data_dir: str | None) -> tuple[torch.Tensor, np.ndarray]:
        """Return MNIST's 60,000 training and 10,000 test images, in this order, and their digits.

        Raises:
            UserError: there is no data_dir; or the files are not there and cannot be downloaded, or not be read.
        """
        from torchvision.datasets import MNIST  # here: two seconds, and other datasets do without

        folder = existing_data_dir(cls.card, data_dir)
        raw = folder / "MNIST" / "raw"
        try:
            if not all((raw / name).is_file() for name in _MNIST_FILES):
                _download_mnist(folder, raw)
            parts = [MNIST(str(folder), train=train) for train in (True, False)]
        except (OSError, RuntimeError, ValueError, AssertionError, EOFError) as error:
            raise UserError(
                f"{cls.card.name}: put the unpacked files {', '.join(_MNIST_FILES)} of MNIST in {raw} "
                f"(they could not be downloaded or read: {one_line(error)})"
            ) from error
        images = torch.cat([part.data for part in parts]).float() / 255
        return images, torch.cat([part.targets for part in parts]).numpy().astype(np.int64)


def _download_mnist(folder: Path, raw: Path) -> None:
    """Put MNIST's files in ``raw`` once all are there; archives that someone put there are unpacked."""
    from torchvision.datasets import MNIST

    with TemporaryDirectory(dir=folder, prefix=".mnist-") as scratch:
        fresh = Path(scratch) / "MNIST" / "raw"
        fresh.mkdir(parents=True)
        for archive in raw.glob("*.gz"):
            shutil.copy(archive, fresh)
        MNIST(scratch, download=True)
        raw.mkdir(parents=True, exist_ok=True)
        for name in _MNIST_FILES:
            (fresh / name).replace(raw / name)


def scaled_up(images: torch.Tensor) -> torch.Tensor:
    """Images, float32 (n, side, side), at 28 px a side; themselves where they have it."""
    if images.shape[-1] == 28:
        return images
    return interpolate(images[:, None], size=(28, 28), mode="bilinear")[:, 0]


def rotated(images: torch.Tensor, digits: np.ndarray, number: int) -> TensorEnvironment:
    """Environment ``number``: images, float32 (n, 28, 28) in [0, 1], turned by ``ANGLES[number]`` degrees.

    That is counter-clockwise about the centre, with bilinear interpolation and black outside, with which pixels at the
    very border are blended. DomainBed turns 8-bit images, which truncates to multiples of 1/255; here nothing is
    rounded. Inputs have shape (1, 28, 28); targets are the digits.
    """
    inputs = images[:, None]
    if ANGLES[number]:
        inputs = _turned(inputs, ANGLES[number])
    return TensorEnvironment(inputs, digits)


def _turned(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Turn images, (n, 1, side, side); to the bit what torchvision's ``rotate`` does, whose import takes seconds."""
    side = images.shape[-1]
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    line = torch.linspace(-(side - 1) / 2, (side - 1) / 2, side)
    pixels = torch.stack([line.expand(side, side), line[:, None].expand(side, side), torch.ones(side, side)], -1)
    turn = torch.tensor([[cos, -sin, 0.0], [sin, cos, 0.0]])
    places = (pixels.view(1, -1, 3) @ (turn.T[None] / torch.tensor([side / 2, side / 2]))).view(1, side, side, 2)
    covered = torch.cat([images, torch.ones_like(images)], 1)  # and how much of each pixel the image covers
    turned = grid_sample(covered, places.expand(len(images), -1, -1, -1), mode="bilinear", align_corners=False)
    return turned[:, :1] * turned[:, 1:]


def colored(images: torch.Tensor, digits: np.ndarray, number: int) -> TensorEnvironment:
    """Environment ``number`` of images in colour (Arjovsky et al., 2019, arXiv 1907.02893, section 5.1).

    The label is 1 for digits below 5, flipped with probability 0.25. The colour is the label, flipped with
    probability ``COLOR_FLIPS[number]``. Colour 1 leaves channel 0 black, colour 0 channel 1, as in DomainBed.
    Images are float32 (n, 28, 28) in [0, 1], inputs of shape (2, 28, 28); targets are the noisy labels.
    """
    random = np.random.RandomState(seed_hash("colors", number))
    labels = (digits < 5) ^ (random.random_sample(len(digits)) < LABEL_NOISE)
    colors = labels ^ (random.random_sample(len(digits)) < COLOR_FLIPS[number])
    inputs = images[:, None].repeat(1, 2, 1, 1)
    inputs[torch.arange(len(inputs)), torch.from_numpy(1 - colors.astype(np.int64))] = 0
    return TensorEnvironment(inputs, labels.astype(np.int64))
