"""Digits: which images an environment gets, how they are turned, how colour and label are tied."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.transforms.functional import InterpolationMode, rotate, to_pil_image, to_tensor

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.datasets.in_memory import ANGLES, COLOR_FLIPS, LABEL_NOISE, ScikitDigits, colored, rotated, scaled_up


@pytest.fixture(scope="module")
def images():
    small, digits = get_dataset_class("RotatedDigits").load(None)
    return scaled_up(small), digits


def build(name):
    return get_dataset_class(name)(None, [0], {})


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "sizes"),
    [("RotatedDigits", (1, 28, 28), 10, [300] * 3 + [299] * 3), ("ColoredDigits", (2, 28, 28), 2, [599] * 3)],
)
def test_attributes_and_items(name, shape, num_classes, sizes):
    dataset = build(name)
    assert (dataset.input_shape, dataset.num_classes, dataset.normalization) == (shape, num_classes, None)
    assert dataset.environments == type(dataset).ENVIRONMENTS == list(get_card(name).environments)
    assert (type(dataset).__name__, dataset.N_STEPS, dataset.CHECKPOINT_FREQ, dataset.N_WORKERS) == (name, 1001, 100, 0)
    assert [len(environment) for environment in dataset] == sizes
    for environment in dataset:
        x, y = environment[7]
        assert x.shape == shape
        assert x.dtype == torch.float32
        assert type(y) is int
        assert y == environment.targets[7]
        assert torch.equal(environment.train_item(7)[0], x)
        assert not environment.augmented
        assert environment.inputs.min() >= 0
        assert 0.9 < environment.inputs.max() <= 1
        assert set(environment.targets) == set(range(num_classes))


def test_images_are_scikit_learns_scaled_up(images):
    pixels, digits = images
    raw = load_digits()
    np.testing.assert_array_equal(digits, raw.target)
    corners = pixels[:, ::27, ::27].numpy()
    np.testing.assert_allclose(corners, raw.images[:, ::7, ::7] / 16, atol=1e-6)
    np.testing.assert_allclose(pixels.mean((1, 2)).numpy(), raw.images.mean((1, 2)) / 16, atol=0.02)


def test_environments_share_no_image_and_leave_none_out(images):
    dataset = build("ColoredDigits")
    grey = torch.cat([environment.inputs.sum(1) for environment in dataset])
    ours, theirs = (sorted(image.numpy().tobytes() for image in every) for every in (grey, images[0]))
    assert ours == theirs


@pytest.mark.parametrize("name", ["RotatedDigits", "ColoredDigits"])
def test_every_run_sees_the_same_and_no_generator_moves(name):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        first = build(name)
        assert torch.equal(before, torch.get_rng_state())
        assert np.array_equal(numpy_before, np.random.get_state()[1])  # noqa: NPY002
        torch.manual_seed(2)
        second = build(name)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert np.array_equal(one.targets, other.targets)


@pytest.mark.parametrize("number", range(len(ANGLES)))
def test_a_rotation_equals_domainbeds_up_to_its_rounding(images, number):
    eight_bit = (images[0][:40] * 255).byte()
    eight_bit[:, :4] = eight_bit[:, -4:] = eight_bit[:, :, :4] = eight_bit[:, :, -4:] = 0  # a margin, as MNIST's
    ours = rotated(eight_bit.float() / 255, images[1][:40], number).inputs
    theirs = torch.stack(
        [
            to_tensor(rotate(to_pil_image(image), ANGLES[number], InterpolationMode.BILINEAR, fill=(0,)))
            for image in eight_bit
        ]
    )
    assert (ours - theirs).abs().max() <= 1.01 / 255


def test_rotation_keeps_the_labels(images):
    assert np.array_equal(rotated(*images, 3).targets, images[1])


@pytest.mark.parametrize("number", range(len(COLOR_FLIPS)))
def test_colours_follow_labels_at_the_stated_rate(images, number):
    environment = colored(*images, number)
    ink = environment.inputs.sum((2, 3)) > 0
    assert torch.all(ink.sum(1) == 1)
    color = ink[:, 1].numpy()
    labels = environment.targets.astype(bool)
    spread = 4 / np.sqrt(len(labels)) / 2
    assert abs(np.mean(color != labels) - COLOR_FLIPS[number]) < spread
    assert abs(np.mean(labels != (images[1] < 5)) - LABEL_NOISE) < spread
    assert torch.equal(environment.inputs.sum(1), images[0])


def test_label_noise_of_environments_is_independent(images):
    noise = [colored(*images, number).targets != (images[1] < 5) for number in range(3)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(noise[i], noise[j])[0, 1]) < 0.1


@pytest.mark.parametrize("number", range(1, 6))
def test_rotation_is_torchvisions_to_the_bit(number):
    images = torch.rand(20, 28, 28, generator=torch.Generator().manual_seed(number))
    theirs = rotate(images[:, None], ANGLES[number], InterpolationMode.BILINEAR, fill=[0.0])
    assert torch.equal(rotated(images, np.zeros(20, dtype=np.int64), number).inputs, theirs)


def test_digits_are_those_that_scikit_learn_loads():
    from sklearn.datasets import load_digits

    theirs, (images, digits) = load_digits(), ScikitDigits.load(None)
    assert np.array_equal(digits, theirs.target)
    assert torch.equal(images, torch.from_numpy(theirs.images).float() / 16)
