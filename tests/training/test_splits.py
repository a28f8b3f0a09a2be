"""Splits equal DomainBed's, index for index."""

import numpy as np
import pytest

from domainbed_adm.training.batches import split_environments
from domainbed_adm.training.sampling import class_balanced_weights

# Printed by DomainBed's split_dataset (commit b93c22a) for 23 samples, trial 1, environment 2, holdout 0.2, uda 0.3.
DOMAINBED_OUT = [11, 19, 9, 0]
DOMAINBED_IN = [1, 12, 3, 17, 8, 16, 14, 22, 7, 18, 20, 21, 10, 13, 4, 5, 6, 15, 2]
DOMAINBED_UDA = [7, 12, 15, 17, 18]
DOMAINBED_IN_WITHOUT_UDA = [1, 2, 21, 22, 4, 6, 20, 10, 13, 8, 16, 14, 5, 3]


def test_equal_domainbeds():
    source = split_environments([5, 5, 23], [0], 1, 0.2)[2]
    assert source.out == DOMAINBED_OUT
    assert source.in_ == DOMAINBED_IN
    held_out = split_environments([5, 5, 23], [2], 1, 0.2, 0.3)[2]
    assert held_out.out == DOMAINBED_OUT
    assert held_out.in_ == DOMAINBED_IN_WITHOUT_UDA
    assert held_out.uda == DOMAINBED_UDA


@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.5, 0.99])
def test_every_sample_is_in_one_split(fraction):
    for splits in split_environments([1, 7, 40], [1], 3, fraction, 0.5):
        everything = splits.in_ + splits.out + splits.uda
        assert sorted(everything) == list(range(len(everything)))
        assert splits.in_


def test_trials_differ_and_repeat():
    assert split_environments([40], [], 0, 0.2) == split_environments([40], [], 0, 0.2)
    assert split_environments([40], [], 0, 0.2) != split_environments([40], [], 1, 0.2)


def test_class_balanced_weights_give_classes_equal_shares():
    targets = [0, 0, 0, 2, 2, 5]
    weights = class_balanced_weights(targets, range(6))
    shares = [sum(w for w, t in zip(weights, targets, strict=True) if t == k) for k in (0, 2, 5)]
    np.testing.assert_allclose(shares, 1 / 3)
    assert class_balanced_weights(targets, [5, 0, 1]).tolist() == [1 / 2, 1 / 4, 1 / 4]
