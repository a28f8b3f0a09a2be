"""Digits and DigitsC: scikit-learn's handwritten digits with a fixed split, and their test images corrupted.

Everything is 8-bit pixels made by integer arithmetic, or in float64 and then rounded, from generators whose numbers
NumPy keeps: the same on every machine. Loads no torch.

=========== =================================================== ==============================
corruption  pixels x in [0, 1], clipped and rounded after it    at severity 1 to 5
=========== =================================================== ==============================
noise       x + s n, n standard normal                          s = 0.1, 0.2, 0.3, 0.4, 0.5
blur        Gaussian of s px                                    s = 1, 1.5, 2, 2.5, 3
contrast    m + c (x - m), m the image's mean                   c = 0.5, 0.4, 0.3, 0.2, 0.1
brightness  x + b                                               b = 0.1, 0.2, 0.3, 0.4, 0.5
pixelate    means over k x k equal squares                      k = 10, 8, 6, 5, 4
=========== =================================================== ==============================

The names are those of CIFAR-10-C; the strengths are ours.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from domainbed_adm.datasets.cards import DIGITS_CORRUPTIONS, SEVERITIES
from domainbed_adm.datasets.classification.cifar import Images
from domainbed_adm.errors import UserError
from domainbed_adm.system.seeding import seed_hash

SIDE = 28
#: Share of the images that are test images.
_TEST = 0.25
_STRENGTHS = {
    "noise": (0.1, 0.2, 0.3, 0.4, 0.5),
    "blur": (1.0, 1.5, 2.0, 2.5, 3.0),
    "contrast": (0.5, 0.4, 0.3, 0.2, 0.1),
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
    "pixelate": (10, 8, 6, 5, 4),
}


def split_digits() -> dict[str, Images]:
    """The 1797 images at 28 px, (n, 1, 28, 28): "test" is the first quarter of one fixed permutation, "train" the rest.

    Seeds of a run change nothing of it.
    """
    table = digits_table().astype(np.int64)
    pixels, targets = enlarged(table[:, :-1].reshape(-1, 8, 8)), table[:, -1]
    order = np.random.RandomState(seed_hash("Digits", "split")).permutation(len(targets))
    cut = int(len(order) * _TEST)
    return {
        name: Images(pixels[keys, None], targets[keys])
        for name, keys in (("train", order[cut:]), ("test", order[:cut]))
    }


def digits_table() -> np.ndarray:
    """The 64 pixels, 0 to 16, and the digit of each image; read from scikit-learn's file, as its import takes seconds.

    Raises:
        UserError: scikit-learn is not installed.
    """
    found = find_spec("sklearn")
    if found is None or found.origin is None:
        raise UserError("digits need scikit-learn: pip install scikit-learn")
    return np.loadtxt(Path(found.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")


def enlarged(images: np.ndarray) -> np.ndarray:
    """Integer grey values of 0 to 16, (n, 8, 8), as pixels of 0 to 255 at 28 px, uint8 of shape (n, 28, 28).

    Bilinear, as ``RotatedDigits``, but in integers, so that no machine rounds otherwise.
    """
    place = np.clip(4 * np.arange(SIDE) - 5, 0, 98)  # of pixel i in the small image: (i + 1/2) 8/28 - 1/2, in 14ths
    weights = np.zeros((SIDE, 8), dtype=np.int64)
    low = place // 14
    weights[np.arange(SIDE), low] += 14 - place % 14
    weights[np.arange(SIDE), np.minimum(low + 1, 7)] += place % 14
    whole = 16 * 14 * 14
    return np.asarray((weights @ images @ weights.T * 255 * 2 + whole) // (2 * whole), dtype=np.uint8)


def corrupted_digits(pixels: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield "<corruption>-<severity>" and these pixels, uint8 of shape (n, 1, 28, 28), so corrupted, in fixed order."""
    for name in DIGITS_CORRUPTIONS:
        for severity in range(1, SEVERITIES + 1):
            yield f"{name}-{severity}", corrupted(pixels, name, severity)


def corrupted(pixels: np.ndarray, name: str, severity: int) -> np.ndarray:
    """Pixels, uint8 of shape (n, 1, side, side), under one corruption at a severity of 1 to 5: the table above."""
    strength, x = _STRENGTHS[name][severity - 1], pixels / 255.0
    if name == "noise":
        x += strength * np.random.RandomState(seed_hash("DigitsC", severity)).standard_normal(x.shape)
    elif name == "blur":
        from scipy.ndimage import gaussian_filter  # here: listings do without

        x = gaussian_filter(x, (0, 0, strength, strength))
    elif name == "contrast":
        mean = x.mean(axis=(1, 2, 3), keepdims=True)
        x = mean + strength * (x - mean)
    elif name == "brightness":
        x += strength
    else:
        x = _pixelated(x, int(strength))
    return np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8)


def _pixelated(x: np.ndarray, squares: int) -> np.ndarray:
    """Means over ``squares`` x ``squares`` equal squares, of which each pixel shows the one that its centre lies in."""
    side = x.shape[-1]
    edges = np.arange(squares + 1) * side / squares
    first, last = edges[:-1, None], edges[1:, None]
    covered = np.clip(np.minimum(np.arange(side) + 1, last) - np.maximum(np.arange(side), first), 0, None)
    means = (covered @ x @ covered.T) * (squares / side) ** 2
    shown = (2 * np.arange(side) + 1) * squares // (2 * side)
    return np.asarray(means[..., shown[:, None], shown])
