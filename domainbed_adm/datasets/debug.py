"""Debug28 and Debug224: three environments of 16 random images of two classes, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from domainbed_adm.datasets.base import MultipleDomainDataset, TensorEnvironment
from domainbed_adm.system.seeding import seed_hash

_IMAGES = 16


class DebugDataset(MultipleDomainDataset):
    """Standard normal inputs and random labels, as in DomainBed, but the same in every run.

    The inputs are not pixels in [0, 1]; ADM's step is taken in their own units.
    """

    def __init__(self, data_dir: str | None, test_envs: Sequence[int], hparams: dict[str, Any]) -> None:
        random = torch.Generator().manual_seed(seed_hash("debug"))
        self.environments = list(self.card.environments or ())
        self.classes = [str(label) for label in range(self.card.num_classes or 0)]
        self.input_shape = self.card.input_shape
        self.normalization = None
        self.datasets = []
        for _ in self.environments:
            inputs = torch.randn(_IMAGES, *self.input_shape, generator=random)
            targets = torch.randint(len(self.classes), (_IMAGES,), generator=random)
            self.datasets.append(TensorEnvironment(inputs, targets.numpy()))
