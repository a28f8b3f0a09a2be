"""Augmentation of a whole batch: each operation is Pillow's, each draw has torchvision's distribution."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional as TF

from domainbed_adm.datasets import augmentation
from domainbed_adm.datasets.augmentation import OPERATIONS, Draws, draw, raw_images

SIZES = np.array([(227, 227), (150, 240), (90, 70), (300, 201)])
SIDE = 96
CPU = torch.device("cpu")


def image(height, width, seed=0):
    """Smooth colours with noise on them."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray((random.random((6, 6, 3)) * 255).astype(np.uint8)).resize((width, height), Image.BICUBIC)
    noisy = np.asarray(coarse) + random.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


IMAGES = [image(*size, seed=k) for k, size in enumerate(SIZES)]
SQUARES = [each.resize((SIDE, SIDE)) for each in IMAGES]


def levels(images):
    return torch.stack([TF.pil_to_tensor(each).float() for each in images])


def laid_out(draws, images=IMAGES, channels=3):
    """These images, one after another, as loading processes hand them over."""
    arrays = [np.asarray(each.convert("RGB" if channels == 3 else "L")) for each in images]
    starts = np.cumsum([0, *(array.size for array in arrays)])[:-1]
    sizes = np.array([array.shape[:2] for array in arrays])
    pixels = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays]))
    return raw_images(pixels, starts, sizes, draws, (channels, SIDE, SIDE))


def plain(draws, flipped=False):
    """The same crops, without colours: factors that change nothing."""
    n = len(draws.boxes)
    factors = np.tile([1.0, 1.0, 1.0, 0.0], (n, 1))
    return Draws(draws.boxes, np.full(n, flipped), draws.order, factors, np.zeros(n, dtype=bool))


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_crop_resize_and_flip_are_pillows(monkeypatch, flip, channels):
    monkeypatch.setattr(augmentation, "OPERATIONS", 4 * (lambda levels, factor: levels,))
    draws = plain(draw(SIZES, "test", flip), flip)
    ours = laid_out(draws, channels=channels).augmented(CPU).float()
    images = [each if channels == 3 else each.convert("L") for each in IMAGES]
    theirs = [TF.resized_crop(each, *box, (SIDE, SIDE)) for each, box in zip(images, draws.boxes.tolist(), strict=True)]
    error = (ours - levels([TF.hflip(each) if flip else each for each in theirs])).abs()
    assert error.mean((1, 2, 3)).max() < 0.5  # levels of 255: half the bound of 1 / 255
    assert error.max() <= 2


@pytest.mark.parametrize(
    ("number", "theirs", "factors"),
    [
        (0, TF.adjust_brightness, (0.7, 0.93, 1.3)),
        (1, TF.adjust_contrast, (0.7, 0.93, 1.3)),
        (2, TF.adjust_saturation, (0.7, 0.93, 1.3)),
        (3, TF.adjust_hue, (-0.3, -0.02, 0.0, 0.17, 0.3)),
    ],
)
def test_each_operation_of_colour_is_pillows(number, theirs, factors):
    for factor in factors:
        ours = OPERATIONS[number](levels(SQUARES), torch.full((len(SQUARES), 1, 1, 1), factor))
        error = (ours - levels([theirs(each, factor) for each in SQUARES])).abs()
        assert error.mean() < 0.05, factor
        assert error.max() <= 8, factor  # hue: a colour of 8 bits on the edge between two


def test_grey_is_pillows():
    ours = augmentation.grey(levels(SQUARES)).expand(-1, 3, -1, -1)
    assert torch.equal(ours, levels([TF.to_grayscale(each, 3) for each in SQUARES]))


def by_hand(number, draws, mode="RGB"):
    """One image through torchvision's functions, in the order that was drawn."""
    each = TF.resized_crop(IMAGES[number].convert(mode), *draws.boxes[number].tolist(), (SIDE, SIDE))
    each = TF.hflip(each) if draws.flipped[number] else each
    steps = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for operation in draws.order[number]:
        each = steps[operation](each, draws.factors[number, operation])
    return TF.to_grayscale(each, len(mode)) if draws.grey[number] else each


def test_a_batch_is_its_images_one_by_one():
    for step in range(4):
        draws = draw(SIZES, "step", step)
        draws = Draws(draws.boxes, draws.flipped, draws.order, draws.factors, np.array([False, True, False, True]))
        ours = laid_out(draws).augmented(CPU)
        assert ours.dtype == torch.uint8
        error = (ours.float() - levels([by_hand(k, draws) for k in range(len(SIZES))])).abs()
        assert error.mean() < 1


