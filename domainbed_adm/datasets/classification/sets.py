"""Datasets of one source environment, ``train``, and official test sets; pixels of 8 bits, normalised on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from domainbed_adm.datasets.base import Environment, Item, MultipleDomainDataset, digest, to_inputs
from domainbed_adm.datasets.cards import DatasetCard, Normalization, get_card
from domainbed_adm.datasets.classification.augmentation import CropFlipCutout
from domainbed_adm.datasets.classification.cifar import (
    CIFAR,
    Images,
    open_corrupted,
    read_classes,
    read_corrupted_labels,
    read_split,
)
from domainbed_adm.datasets.classification.digits import corrupted_digits, split_digits
from domainbed_adm.datasets.layout import dataset_root


class PixelEnvironment(Environment):
    """An environment of :class:`Images` in memory; ``augment`` changes the pixels that training sees."""

    pixels: np.ndarray

    def __init__(
        self, images: Images, normalization: Normalization | None = None, augment: CropFlipCutout | None = None
    ) -> None:
        self.pixels, self.targets = images
        self.normalization, self.augment, self.augmented = normalization, augment, augment is not None

    @cached_property
    def fingerprint(self) -> str:
        """Of targets and pixels."""
        return digest(self.targets, self.pixels)

    def __getitem__(self, index: int) -> Item:
        pixels, target = self.compact_item(index, training=False)
        return to_inputs(pixels, self.normalization), target

    def train_item(self, index: int) -> Item:
        """Return sample ``index`` as training sees it: newly augmented at each call where ``augmented``."""
        pixels, target = self.compact_item(index, training=True)
        return to_inputs(pixels, self.normalization), target

    def compact_item(self, index: int, training: bool) -> Item:
        """Return the pixels of sample ``index``, uint8 of shape (channels, height, width), and its class index."""
        augment = self.augment if training else None
        pixels = augment(self.pixels[index]) if augment else np.array(self.pixels[index], order="C")
        return torch.from_numpy(pixels), int(self.targets[index])


class CorruptedEnvironment(PixelEnvironment):
    """One corruption at one severity of 1 to 5; an image is read when it is asked for, by each process from the file.

    Raises:
        UserError: the corruption's file is missing or not as it should be.
    """

    def __init__(
        self, root: Path, corruption: str, severity: int, targets: np.ndarray, normalization: Normalization | None
    ) -> None:
        self._file = root, corruption, severity
        super().__init__(Images(self.pixels, targets), normalization)

    @cached_property
    def pixels(self) -> np.ndarray:  # type: ignore[override]
        """Mapped into memory, uint8 of shape (n, 3, 32, 32)."""
        root, corruption, severity = self._file
        pixels: np.ndarray = open_corrupted(root, corruption)[severity - 1]
        return pixels

    @cached_property
    def fingerprint(self) -> str:
        """Of targets, and of every 1000th image: whole files would take seconds to read."""
        return digest(self.targets, self.pixels[::1000])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "pixels"}


def _cifar_train(
    card: DatasetCard, data_dir: str | None, hparams: Mapping[str, Any]
) -> tuple[PixelEnvironment, list[str]]:
    root, files, normalization = dataset_root(card, data_dir), CIFAR[card.name], card.normalization
    assert normalization
    augmented = hparams.get("data_augmentation", True)
    augment = CropFlipCutout(hparams.get("cutout", 0), normalization.mean) if augmented else None
    return PixelEnvironment(read_split(root, files, "train"), normalization, augment), read_classes(root, files)


class Cifar(MultipleDomainDataset):
    """CIFAR-10 or CIFAR-100, 32 px, from the binary files or torchvision's pickles.

    Raises:
        UserError: the files are not there, or not as the set's authors made them.
    """

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.normalization = self.card.normalization
        train, self.classes = _cifar_train(self.card, data_dir, hparams)
        test = read_split(dataset_root(self.card, data_dir), CIFAR[self.card.name], "test")
        self.datasets = [train, PixelEnvironment(test, self.normalization)]


class CorruptedCifar(MultipleDomainDataset):
    """CIFAR-10's or CIFAR-100's training images, and their test images under each corruption at each severity.

    The latter are mapped into memory: building the set reads labels only.

    Raises:
        UserError: the files of one of the two sets are not there, or not as their authors made them.
    """

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.normalization = self.card.normalization
        root = dataset_root(self.card, data_dir)
        labels = read_corrupted_labels(root, self.card.num_classes or 0)
        corrupted = []
        for environment in self.environments[1:]:
            name, _, severity = environment.rpartition("-")
            targets = labels[int(severity) - 1]
            corrupted.append(CorruptedEnvironment(root, name, int(severity), targets, self.normalization))
        train, self.classes = _cifar_train(get_card(self.card.train_of or ""), data_dir, hparams)
        self.datasets = [train, *corrupted]


class Digits(MultipleDomainDataset):
    """scikit-learn's digits, 28 px, a quarter of them as the test set; no download, and no normalisation."""

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.classes = list("0123456789")
        self.datasets = [PixelEnvironment(images) for images in split_digits().values()]


class CorruptedDigits(MultipleDomainDataset):
    """The training images of ``Digits``, and its test images under five corruptions at five severities."""

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        self.classes = list("0123456789")
        train, (pixels, targets) = split_digits().values()
        corrupted = [PixelEnvironment(Images(changed, targets)) for _, changed in corrupted_digits(pixels)]
        self.datasets = [PixelEnvironment(train), *corrupted]
