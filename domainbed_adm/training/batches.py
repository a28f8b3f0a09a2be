"""The batches of a run: the splits they come from, those of training steps and evaluations, and their order.

What a batch holds is a function of its task alone: the samples of step t and their augmentation come from a
counter-based generator keyed by (seed, environment, t), whoever loads them and wherever the run was taken up again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from domainbed_adm.algorithms import Minibatch
from domainbed_adm.datasets.augmentation import Draws, RawImages, raw_images
from domainbed_adm.datasets.base import Environment, Item, to_inputs
from domainbed_adm.datasets.cards import Normalization
from domainbed_adm.system.seeding import raw_stream, seed_hash
from domainbed_adm.training.sampling import Sampler, class_balanced_weights

#: Images of an evaluation's batch, by the device. On a CPU larger ones leave its caches: images per second of CPU time,
#: on one thread of an EPYC with AVX-512 (two, on a busy machine, were too noisy to tell), in batches of 16, 32, 64 and
#: 128: ResNet-18 at 224 px 37, 34, 29, 27 in fp32 and 61, 55, 53, 46 in bf16; the network for 28 px 1480, 1360, 1320,
#: 1060 in fp32 and 2450, 2370, 2530, 2480 in bf16. Not measured on a GPU.
EVALUATION_BATCH = {"cpu": 16, "cuda": 128}


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
    *,
    whole: Collection[int] = (),
) -> list[Splits]:
    """Split every environment, DomainBed's index for index; both fractions are in [0, 1).

    The out-split is ``holdout_fraction`` of the samples; a test environment's uda-split is ``uda_holdout_fraction`` of
    the rest. Positions are shuffled by ``seed_hash(trial_seed, environment)``. Those that are ``whole``, official test
    sets, have no out-split.
    """

    def split(keys: list[int], fraction: float, seed: int) -> tuple[list[int], list[int]]:
        order = list(range(len(keys)))
        np.random.RandomState(seed).shuffle(order)
        cut = int(len(keys) * fraction)
        return [keys[i] for i in order[:cut]], [keys[i] for i in order[cut:]]

    splits = []
    for i, length in enumerate(lengths):
        seed = seed_hash(trial_seed, i)
        out, in_ = split(list(range(length)), 0.0 if i in whole else holdout_fraction, seed)
        uda, in_ = split(in_, uda_holdout_fraction, seed) if i in test_envs else ([], in_)
        splits.append(Splits(in_, out, uda))
    return splits


@dataclass(frozen=True)
class TrainTask:
    """The minibatches of one step."""

    step: int


@dataclass(frozen=True)
class EvaluateTask:
    """Some samples of one split of one environment; ``name`` is the split's, such as ``env0_in``."""

    name: str
    environment: int
    keys: tuple[int, ...]


Task = TrainTask | EvaluateTask


