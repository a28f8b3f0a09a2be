"""Loading processes hand over pixels of 8 bits; what the network reads is to the bit what torchvision would make."""

import numpy as np
import pytest
import torch
from torchvision import transforms

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.base import to_inputs
from domainbed_adm.datasets.cards import IMAGENET, IMAGENET_GREY
from domainbed_adm.datasets.images import load_image
from domainbed_adm.system.seeding import raw_stream
from domainbed_adm.training.batches import Schedule, TaskDataset, TrainTask, evaluation_tasks, split_environments
from domainbed_adm.training.loading_processes import open_stream

SIZE, CPU = 32, torch.device("cpu")
AUGMENTED = [
    transforms.RandomResizedCrop(SIZE, scale=(0.7, 1.0)),
    transforms.RandomHorizontalFlip(),
    transforms.ColorJitter(0.3, 0.3, 0.3, 0.3),
    transforms.RandomGrayscale(),
]


def tasks(image_folder, cached=False, **hparams):
    dataset = get_dataset_class("Shapes")(str(image_folder), [0], {"image_size": SIZE, **hparams})
    if cached:
        dataset.use_cache(None)
    splits = split_environments([len(environment) for environment in dataset], [0], 0, 0.2, 0.5)
    return TaskDataset(dataset.datasets, splits, [0], 3, {"batch_size": 6, "class_balanced": False})


def expected(data, environment, keys, augmented, channels, step=0):
    """These samples by DomainBed's pipeline: PIL's operations, ToTensor, Normalize, image by image."""
    normalization = {1: IMAGENET_GREY, 3: IMAGENET}[channels]
    pipeline = transforms.Compose(
        [
            *(AUGMENTED if augmented else [transforms.Resize((SIZE, SIZE))]),
            transforms.ToTensor(),
            transforms.Normalize(normalization.mean, normalization.std),
        ]
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(raw_stream(1, "augmentation", 3, environment, step)[0] >> np.uint64(1)))
        paths = data.environments[environment].paths
        return torch.stack([pipeline(load_image(paths[key], channels)) for key in keys])


@pytest.mark.parametrize("augmentation", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("workers", "cached"), [(0, False), (1, False), (0, True), (1, True)])
def test_every_input_is_torchvisions_to_the_bit(image_folder, augmentation, channels, workers, cached):
    data = tasks(image_folder, cached, data_augmentation=augmentation, image_channels=channels)
    batches = list(open_stream(data, Schedule(3, 3, evaluation_tasks(data.splits)), workers, pin_memory=False))
    offsets = data.offsets.tolist()
    for batch in batches:
        assert (batch.x.dtype, batch.inputs(CPU).dtype) == (torch.uint8, torch.float32)
        training = isinstance(batch.task, TrainTask)
        numbers = data.sources if training else [batch.task.environment]
        for number, minibatch in zip(numbers, batch.minibatches(CPU)[0], strict=True):
            keys = [index - offsets[number] for index in minibatch.sample_index.tolist()]
            step = batch.task.step if training else 0
            want = expected(data, number, keys, augmentation and training, channels, step)
            assert torch.equal(minibatch[0], want)
            assert minibatch[1].tolist() == data.environments[number].targets[keys].tolist()
            if not training:
                assert torch.equal(minibatch[0], torch.stack([data.environments[number][key][0] for key in keys]))
    pixels = {tuple(x.flatten().tolist()) for i in data.splits[0].uda for x in [data.environments[0][i][0]]}
    assert {tuple(x.flatten().tolist()) for x in batches[0].minibatches(CPU)[1][0]} <= pixels


def test_a_batch_takes_a_quarter_of_the_bytes(image_folder):
    batch = tasks(image_folder)[TrainTask(0)]
    assert batch.x.nbytes * 4 == batch.inputs(CPU).nbytes
    assert sum(tensor.nbytes for tensor in (batch.x, batch.y, batch.index)) == (12 + 6) * (3 * SIZE**2 + 2 * 8)


@pytest.mark.parametrize("normalization", [None, IMAGENET])
def test_every_value_of_a_pixel_is_torchvisions(normalization):
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    normalize = [transforms.Normalize(normalization.mean, normalization.std)] if normalization else []
    want = transforms.Compose([transforms.ToTensor(), *normalize])(pixels.permute(1, 2, 0).numpy())
    assert torch.equal(to_inputs(pixels, normalization), want)
    assert torch.equal(to_inputs(pixels[None], normalization)[0], want)
    inputs = torch.rand(2, 3, 4, 4)
    assert to_inputs(inputs, normalization) is inputs


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_bits():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    assert torch.equal(to_inputs(pixels.cuda(), IMAGENET).cpu(), to_inputs(pixels, IMAGENET))
