"""Splits of the environments into in-, out- and uda-split, DomainBed's index for index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domainbed_adm.system.seeding import seed_hash


@dataclass(frozen=True)
class Splits:
    """Positions in one environment: ``in_`` to train on, ``out`` to select by, ``uda`` unlabeled for adaptation."""

    in_: list[int]
    out: list[int]
    uda: list[int]


def split_environments(
    lengths: Sequence[int],
    test_envs: Sequence[int],
    trial_seed: int,
    holdout_fraction: float,
    uda_holdout_fraction: float = 0.0,
) -> list[Splits]:
    """Split every environment; a test environment's uda-split is taken from its in-split.

    Args:
        lengths: number of samples of each environment.
        test_envs: the environments held out.
        trial_seed: environment i is split by ``seed_hash(trial_seed, i)``.
        holdout_fraction: share of the out-split, in [0, 1).
        uda_holdout_fraction: share of the uda-split in the in-split of a test environment, in [0, 1).

    Returns:
        One ``Splits`` per environment.
    """
    splits = []
    for i, length in enumerate(lengths):
        out, in_ = _split(list(range(length)), holdout_fraction, seed_hash(trial_seed, i))
        uda, in_ = _split(in_, uda_holdout_fraction, seed_hash(trial_seed, i)) if i in test_envs else ([], in_)
        splits.append(Splits(in_, out, uda))
    return splits


def _split(keys: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """The first ``int(n * fraction)`` of the shuffled keys, and the rest; positions are shuffled, as in DomainBed."""
    order = list(range(len(keys)))
    np.random.RandomState(seed).shuffle(order)
    cut = int(len(keys) * fraction)
    return [keys[i] for i in order[:cut]], [keys[i] for i in order[cut:]]


def class_balanced_weights(targets: Sequence[int] | np.ndarray, keys: Sequence[int]) -> np.ndarray:
    """Sampling weights of these positions; each class among them has the same probability: 1 / (its size * classes)."""
    counts = Counter(int(targets[key]) for key in keys)
    return np.array([1 / (counts[int(targets[key])] * len(counts)) for key in keys])
