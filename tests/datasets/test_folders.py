"""Folder datasets: order and labels as DomainBed's, labels that do not shift, views, and errors."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import IMAGENET, IMAGENET_GREY
from domainbed_adm.datasets.folders import load_image
from domainbed_adm.errors import UserError

SMALL = {"image_size": 28}


def shapes(data_dir, test_envs=(0,), **hparams):
    return get_dataset_class("Shapes")(str(data_dir), list(test_envs), {**SMALL, **hparams})


def test_order_and_labels_equal_image_folder(image_folder):
    nested = image_folder / "Shapes" / "light" / "square"
    (nested / "more").mkdir()
    shutil.copy(nested / "0.jpg", nested / "more" / "00.jpg")
    dataset = shapes(image_folder)
    assert dataset.environments == ["dark", "light", "tinted"]
    for name, environment in zip(dataset.environments, dataset, strict=True):
        expected = ImageFolder(str(image_folder / "Shapes" / name))
        assert list(zip(environment.paths, environment.targets.tolist(), strict=True)) == expected.samples
        assert dataset.classes == expected.classes


def test_pixels_equal_those_of_an_image_folder(image_folder):
    dataset = shapes(image_folder)
    normalize = transforms.Normalize(IMAGENET.mean, IMAGENET.std)
    transform = transforms.Compose([transforms.Resize((28, 28)), transforms.ToTensor(), normalize])
    expected = ImageFolder(str(image_folder / "Shapes" / "tinted"), transform=transform)
    for (x, y), (expected_x, expected_y) in zip(dataset[2], expected, strict=True):
        assert torch.equal(x, expected_x)
        assert y == expected_y


def test_a_missing_class_shifts_no_label(image_folder):
    shutil.rmtree(image_folder / "Shapes" / "light" / "circle")
    dataset = shapes(image_folder)
    assert dataset.classes == ["circle", "square"]
    assert dataset.num_classes == 2
    assert set(dataset[1].targets) == {1}
    assert set(dataset[0].targets) == {0, 1}


def test_attributes_of_a_folder_of_ones_own(image_folder):
    kind = get_dataset_class("Shapes")
    assert kind.ENVIRONMENTS is None
    assert (kind.N_STEPS, kind.CHECKPOINT_FREQ, kind.N_WORKERS) == (5001, 300, 8)
    dataset = shapes(image_folder)
    assert dataset.environments == dataset.ENVIRONMENTS
    assert dataset.input_shape == (3, 28, 28)
    assert dataset.normalization == IMAGENET
    assert len(dataset) == 3


def test_the_defaults_are_domainbeds(image_folder):
    dataset = get_dataset_class("Shapes")(str(image_folder), [0], {})
    assert dataset.input_shape == (3, 224, 224)
    assert [environment.augmented for environment in dataset] == [False, True, True]
    assert dataset[0][0][0].shape == (3, 224, 224)


def test_evaluation_is_not_augmented_and_training_is(image_folder):
    source = shapes(image_folder)[1]
    x, y = source[3]
    assert torch.equal(x, source[3][0])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        first, label = source.train_item(3)
        second = source.train_item(3)[0]
        torch.manual_seed(0)
        assert torch.equal(first, source.train_item(3)[0])
    assert label == y
    assert first.shape == x.shape
    assert not torch.equal(first, second)
    assert not torch.equal(first, x)


@pytest.mark.parametrize(("test_envs", "augmentation"), [((1,), True), ((0,), False)])
def test_no_augmentation_where_held_out_or_switched_off(image_folder, test_envs, augmentation):
    environment = shapes(image_folder, test_envs, data_augmentation=augmentation)[1]
    assert not environment.augmented
    assert torch.equal(environment.train_item(2)[0], environment[2][0])


def test_items_are_normalised_as_stated(image_folder):
    dataset = shapes(image_folder)
    pixels = np.asarray(load_image(dataset[1].paths[0]).resize((28, 28), Image.Resampling.BILINEAR)) / 255
    expected = (pixels - np.array(IMAGENET.mean)) / np.array(IMAGENET.std)
    x, y = dataset[1][0]
    assert x.dtype == torch.float32
    assert type(y) is int
    np.testing.assert_allclose(x.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


def test_grey_images_have_one_channel(image_folder):
    dataset = shapes(image_folder, image_channels=1)
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.normalization == IMAGENET_GREY
    assert dataset[0][0][0].shape == (1, 28, 28)
    with torch.random.fork_rng():
        assert dataset[1].train_item(0)[0].shape == (1, 28, 28)


def test_environments_travel_to_worker_processes(image_folder):
    environment = shapes(image_folder)[1]
    copy = pickle.loads(pickle.dumps(environment))
    assert torch.equal(copy[4][0], environment[4][0])


def test_the_global_generators_are_left_alone(image_folder):
    before = torch.get_rng_state()
    shapes(image_folder)[1][0]
    assert torch.equal(before, torch.get_rng_state())


def test_a_named_dataset_has_its_number_of_domains(image_folder):
    (image_folder / "Shapes").rename(image_folder / "PACS")
    with pytest.raises(UserError, match=r"PACS has 4 domains \(A, C, P, S\), but .* 3 folders: dark, light, tinted"):
        get_dataset_class("PACS")(str(image_folder), [0], SMALL)


def test_a_named_dataset_keeps_its_names(image_folder):
    (image_folder / "Shapes").rename(image_folder / "PACS")
    shutil.copytree(image_folder / "PACS" / "light", image_folder / "PACS" / "zebra")
    dataset = get_dataset_class("PACS")(str(image_folder), [0], SMALL)
    assert dataset.environments == dataset.ENVIRONMENTS == ["A", "C", "P", "S"]
    assert dataset[3].paths[0].startswith(str(image_folder / "PACS" / "zebra"))


def test_a_class_folder_without_image_is_named(image_folder):
    empty = image_folder / "Shapes" / "light" / "triangle"
    empty.mkdir()
    (empty / "notes.txt").write_text("no image")
    with pytest.raises(UserError) as caught:
        shapes(image_folder)
    assert f"{empty}: class folder without an image: fill it or remove it" in str(caught.value)


def test_a_domain_without_classes_is_named(image_folder):
    (image_folder / "Shapes" / "void").mkdir()
    with pytest.raises(UserError, match=r"/void: domain folder without a class folder \(<domain>/<class>\)"):
        shapes(image_folder)


@pytest.mark.parametrize("damage", [b"", b"no image at all"])
def test_an_image_that_cannot_be_decoded_is_named(image_folder, damage):
    environment = shapes(image_folder)[0]
    Path(environment.paths[2]).write_bytes(damage)
    assert environment[1][0].shape == (3, 28, 28)
    with pytest.raises(UserError, match=r"cannot decode image .*2\.jpg"):
        environment[2]


def test_hidden_files_are_no_samples(image_folder):
    samples = len(shapes(image_folder)[0])
    folder = image_folder / "Shapes" / "dark" / "circle"
    (folder / "._0.jpg").write_bytes(b"a Mac's companion of 0.jpg")
    (folder / ".thumbnails").mkdir()
    shutil.copy(folder / "0.jpg", folder / ".thumbnails" / "0.jpg")
    assert len(shapes(image_folder)[0]) == samples


def test_a_truncated_image_is_named(image_folder):
    path = image_folder / "Shapes" / "dark" / "circle" / "0.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"cannot decode image .*0\.jpg"):
        load_image(path)


def test_two_channels_are_no_image(image_folder):
    with pytest.raises(UserError, match=r"1 channel \(grey\) or 3 \(colour\), not 2"):
        load_image(image_folder / "Shapes" / "dark" / "circle" / "0.jpg", channels=2)


def test_samples_are_torchvisions_in_their_order(image_folder):
    nested = image_folder / "Shapes" / "dark" / "circle"
    for name in ("a/b/1.PNG", "a b/1.png", "a/0.jpg", "a.jpg/2.png"):
        (nested / name).parent.mkdir(parents=True, exist_ok=True)
        (nested / name).write_bytes(b"any")
    ours = shapes(image_folder).datasets[0]
    theirs = ImageFolder(str(image_folder / "Shapes" / "dark"))
    assert list(zip(ours.paths, ours.targets.tolist(), strict=True)) == theirs.samples


@pytest.mark.parametrize("kind", ["folder", "itself", "pipe", "nothing", "secret"])
def test_what_cannot_be_followed_is_named_and_not_sampled(image_folder, kind, monkeypatch):
    circle = image_folder / "Shapes" / "dark" / "circle"
    odd = circle / "9.png"
    if kind == "folder":
        odd.symlink_to(image_folder / "Shapes" / "light" / "circle")
    elif kind == "itself":
        odd.symlink_to(circle)
    elif kind == "pipe":
        os.mkfifo(odd)
    elif kind == "nothing":
        odd.symlink_to("gone.png")
    else:
        odd.mkdir()
        real = os.scandir

        def scandir(path):
            if Path(path) == odd:
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"dark/circle/9\.png: .*\(verify_data names all that is wrong\)"):
        shapes(image_folder)


def test_links_to_files_and_class_folders_are_followed(image_folder):
    dark = image_folder / "Shapes" / "dark"
    (dark / "circle").rename(image_folder / "elsewhere")
    (dark / "circle").symlink_to(image_folder / "elsewhere")
    (dark / "square" / "9.jpg").symlink_to(image_folder / "elsewhere" / "0.jpg")
    environment = shapes(image_folder).datasets[0]
    assert len(environment.paths) == 11
