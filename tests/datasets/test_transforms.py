"""Resize and crop as fine-grained recipes do: torchvision's own transforms, from files, the cache and on the device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.augmentation import draw_windows, raw_images
from domainbed_adm.datasets.base import to_inputs
from domainbed_adm.datasets.cards import IMAGENET
from domainbed_adm.datasets.images import load_image
from domainbed_adm.datasets.transforms import Resize, eval_transform, first_resize
from domainbed_adm.errors import UserError

CPU = torch.device("cpu")
#: Small, large, at the size of the resizing already, upright, and one of an odd shape.
SIZES = ((40, 60), (300, 500), (37, 37), (90, 37), (33, 331))
CROPS: list[dict[str, Any]] = [{"image_crop": "short_side"}, {"image_crop": "square", "resize_to": 47}]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A data_dir with the dataset "Pictures"."""
    random = np.random.default_rng(0)
    for domain in ("a", "b"):
        folder = tmp_path / "Pictures" / domain / "c"
        folder.mkdir(parents=True)
        for i, size in enumerate(SIZES):
            Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path


def build(data_dir: Path, **hparams: Any) -> Any:
    return get_dataset_class("Pictures")(str(data_dir), [0], {"image_size": 32, **hparams})


def official(crop: dict[str, Any], *last: Any) -> transforms.Compose:
    side = crop.get("resize_to", 37)  # 8/7 of 32
    size = (side, side) if crop["image_crop"] == "square" else side
    return transforms.Compose([transforms.Resize(size), *last, transforms.ToTensor(), transforms.Normalize(*MEAN_STD)])


MEAN_STD = IMAGENET.mean, IMAGENET.std


@pytest.mark.parametrize("crop", CROPS)
def test_they_are_torchvisions(pictures: Path, crop: dict[str, Any]) -> None:
    held_out, source = build(pictures, **crop)
    evaluate = official(crop, transforms.CenterCrop(32))
    augment = official(crop, transforms.RandomCrop(32), transforms.RandomHorizontalFlip())
    for i, path in enumerate(source.paths):
        assert torch.equal(source[i][0], evaluate(load_image(path)))
        assert torch.equal(held_out.train_item(i)[0], evaluate(load_image(held_out.paths[i])))
        with torch.random.fork_rng():
            torch.manual_seed(i)
            ours = source.train_item(i)[0]
            torch.manual_seed(i)
            assert torch.equal(ours, augment(load_image(path)))
    plain = build(pictures, data_augmentation=False, **crop)[1]
    assert not plain.augmented
    assert torch.equal(plain.train_item(0)[0], source[0][0])


@pytest.mark.parametrize(
    ("hparams", "resize"),
    [
        ({}, None),
        ({"image_crop": None, "resize_to": 300}, None),
        ({"image_crop": "short_side"}, Resize(256, square=False)),
        ({"image_crop": "short_side", "image_size": 448}, Resize(512, square=False)),
        ({"image_crop": "square", "image_size": 448, "resize_to": 600}, Resize(600, square=True)),
        ({"image_crop": "square", "image_size": 28}, Resize(32, square=True)),
    ],
)
def test_sizes_of_the_recipes(hparams: dict[str, Any], resize: Resize | None) -> None:
    assert first_resize(hparams) == resize


def test_a_crop_that_does_not_fit_is_one_line(pictures: Path) -> None:
    with pytest.raises(UserError, match=r"^hparam resize_to must be 0 or at least image_size, 32 px, not 31$"):
        build(pictures, image_crop="square", resize_to=31)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", CROPS)
def test_from_the_cache_all_is_the_same_bit_for_bit(pictures: Path, crop: dict[str, Any], channels: int) -> None:
    files, made, found = (build(pictures, image_channels=channels, **crop) for _ in range(3))
    for cached in (made, found):
        cached.use_cache(None)
        for environment, other in zip(files, cached, strict=True):
            assert other.reduced == 0
            for i in range(len(environment)):
                assert torch.equal(environment[i][0], other[i][0])
                with torch.random.fork_rng():
                    torch.manual_seed(i)
                    training = environment.train_item(i)[0]
                    torch.manual_seed(i)
                    assert torch.equal(other.train_item(i)[0], training)


