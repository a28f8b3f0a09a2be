"""Which samples of an environment a step trains on: a function of (seed, environment, step), whoever asks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.system.seeding import draw_indices, raw_stream


def steps_per_epoch(size: int, hparams: Mapping[str, Any]) -> int:
    """Steps in which hparam ``sampling`` "epoch" shows each of ``size`` samples once, the last ones of a batch apart.

    The last batch is smaller where they do not divide evenly; with ``drop_last`` it is left out, unless it is the only
    one.
    """
    batches: float = size / hparams["batch_size"]
    return max(1, math.floor(batches) if hparams.get("drop_last") else math.ceil(batches))


class Sampler:
    """Draws minibatches as the hparams ``batch_size``, ``sampling``, ``drop_last`` and ``class_balanced`` say.

    Raises:
        UserError: an epoch cannot be class-balanced.
    """

    def __init__(self, seed: int, hparams: Mapping[str, Any]) -> None:
        self._seed, self._hparams = seed, hparams
        self._by_epoch = hparams.get("sampling") == "epoch"
        if self._by_epoch and hparams["class_balanced"]:
            raise UserError(
                "hparam class_balanced draws with replacement: set sampling to replacement, or class_balanced to false"
            )
        self._orders: dict[int, tuple[int, np.ndarray]] = {}

    def draw(self, environment: int, keys: Sequence[int], step: int, weights: np.ndarray | None = None) -> list[int]:
        """The samples of a step, of those with these keys.

        With replacement, ``batch_size`` of them, with probabilities in proportion to ``weights``; or by epoch, the next
        ones of a permutation of all, which is another in each epoch.
        """
        size = self._hparams["batch_size"]
        if not self._by_epoch:
            key = "minibatch", self._seed, environment, step
            return [keys[i] for i in draw_indices(size, len(keys), weights, *key)]
        epoch, place = divmod(step, steps_per_epoch(len(keys), self._hparams))
        return [keys[i] for i in self._order(environment, len(keys), epoch)[place * size : (place + 1) * size]]

    def _order(self, environment: int, size: int, epoch: int) -> np.ndarray:
        """The permutation of an epoch; the last one of each environment is kept."""
        known = self._orders.get(environment)
        if known is None or known[0] != epoch:
            drawn = raw_stream(size, "epoch", self._seed, environment, epoch)
            known = self._orders[environment] = epoch, drawn.argsort(kind="stable")
        return known[1]


def class_balanced_weights(targets: Sequence[int] | np.ndarray, keys: Sequence[int]) -> np.ndarray:
    """Sampling weights of these positions; each class among them has the same probability: 1 / (its size * classes)."""
    _, group, sizes = np.unique(np.asarray(targets)[keys], return_inverse=True, return_counts=True)
    return np.asarray(1 / (sizes[group] * len(sizes)))