@dataclass
class Batch:
    """What one task yields: all its samples in one tensor each, domain after domain.

    Few tensors, however many domains there are: each that crosses from a loading process costs an open file.

    Attributes:
        raw: images that are augmented on the device, those of the first domains; None: there are none.
        x: inputs of the others, shape (n, *input_shape): float32, or uint8 pixels that are normalised on the device.
        y: class indices, int64 of shape (B,).
        index: int64 of shape (B,), which sample of the training set each is, unique over all environments.
        sizes: samples of each domain, in order; their sum is B.
        unlabeled: how many of the domains, the last ones, are test domains that domain adaptation sees the inputs of.
    """

    task: Task
    x: Tensor
    y: Tensor
    index: Tensor
    sizes: list[int]
    unlabeled: int
    normalization: Normalization | None
    raw: RawImages | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """Those that cross from a loading process."""
        pixels = self.raw.pixels if self.raw else None
        return [self.x, self.y, self.index, *([] if pixels is None else [pixels])]

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for transfers beside computation."""
        raw = self.raw and self.raw.pin_memory()
        return replace(self, x=self.x.pin_memory(), y=self.y.pin_memory(), raw=raw)

    def inputs(self, device: torch.device, held: Tensor | None = None) -> Tensor:
        """What the network reads, float32 of shape (B, *input_shape), on the device; ``held`` as for ``RawImages``."""
        x = to_inputs(self.x.to(device, non_blocking=True), self.normalization)
        if self.raw is None:
            return x
        augmented = to_inputs(self.raw.augmented(device, held), self.normalization)
        return torch.cat([augmented, x]) if len(x) else augmented

    def minibatches(self, device: torch.device, held: Tensor | None = None) -> tuple[list[Minibatch], list[Tensor]]:
        """A labelled minibatch of each source domain, and the inputs of each unlabeled one, on the device.

        The index stays on the CPU; ``held`` as for ``RawImages``.
        """
        tensors = (self.inputs(device, held), self.y.to(device, non_blocking=True), self.index)
        parts = zip(*(torch.split(tensor, self.sizes) for tensor in tensors), strict=True)
        minibatches = [Minibatch(x, y, index) for x, y, index in parts]
        labelled = len(minibatches) - self.unlabeled
        return minibatches[:labelled], [x for x, _ in minibatches[labelled:]]


class TaskDataset(Dataset[Batch]):
    """Loads the batch of a task; without the pixels of images to augment where ``held``: they lie on the device.

    Of a training step rank r of N, which ``share`` names, loads every N-th sample from the r-th on, counted over all
    domains, and each of them is what it is where one process loads all.
    """

    def __init__(
        self,
        environments: Sequence[Environment],
        splits: Sequence[Splits],
        test_envs: Sequence[int],
        seed: int,
        hparams: Mapping[str, Any],
        held: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.held, self.sampler, self.share = held, Sampler(seed, hparams), share
        self.environments, self.splits, self.seed = environments, splits, seed
        self.sources = [i for i in range(len(environments)) if i not in test_envs]
        #: The environments whose images are augmented on the device.
        self.drawn = self.sources if all(environments[i].augmented_to for i in self.sources) else []
        self.adapted = [i for i in test_envs if splits[i].uda]
        self.offsets = np.cumsum([0, *map(len, environments)])
        balanced = self.sources if hparams["class_balanced"] else []
        self.class_weights = {i: class_balanced_weights(environments[i].targets, splits[i].in_) for i in balanced}

    def __getitem__(self, task: Task) -> Batch:
        positions: dict[int, Sequence[int]]
        if isinstance(task, EvaluateTask):
            positions, unlabeled = {task.environment: task.keys}, 0
        else:
            positions = {
                i: self.sampler.draw(i, self.splits[i].in_, task.step, self.class_weights.get(i)) for i in self.sources
            }
            positions |= {i: self.sampler.draw(i, self.splits[i].uda, task.step) for i in self.adapted}
            unlabeled = len(self.adapted)
        places = self._places(task, positions)
        drawn = self.drawn if isinstance(task, TrainTask) else []  # they come first
        items = [
            item for i, keys in positions.items() if i not in drawn for item in self._items(task, i, keys, places[i])
        ]
        positions = {i: [keys[place] for place in places[i]] for i, keys in positions.items()}
        labels = [self.environments[i].targets[key] for i in drawn for key in positions[i]] + [y for _, y in items]
        return Batch(
            task,
            torch.stack([x for x, _ in items]) if items else torch.empty(0),
            torch.tensor([int(y) for y in labels]),
            torch.tensor([key + int(self.offsets[i]) for i, keys in positions.items() for key in keys]),
            [len(keys) for keys in positions.values()],
            unlabeled,
            self.environments[0].normalization,
            self._raw(task.step, positions, places) if isinstance(task, TrainTask) and drawn else None,
        )

    def _places(self, task: Task, positions: Mapping[int, Sequence[int]]) -> dict[int, range]:
        """Which of the samples of each environment are this rank's."""
        rank, count = self.share if isinstance(task, TrainTask) else (0, 1)
        places, before = {}, 0
        for i, keys in positions.items():
            places[i] = range((rank - before) % count, len(keys), count)
            before += len(keys)
        return places

    def _raw(self, step: int, positions: Mapping[int, Sequence[int]], places: Mapping[int, Sequence[int]]) -> RawImages:
        images = [(self.environments[i], key) for i in self.drawn for key in positions[i]]
        pixels, shape = None, images[0][0].augmented_to
        assert shape
        if self.held:
            starts, *sides = np.array([environment.place(key) for environment, key in images]).T
            sizes = np.stack(sides, 1)
        else:
            arrays = [environment.raw_pixels(key) for environment, key in images]
            starts = np.cumsum([0, *(array.size for array in arrays[:-1])])
            sizes = np.array([array.shape[:2] for array in arrays])
            pixels = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays]))
        parts = np.split(sizes, np.cumsum([len(positions[i]) for i in self.drawn[:-1]]))
        draws = [
            self._draws(i, part, places[i], "augment", self.seed, i, step)
            for i, part in zip(self.drawn, parts, strict=True)
        ]
        return raw_images(pixels, starts, sizes, Draws.joined(draws), shape)

    def _draws(self, number: int, sizes: NDArray[np.int64], places: Sequence[int], *key: object) -> Draws:
        """What is drawn for images of these sizes at these places among those of the key."""
        n = places[-1] + 1 if places else 0
        of_all = np.repeat(sizes[:1], n, 0)  # sizes of images that are not here do not matter
        of_all[list(places)] = sizes
        return self.environments[number].draws(of_all, *key).of(places)

    def _items(self, task: Task, number: int, keys: Sequence[int], places: range) -> list[Item]:
        environment = self.environments[number]
        if isinstance(task, EvaluateTask):
            return [environment.compact_item(key, training=False) for key in keys]
        with torch.random.fork_rng(devices=[]):
            # The CPU generator alone: torch.manual_seed would reseed the accelerator's as well.
            seed = raw_stream(1, "augmentation", self.seed, number, task.step)[0] >> np.uint64(1)
            torch.default_generator.manual_seed(int(seed))
            items = []
            for place, key in enumerate(keys[: places[-1] + 1] if places else ()):
                if place in places:
                    items.append(environment.compact_item(key, training=True))
                else:
                    environment.pass_over(key)
            return items


