"""A fixed sample of a run's data, decoded once into temporary files and read a mini-batch at a time.

Memory is that of one mini-batch, whatever the sample's size. Images are as evaluation sees them (no augmentation), from
in-splits: those of the source domains are the training images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from domainbed_adm.datasets.base import Environment, MultipleDomainDataset
from domainbed_adm.errors import UserError
from domainbed_adm.system.disk import writing
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.training.batches import Splits

#: Images of each domain where the user does not say.
DEFAULT_SIZE = 256
SOURCE, POOLED, TEST = "source", "pooled", "test"


class Sample:
    """Images of one domain or of several together; iterating yields its mini-batches (x, y), the same every time.

    Several domains have an equal share in each mini-batch, as in training: as many images of each as the smallest has.
    Mini-batches are as equal in size as they can be.

    Args:
        name: of the environment or environments.
        role: ``SOURCE``, ``POOLED`` (all source domains) or ``TEST``.
        parts: of each domain, inputs of shape (n, *input_shape) and targets of shape (n,).
        batch_size: most images of each domain in a mini-batch.

    Attributes:
        smallest_batch: images in the smallest mini-batch.
    """

    def __init__(self, name: str, role: str, parts: Sequence[tuple[np.ndarray, np.ndarray]], batch_size: int) -> None:
        self.name, self.role, self.parts, self.batch_size = name, role, parts, batch_size
        share = min(len(targets) for _, targets in parts)
        batches = -(-share // batch_size)
        self._edges = [share * i // batches for i in range(batches + 1)]
        self.smallest_batch = min(end - start for start, end in pairwise(self._edges)) * len(parts)

    def __len__(self) -> int:
        return self._edges[-1] * len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start, end in pairwise(self._edges):
            x, y = (np.concatenate([part[i][start:end] for part in self.parts]) for i in range(2))
            yield torch.from_numpy(x), torch.from_numpy(y)


class Samples(NamedTuple):
    """The samples of a run: one for each source and each test environment; all of each kind together."""

    sources: list[Sample]
    tests: list[Sample]
    pooled: Sample
    test: Sample


@contextmanager
def draw_samples(
    dataset: MultipleDomainDataset,
    splits: Sequence[Splits],
    test_envs: Sequence[int],
    size: int | None,
    batch_size: int,
    seed: int,
) -> Iterator[Samples]:
    """Within the block, a sample of every environment: the same for all runs of one split.

    Args:
        dataset: the images.
        splits: of each environment; drawn from the in-splits, without replacement.
        test_envs: indices of the environments held out.
        size: images of each environment; None: ``DEFAULT_SIZE``, or all where there are fewer.
        batch_size: most images of each domain in a mini-batch.
        seed: of the draw.

    Raises:
        UserError: an in-split is smaller than ``size`` or empty, an image cannot be decoded, the disk is full.
    """
    sizes = [len(split.in_) for split in splits]
    if min(sizes) < (size or 1):
        named = ", ".join(f"{name} {count}" for name, count in zip(dataset.environments, sizes, strict=True))
        asked = f"--samples {size} is more than an in-split holds" if size else "an in-split is empty"
        raise UserError(f"{asked}; images of each environment: {named}")
    with tempfile.TemporaryDirectory(prefix="domainbed-adm-") as folder:
        samples = []
        for i, environment in enumerate(dataset.datasets):
            keys = np.array(splits[i].in_)
            order = np.random.RandomState(seed_hash("analysis sample", seed, i)).permutation(len(keys))
            part = _stored(environment, keys[order[: size or DEFAULT_SIZE]], Path(folder) / str(i))
            role = TEST if i in test_envs else SOURCE
            samples.append(Sample(dataset.environments[i], role, [part], batch_size))
        sources, tests = [sample for sample in samples if sample.role == SOURCE], [samples[i] for i in test_envs]
        names = {POOLED: "pooled", TEST: " + ".join(sample.name for sample in tests)}
        pooled, test = (
            Sample(names[role], role, [part for sample in several for part in sample.parts], batch_size)
            for role, several in ((POOLED, sources), (TEST, tests))
        )
        yield Samples(sources, tests, pooled, test)


def _stored(environment: Environment, keys: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Decode these images into a file, one after the other; their inputs, read from there, and their targets."""
    with writing(path), path.open("wb") as file:
        for key in keys:
            x = environment[int(key)][0].numpy()
            file.write(np.ascontiguousarray(x).tobytes())
    inputs = np.memmap(path, x.dtype, "r", shape=(len(keys), *x.shape))
    return inputs, np.asarray(environment.targets)[keys].astype(np.int64)
