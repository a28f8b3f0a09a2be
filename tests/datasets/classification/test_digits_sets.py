"""Digits and DigitsC: the split, the enlarging, and each corruption against a slow twin; the same on every machine."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.datasets.classification.digits import corrupted, corrupted_digits, enlarged, split_digits

#: Of a few environments.
FINGERPRINTS = {
    "train": "b98a45e2bea55382",
    "noise-1": "5c46f5575bdfa6a3",
    "blur-3": "7d6fda0a9202254c",
    "contrast-5": "d6043b0ad2e5024e",
    "brightness-2": "c95f85dcc13971b3",
    "pixelate-4": "a958bbb439c1ad2c",
}


@pytest.fixture(scope="module")
def digits_c():
    return get_dataset_class("DigitsC")(None, list(range(1, 26)), {})


def test_the_split_is_a_quarter_for_testing_and_loses_nothing():
    split = split_digits()
    assert {name: len(images.targets) for name, images in split.items()} == {"train": 1348, "test": 449}
    together = np.concatenate([images.pixels[:, 0] for images in split.values()])
    expected = enlarged(load_digits().images.astype(int))
    assert sorted(image.tobytes() for image in together) == sorted(image.tobytes() for image in expected)
    for images in split.values():
        assert np.bincount(images.targets, minlength=10).min() > 0.07 * len(images.targets)


def test_a_label_stays_with_its_image():
    digits = load_digits()
    label_of = dict(zip((image.tobytes() for image in enlarged(digits.images.astype(int))), digits.target, strict=True))
    for images in split_digits().values():
        assert [label_of[image.tobytes()] for image in images.pixels[:, 0]] == images.targets.tolist()


def test_enlarging_is_bilinear():
    images = load_digits().images[:50]
    expected = torch.nn.functional.interpolate(torch.from_numpy(images)[:, None] / 16, size=(28, 28), mode="bilinear")
    np.testing.assert_allclose(enlarged(images.astype(int)), 255 * expected[:, 0].numpy(), atol=0.5 + 1e-6)


def test_digits_and_digits_c_share_their_training_images(digits_c):
    digits = get_dataset_class("Digits")(None, [1], {})
    assert digits[0].fingerprint == digits_c[0].fingerprint
    assert [len(environment) for environment in digits_c] == [1348] + [449] * 25
    for environment in list(digits_c)[1:]:
        assert environment.targets.tolist() == digits[1].targets.tolist()
        assert environment.pixels.shape == digits[1].pixels.shape == (449, 1, 28, 28)
        assert environment.fingerprint != digits[1].fingerprint
    x, _ = digits[0][0]
    assert x.dtype == torch.float32
    assert (x.min(), x.max() <= 1) == (0, True)


def test_the_pixels_are_the_same_on_every_machine(digits_c):
    found = {name: env.fingerprint for name, env in zip(digits_c.environments, digits_c, strict=True)}
    assert {name: found[name] for name in FINGERPRINTS} == FINGERPRINTS


def test_names_are_those_of_the_card(digits_c):
    names = [name for name, _ in corrupted_digits(np.zeros((1, 1, 28, 28), np.uint8))]
    assert ["train", *names] == list(get_card("DigitsC").environments) == digits_c.environments


def test_a_higher_severity_changes_more(digits_c):
    clean = split_digits()["test"].pixels.astype(float)
    distances = [np.sqrt(((env.pixels - clean) ** 2).mean()) for env in list(digits_c)[1:]]
    by_corruption = np.array(distances).reshape(5, 5)
    assert (np.diff(by_corruption, axis=1) > 0).all()
    assert by_corruption.min() > 1


def gauss(image, sigma):
    """A Gaussian of this width, cut at 4 sigma, the border mirrored, pixel by pixel."""
    radius = int(4 * sigma + 0.5)
    weights = [math.exp(-(d**2) / (2 * sigma**2)) for d in range(-radius, radius + 1)]
    weights = [weight / sum(weights) for weight in weights]
    side = len(image)

    def mirrored(i):
        i %= 2 * side
        return min(i, 2 * side - 1 - i)

    rows = [
        [sum(w * image[y][mirrored(x + d - radius)] for d, w in enumerate(weights)) for x in range(side)]
        for y in range(side)
    ]
    return [
        [sum(w * rows[mirrored(y + d - radius)][x] for d, w in enumerate(weights)) for x in range(side)]
        for y in range(side)
    ]


def pixelated(image, squares):
    """The mean over each square, from a picture that is drawn so large that squares and pixels both fit."""
    side = len(image)
    fine = np.kron(np.array(image), np.ones((squares, squares)))  # a pixel is `squares` wide, a square `side`
    means = fine.reshape(squares, side, squares, side).mean(axis=(1, 3))
    back = np.kron(means, np.ones((side, side)))
    centre = squares * np.arange(side) + squares // 2
    return back[np.ix_(centre, centre)]


TWINS = {
    "blur": ((1.0, 1.5, 2.0, 2.5, 3.0), gauss),
    "contrast": (
        (0.5, 0.4, 0.3, 0.2, 0.1),
        lambda image, c: [[np.mean(image) + c * (x - np.mean(image)) for x in row] for row in image],
    ),
    "brightness": ((0.1, 0.2, 0.3, 0.4, 0.5), lambda image, b: [[min(x + b, 1) for x in row] for row in image]),
    "pixelate": ((10, 8, 6, 5, 4), pixelated),
}


@pytest.mark.parametrize("name", TWINS)
def test_corruptions_are_what_the_table_says(name):
    pixels = split_digits()["test"].pixels[:2]
    strengths, twin = TWINS[name]
    for severity, strength in enumerate(strengths, 1):
        made = corrupted(pixels, name, severity)
        assert made.dtype == np.uint8
        for one, image in zip(made[:, 0], pixels[:, 0] / 255.0, strict=True):
            np.testing.assert_allclose(one, 255 * np.array(twin(image.tolist(), strength)), atol=0.5 + 1e-6)


def test_noise_is_normal_of_the_tables_width_and_new_at_each_severity():
    grey = np.full((200, 1, 28, 28), 128, np.uint8)
    noise = [corrupted(grey, "noise", severity) / 255.0 - 128 / 255 for severity in range(1, 6)]
    assert abs(noise[0].mean()) < 1e-3
    assert noise[0].std() == pytest.approx(0.1, rel=0.01)
    for k, of_severity in enumerate(noise, 1):  # quartiles, which clipping at 0 and 1 leaves alone
        assert np.percentile(of_severity, 75) == pytest.approx(min(0.1 * k * 0.6745, 127 / 255), abs=0.01)
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.02
    assert (corrupted(grey, "noise", 3) == corrupted(grey, "noise", 3)).all()
    assert not (noise[0][0] == noise[0][1]).all()