def evaluation_tasks(splits: Sequence[Splits], size: int = EVALUATION_BATCH["cpu"]) -> list[EvaluateTask]:
    """The tasks that read every split once, in DomainBed's order: all in-, all out-, all uda-splits.

    Each reads at most ``size`` samples.
    """
    by_kind = {"in": [s.in_ for s in splits], "out": [s.out for s in splits], "uda": [s.uda for s in splits]}
    return [
        EvaluateTask(f"env{i}_{kind}", i, tuple(keys[start : start + size]))
        for kind, of_environments in by_kind.items()
        for i, keys in enumerate(of_environments)
        for start in range(0, len(keys), size)
    ]


@dataclass(frozen=True)
class Schedule:
    """Which tasks a run takes, in order: every step, and an evaluation after each checkpoint step and the last.

    ``repeats``: how often a checkpoint is evaluated. ``closing``: what comes after the last evaluation.
    """

    n_steps: int
    checkpoint_freq: int
    evaluation: Sequence[EvaluateTask]
    start: int = 0
    repeats: int = 1
    closing: Sequence[Task] = ()

    def with_average(self, statistics: Sequence[TrainTask] = (), each_time: bool = False) -> Schedule:
        """The schedule where averaged weights are evaluated too: each time, or at the end, after these tasks."""
        if each_time:
            return replace(self, repeats=2)
        return replace(self, closing=[*statistics, *self.evaluation])

    def is_checkpoint(self, step: int) -> bool:
        """Whether the run is evaluated after this step."""
        return step % self.checkpoint_freq == 0 or step == self.n_steps - 1

    def __iter__(self) -> Iterator[Task]:
        for step in range(self.start, self.n_steps):
            yield TrainTask(step)
            if self.is_checkpoint(step):
                for _ in range(self.repeats):
                    yield from self.evaluation
        if self.start < self.n_steps:
            yield from self.closing
