"""An environment's fingerprint: equal for the same samples, wherever they lie; another one for other samples."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from domainbed_adm.datasets import CARDS, get_dataset_class
from domainbed_adm.datasets.base import Environment, TensorEnvironment
from domainbed_adm.errors import UserError


def fingerprints(data_dir, **hparams):
    dataset = get_dataset_class("Shapes")(str(data_dir), [0], {"image_size": 28, **hparams})
    return [environment.fingerprint for environment in dataset]


def circle(data_dir):
    return data_dir / "Shapes" / "dark" / "circle"


def relabelled(data_dir):
    first = circle(data_dir)
    second = first.with_name("square")
    (first / "0.jpg").rename(first / "kept")
    (second / "0.jpg").rename(first / "0.jpg")
    (first / "kept").rename(second / "0.jpg")


def moved(data_dir):
    first, second = (circle(data_dir).with_name(name) for name in ("circle", "square"))
    (first / "0.jpg").rename(second / "new.jpg")
    (second / "0.jpg").rename(first / "new.jpg")


def renamed(data_dir):
    (circle(data_dir) / "0.jpg").rename(circle(data_dir) / "00.jpg")


def drawn_anew(data_dir):
    path = circle(data_dir) / "0.jpg"
    path.write_bytes(path.read_bytes() + b"more")


@pytest.mark.parametrize("change", [relabelled, moved, renamed, drawn_anew])
def test_a_change_of_files_that_keeps_the_counts_shows(image_folder, change):
    before = fingerprints(image_folder)
    change(image_folder)
    after = fingerprints(image_folder)
    assert [a == b for a, b in zip(before, after, strict=True)] == [False, True, True]


def test_the_same_files_have_one_fingerprint_wherever_they_lie_and_however_they_are_seen(image_folder, tmp_path):
    copy = tmp_path / "elsewhere"
    shutil.copytree(image_folder, copy)
    expected = fingerprints(image_folder)
    assert fingerprints(copy, data_augmentation=False, image_size=32) == expected
    assert len(set(expected)) == 3
    assert all(len(value) == 16 for value in expected)


def test_a_file_that_has_gone_is_named(image_folder):
    dataset = get_dataset_class("Shapes")(str(image_folder), [0], {"image_size": 28})
    Path(dataset[0].paths[1]).unlink()
    with pytest.raises(UserError, match=r"cannot read image .*/1\.\w+: No such file"):
        dataset[0].fingerprint  # noqa: B018


@pytest.mark.parametrize("name", [name for name in CARDS if name.endswith(("Digits", "28"))])
def test_sets_in_memory_tell_their_environments_apart_and_are_the_same_each_time(name):
    first, second = ([data.fingerprint for data in get_dataset_class(name)(None, [0], {})] for _ in range(2))
    assert first == second
    assert len(set(first)) == len(first)


def test_another_target_or_pixel_shows():
    inputs, targets = torch.rand(5, 1, 2, 2), np.arange(5)
    other = inputs.clone()
    other[3, 0, 1, 1] += 0.25
    expected = TensorEnvironment(inputs, targets).fingerprint
    assert TensorEnvironment(inputs.clone(), list(targets)).fingerprint == expected
    assert TensorEnvironment(other, targets).fingerprint != expected
    assert TensorEnvironment(inputs, targets[::-1]).fingerprint != expected


def test_an_environment_of_ones_own_is_told_by_its_targets():
    one, other = Environment(), Environment()
    one.targets, other.targets = np.array([0, 1, 1]), np.array([1, 0, 1])
    assert one.fingerprint != other.fingerprint
