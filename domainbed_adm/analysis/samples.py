"""A fixed sample of a run's data, decoded once into temporary files and read a mini-batch at a time.

Memory is that of one mini-batch, whatever the sample's size. Images are as evaluation sees them (no augmentation), from
in-splits: those of the source domains are the training images.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from domainbed_adm.datasets.base import Environment, MultipleDomainDataset
from domainbed_adm.errors import UserError
from domainbed_adm.system.disk import writing
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.training.splits import Splits

#: Images of each domain where the user does not say.
DEFAULT_SIZE = 256
SOURCE, POOLED, TEST = "source", "pooled", "test"


@dataclass(frozen=True)
class Stored:
    """Images of one environment in a file: inputs of shape (n, *input_shape), targets of shape (n,)."""

    inputs: np.ndarray
    targets: np.ndarray


@dataclass(frozen=True)
class Sample:
    """Images of one domain or of several together; iterating yields its mini-batches (x, y), the same every time.

    Several domains have an equal share in each mini-batch, as in training: as many images of each as the smallest has.
    Mini-batches are as equal in size as they can be.

    Attributes:
        name: of the environment or environments.
        role: ``SOURCE``, ``POOLED`` (all source domains) or ``TEST``.
        parts: one for each domain.
        batch_size: most images of each domain in a mini-batch.
    """

    name: str
    role: str
    parts: Sequence[Stored]
    batch_size: int

    def __len__(self) -> int:
        return self._share * len(self.parts)

    @property
    def _share(self) -> int:
        return min(len(part.targets) for part in self.parts)

    @property
    def _edges(self) -> np.ndarray:
        batches = -(-self._share // self.batch_size)
        return np.arange(batches + 1) * self._share // batches

    @property
    def smallest_batch(self) -> int:
        """Images in the smallest mini-batch."""
        return int(np.diff(self._edges).min()) * len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        edges = self._edges
        for start, end in zip(edges[:-1], edges[1:], strict=True):
            x = np.concatenate([part.inputs[start:end] for part in self.parts])
            y = np.concatenate([part.targets[start:end] for part in self.parts])
            yield torch.from_numpy(x), torch.from_numpy(y)


@dataclass(frozen=True)
class Samples:
    """The samples of a run: one for each source and each test environment; all of each kind together."""

    sources: list[Sample]
    tests: list[Sample]

    @property
    def pooled(self) -> Sample:
        """All source domains."""
        return _together(self.sources, "pooled", POOLED)

    @property
    def test(self) -> Sample:
        """All test domains."""
        return _together(self.tests, " + ".join(sample.name for sample in self.tests), TEST)


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
            stored = _store(environment, keys[order[: size or DEFAULT_SIZE]], Path(folder) / str(i))
            role = TEST if i in test_envs else SOURCE
            samples.append(Sample(dataset.environments[i], role, [stored], batch_size))
        tests = [samples[i] for i in test_envs]
        yield Samples([sample for sample in samples if sample.role == SOURCE], tests)


def _store(environment: Environment, keys: np.ndarray, path: Path) -> Stored:
    """Decode these images into a file, one after the other."""
    with writing(path), path.open("wb") as file:
        for key in keys:
            x = environment[int(key)][0].numpy()
            file.write(np.ascontiguousarray(x).tobytes())
    inputs = np.memmap(path, x.dtype, "r", shape=(len(keys), *x.shape))
    return Stored(inputs, np.asarray(environment.targets)[keys].astype(np.int64))


def _together(samples: Sequence[Sample], name: str, role: str) -> Sample:
    return Sample(name, role, [part for sample in samples for part in sample.parts], samples[0].batch_size)
