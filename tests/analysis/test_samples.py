from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.memory import PeakMemory
from domainbed_adm.analysis.mean_loss import MeanLoss
from domainbed_adm.analysis.trained_model import POOLED, SOURCE, TEST, draw_samples
from domainbed_adm.datasets.base import MultipleDomainDataset, TensorEnvironment
from domainbed_adm.errors import UserError
from domainbed_adm.training.batches import split_environments
from tests.toys import network


class Fixed(TensorEnvironment):
    augmented = True

    def train_item(self, index):
        raise AssertionError("augmentation")


def data(*lengths, test_envs=(0,)):
    """A dataset, its splits and test environments; image i of environment e is full of 1000 e + i, its label i % 3."""
    dataset = MultipleDomainDataset.__new__(MultipleDomainDataset)
    dataset.environments = ["art", "photo", "sketch", "toy"][: len(lengths)]
    dataset.datasets = [
        Fixed((1000.0 * e + torch.arange(n))[:, None, None, None].expand(n, 2, 4, 4), np.arange(n) % 3)
        for e, n in enumerate(lengths)
    ]
    splits = split_environments(lengths, test_envs, 0, 0.2)
    return dataset, splits, test_envs


def images(sample):
    return [int(x) for batch, _ in sample for x in batch[:, 0, 0, 0]]


def test_samples_are_distinct_images_of_in_splits_with_their_labels():
    dataset, splits, test_envs = data(50, 40, 30)
    with draw_samples(dataset, splits, test_envs, 8, 3, 0) as samples:
        every = [*samples.sources, samples.pooled, *samples.tests]
        assert [(one.name, one.role, len(one)) for one in every] == [
            ("photo", SOURCE, 8),
            ("sketch", SOURCE, 8),
            ("pooled", POOLED, 16),
            ("art", TEST, 8),
        ]
        for e, one in zip((1, 2, 0), (*samples.sources, samples.test), strict=True):
            found = [image - 1000 * e for image in images(one)]
            assert len(set(found)) == 8
            assert set(found) <= set(splits[e].in_)
            assert [int(y) for _, ys in one for y in ys] == [i % 3 for i in found]


def test_mini_batches_are_fixed_nearly_equal_and_share_equally_between_domains():
    with draw_samples(*data(50, 40, 20), None, 7, 0) as samples:
        assert len(samples.pooled) == 2 * 16  # the in-split of the smaller source holds 16
        sizes = [[sum(x[:, 0, 0, 0] // 1000 == e).item() for e in (1, 2)] for x, _ in samples.pooled]
        assert sizes == [[5, 5], [5, 5], [6, 6]]
        assert samples.pooled.smallest_batch == 10
        assert images(samples.pooled) == images(samples.pooled)


def test_two_test_domains_are_pooled_too():
    with draw_samples(*data(20, 20, 20, 20, test_envs=(1, 3)), 4, 4, 0) as samples:
        assert (samples.test.name, samples.test.role, len(samples.test)) == ("photo + toy", TEST, 8)
        assert [one.name for one in samples.tests] == ["photo", "toy"]
        assert [one.name for one in samples.sources] == ["art", "sketch"]


def test_a_seed_gives_the_same_sample_and_the_files_go():
    found = []
    for seed in (0, 0, 1):
        with draw_samples(*data(300, 30), None, 64, seed) as samples:
            found.append(images(samples.pooled))
            folder = Path(samples.pooled.parts[0][0].filename).parent
            assert folder.is_dir()
        assert not folder.exists()
    assert found[0] == found[1] != found[2]
    assert len(found[0]) == 24  # fewer than 48 are there


@pytest.mark.parametrize(
    ("lengths", "size", "message"),
    [
        ((50, 40, 30), 25, "--samples 25 is more than an in-split holds; images of each environment: art 40, photo 32"),
        ((50, 0, 30), None, "an in-split is empty; images of each environment: art 40, photo 0, sketch 24"),
    ],
)
def test_a_sample_larger_than_the_data_names_the_sizes(lengths, size, message):
    with pytest.raises(UserError) as told, draw_samples(*data(*lengths), size, 8, 0):
        pass
    assert message in str(told.value)


def test_memory_does_not_grow_with_the_sample():
    model = network()
    vector = [torch.ones_like(param) for param in model.parameters()]
    peaks = []
    for size in (16, 32, 160):
        run = data(200, 200)
        with PeakMemory() as memory, draw_samples(*run, size, 16, 0) as samples:
            loss = MeanLoss(model, list(model.parameters()), samples.pooled, len(samples.pooled))
            loss.value()
            loss.hessian_product(vector)
        peaks.append(memory.peak)
    assert peaks[0] == peaks[1] == peaks[2]