def test_grey_images_have_one_channel():
    draws = draw(SIZES, "grey")
    ours = laid_out(draws, channels=1).augmented(CPU)
    assert ours.shape == (len(SIZES), 1, SIDE, SIDE)
    error = (ours.float() - levels([by_hand(k, draws, "L") for k in range(len(SIZES))])).abs()
    assert error.mean() < 1


def test_images_that_lie_on_the_device_are_those_that_are_copied():
    """Wherever they lie among others, and at the very end of the memory."""
    draws = draw(SIZES, "held")
    copied = laid_out(draws)
    kept = laid_out(draw(np.concatenate([SIZES, SIZES]), 0), [*IMAGES[::-1], *IMAGES])
    lengths = SIZES.prod(1) * 3
    starts = lengths.sum() + np.cumsum([0, *lengths[:-1]])
    held = raw_images(None, starts, SIZES, draws, (3, SIDE, SIDE))
    assert torch.equal(held.augmented(CPU, kept.pixels), copied.augmented(CPU))


def test_an_image_is_the_same_whatever_it_stands_beside():
    """But for the last bits of a sum, which the shape of the batch may change: a level, here and there."""
    draws = draw(SIZES, "beside")
    together = laid_out(draws).augmented(CPU)
    for k in range(len(SIZES)):
        own = Draws(*(value[k : k + 1] for value in vars(draws).values()))
        error = (laid_out(own, IMAGES[k : k + 1]).augmented(CPU).float() - together[k].float()).abs()
        assert error.mean() < 0.01


def test_long_images_take_no_more_room_than_their_crops():
    sizes = np.array([(40, 4000), (4000, 40), (60, 60)])
    images = laid_out(draw(sizes, "long"), [image(*size) for size in sizes])
    assert max(images.largest) <= 60


def test_draws_are_a_function_of_the_key_alone():
    assert all(map(np.array_equal, vars(draw(SIZES, 1)).values(), vars(draw(SIZES, 1)).values()))
    assert not np.array_equal(draw(SIZES, 1).factors, draw(SIZES, 2).factors)


@pytest.mark.parametrize("size", [(227, 227), (100, 260), (300, 110)])
def test_draws_have_torchvisions_distributions(size):
    """Two samples each: the crop's place and shape, and the factors of the jitter."""
    n = 3000
    draws = draw(np.tile(size, (n, 1)), "distribution")
    blank, crop = torch.zeros(3, *size), transforms.RandomResizedCrop(224, scale=(0.7, 1.0))
    jitter = transforms.ColorJitter(0.3, 0.3, 0.3, 0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        boxes = np.array([crop.get_params(blank, crop.scale, crop.ratio) for _ in range(n)])
        theirs = [
            jitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue) for _ in range(n)
        ]
    for ours, others in zip(draws.boxes.T, boxes.T, strict=True):
        assert stats.ks_2samp(ours, others).pvalue > 1e-4
    for k, ours in enumerate(draws.factors.T):
        assert stats.ks_2samp(ours, [drawn[k + 1] for drawn in theirs]).pvalue > 1e-4
    assert np.abs(draws.flipped.mean() - 0.5) < 0.04
    assert np.abs(draws.grey.mean() - 0.1) < 0.025
    first = np.bincount(draws.order[:, 0], minlength=4)
    assert stats.chisquare(first).pvalue > 1e-4
    assert (np.sort(draws.order, 1) == np.arange(4)).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_augments_as_the_cpu_does_and_asks_nothing():
    """But for the last bits of a sum; the same bits where the images lie on it."""
    gpu, draws = torch.device("cuda"), draw(SIZES, "gpu")
    images = laid_out(draws)
    pinned, held = images.pin_memory(), images.pixels.to(gpu)
    kept = raw_images(None, np.cumsum([0, *SIZES.prod(1)[:-1] * 3]), SIZES, draws, images.shape).pin_memory()
    images.augmented(gpu)
    torch.cuda.set_sync_debug_mode("error")
    try:
        copied, on_it = pinned.augmented(gpu), kept.augmented(gpu, held)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(copied, on_it)
    assert (copied.cpu().float() - images.augmented(CPU).float()).abs().mean() < 0.1