def test_caches_of_other_sizes_and_crops_do_not_mix(pictures: Path) -> None:
    """One file for each resizing, whatever the crop's size; DomainBed's has its own, whose image size matters."""
    every: list[dict[str, Any]] = [
        {},
        {"image_size": 28},
        {"image_crop": "short_side"},
        {"image_crop": "square"},
        {"image_crop": "square", "image_size": 28, "resize_to": 37},
        {"image_crop": "square", "image_size": 28},
    ]
    for hparams in (*every, *every):
        plain, cached = (build(pictures, **hparams) for _ in range(2))
        cached.use_cache(None)
        for i in range(len(SIZES)):
            assert torch.equal(plain[0][i][0], cached[0][i][0])
    ends = [path.name.split("-", 3)[-1] for path in (pictures / ".decoded").rglob("*.pixels")]
    assert sorted(ends) == ["320.pixels", "short37.pixels", "square32.pixels", "square37.pixels"]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("crop", CROPS)
def test_a_window_on_the_device_is_that_window(pictures: Path, crop: dict[str, Any], channels: int) -> None:
    """Raw pixels are the resized image's, from files and cache; what comes out is the box that was drawn, flipped."""
    plain, cached = (build(pictures, image_channels=channels, **crop) for _ in range(2))
    cached.use_cache(None)
    for dataset in (plain, cached):
        dataset.augment_on_device()
    source, other = plain[1], cached[1]
    assert source.augmented_to == (channels, 32, 32)
    raw = [source.raw_pixels(i) for i in range(len(source))]
    assert all(np.array_equal(pixels, other.raw_pixels(i)) for i, pixels in enumerate(raw))
    sizes = np.array([pixels.shape[:2] for pixels in raw])
    draws = source.draws(sizes, 0)
    starts = np.cumsum([0, *(pixels.size for pixels in raw[:-1])])
    pixels = torch.from_numpy(np.concatenate([one.reshape(-1) for one in raw]))
    found = raw_images(pixels, starts, sizes, draws, (channels, 32, 32)).augmented(CPU)
    assert set(draws.flipped) == {True, False}
    for i, (top, left, height, width) in enumerate(draws.boxes):
        assert (height, width) == (32, 32)
        window = raw[i][top : top + 32, left : left + 32].transpose(2, 0, 1)
        assert np.array_equal(found[i].numpy(), window[:, :, ::-1] if draws.flipped[i] else window)
    assert source.reduced == 0
    shown = to_inputs(found, source.normalization)
    assert shown.dtype == torch.float32


def test_windows_are_uniform_and_each_images_own() -> None:
    sizes = np.tile(np.array([[34, 36]]), (4000, 1))
    draws = draw_windows(sizes, 32, "a key")
    counts = np.zeros((3, 5))
    np.add.at(counts, tuple(draws.boxes[:, :2].T), 1)
    expected = 4000 / 15
    assert ((counts - expected) ** 2 / expected).sum() < 36.1  # chi-square, 14 degrees of freedom, p 0.001
    assert abs(draws.flipped.mean() - 0.5) < 0.03
    few = draw_windows(sizes[:7], 32, "a key")
    assert np.array_equal(few.boxes, draws.boxes[:7])
    assert not np.array_equal(draw_windows(sizes, 32, "another").boxes, draws.boxes)
    assert (draw_windows(np.array([[32, 32]]), 32, 0).boxes == [0, 0, 32, 32]).all()


def test_grey_evaluation(pictures: Path) -> None:
    path = pictures / "Pictures/a/c/1.png"
    transform = eval_transform(32, 1, Resize(37, square=False))
    assert torch.equal(transform(load_image(path, 1)), transform(load_image(path, 3).convert("L")))
    assert transform(load_image(path, 1)).shape == (1, 32, 32)
