"""RotatedDigits and ColoredDigits, of the handwritten digits that ship with scikit-learn: no download."""

from __future__ import annotations

import numpy as np
import torch

from domainbed_adm.datasets.cards import DatasetCard
from domainbed_adm.datasets.digit_environments import DigitsDataset, class_of_digits


def load(card: DatasetCard, data_dir: str | None) -> tuple[torch.Tensor, np.ndarray]:
    """Return the 1797 images and their digits; the arguments are not read.

    Returns:
        Images in [0, 1], float32 of shape (1797, 8, 8), and digits, int64 of shape (1797,).
    """
    from sklearn.datasets import load_digits  # here: a second to import, and not every user of the class loads it

    digits = load_digits()
    return torch.from_numpy(digits.images).float() / 16, digits.target.astype(np.int64)


def dataset_class(card: DatasetCard) -> type[DigitsDataset]:
    """Return the class of RotatedDigits or ColoredDigits; its constructor is DomainBed's."""
    return class_of_digits(card, load)
