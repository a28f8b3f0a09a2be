"""The debug datasets, and that every dataset with a card can be found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from domainbed_adm.datasets import CARDS, get_dataset_class
from domainbed_adm.datasets.base import MultipleDomainDataset
from domainbed_adm.datasets.cards import get_card


@pytest.mark.parametrize("name", CARDS)
def test_class_attributes_are_the_cards(name):
    kind, card = get_dataset_class(name), get_card(name)
    assert issubclass(kind, MultipleDomainDataset)
    assert kind.__name__ == name
    assert (card.n_steps, card.checkpoint_freq, card.n_workers) == (kind.N_STEPS, kind.CHECKPOINT_FREQ, kind.N_WORKERS)
    assert list(card.environments) == kind.ENVIRONMENTS


@pytest.mark.parametrize(("name", "side"), [("Debug28", 28), ("Debug224", 224)])
def test_debug_datasets(name, side):
    with torch.random.fork_rng():
        torch.manual_seed(5)
        before = torch.get_rng_state()
        dataset, again = (get_dataset_class(name)(None, [0], {}) for _ in range(2))
        assert torch.equal(before, torch.get_rng_state())
    assert (dataset.input_shape, dataset.num_classes, len(dataset)) == ((3, side, side), 2, 3)
    for one, other in zip(dataset, again, strict=True):
        assert one.inputs.shape == (16, 3, side, side)
        assert set(one.targets) == {0, 1}
        assert torch.equal(one.inputs, other.inputs)
        assert np.array_equal(one.targets, other.targets)
    assert not torch.equal(dataset[0].inputs, dataset[1].inputs)


def test_indexing_ends():
    dataset = get_dataset_class("Debug28")(None, [0], {})
    assert [environment is dataset[i] for i, environment in enumerate(dataset)] == [True] * 3
    with pytest.raises(IndexError):
        dataset[3]
