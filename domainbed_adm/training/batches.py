"""The batches of a run: those of training steps and evaluations, and the order in which the loop takes them.

What a batch holds is a function of its task alone: the samples of step t and their augmentation come from a
counter-based generator keyed by (seed, environment, t), whoever loads them and wherever the run was taken up again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from domainbed_adm.algorithms import Minibatch
from domainbed_adm.datasets.base import Environment, Item
from domainbed_adm.errors import UserError
from domainbed_adm.system.seeding import draw_indices, raw_stream
from domainbed_adm.training.splits import Splits, class_balanced_weights

EVALUATION_BATCH = 128


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
    """What one task yields: all its samples in one tensor each, domain after domain; or why they could not be loaded.

    Four tensors, however many domains there are: each that crosses from a loading process costs an open file.

    Attributes:
        task: whose batch it is.
        x: inputs, float32 of shape (B, *input_shape).
        y: class indices, int64 of shape (B,).
        index: int64 of shape (B,), which sample of the training set each is, unique over all environments.
        sizes: samples of each domain, in order; their sum is B.
        unlabeled: inputs of the test domains for domain adaptation, ``batch_size`` of each; shape (0,) where none.
        unlabeled_sizes: how many of each.
        error: why nothing was loaded; None where all was.
    """

    task: Task
    x: Tensor = field(default_factory=lambda: torch.empty(0))
    y: Tensor = field(default_factory=lambda: torch.empty(0))
    index: Tensor = field(default_factory=lambda: torch.empty(0))
    sizes: list[int] = field(default_factory=list)
    unlabeled: Tensor = field(default_factory=lambda: torch.empty(0))
    unlabeled_sizes: list[int] = field(default_factory=list)
    error: str | None = None

    def _tensors(self) -> list[Tensor]:
        return [self.x, self.y, self.index, self.unlabeled]

    @property
    def nbytes(self) -> int:
        """Bytes that its tensors take."""
        return sum(tensor.nbytes for tensor in self._tensors())

    def share_memory(self) -> None:
        """Move the tensors into memory that another process can read.

        Raises:
            RuntimeError: the system has no room there, or allows no more open files.
        """
        tensors: list[Any] = self._tensors()
        for tensor in tensors:
            if tensor.numel():
                tensor.share_memory_()

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for transfers beside computation."""
        pinned = {name: getattr(self, name).pin_memory() for name in ("x", "y", "unlabeled")}
        return replace(self, **pinned)

    def minibatches(self, device: torch.device) -> list[Minibatch]:
        """One labelled minibatch per domain, on the device; the index stays on the CPU."""
        x, y = self.x.to(device, non_blocking=True), self.y.to(device, non_blocking=True)
        parts = zip(*(torch.split(tensor, self.sizes) for tensor in (x, y, self.index)), strict=True)
        return [Minibatch(*part) for part in parts]

    def unlabeled_inputs(self, device: torch.device) -> list[Tensor]:
        """The inputs of each test domain for domain adaptation, on the device."""
        return list(torch.split(self.unlabeled.to(device, non_blocking=True), self.unlabeled_sizes))


@dataclass(frozen=True)
class _Drawn:
    """Samples of one environment, and their positions in it."""

    environment: int
    keys: Sequence[int]
    items: list[Item]


class TaskDataset(Dataset[Batch]):
    """Loads the batch of a task; see the module's docstring."""

    def __init__(
        self,
        environments: Sequence[Environment],
        splits: Sequence[Splits],
        test_envs: Sequence[int],
        batch_size: int,
        seed: int,
        class_balanced: bool = False,
    ) -> None:
        self.environments, self.splits, self.batch_size, self.seed = environments, splits, batch_size, seed
        self.sources = [i for i in range(len(environments)) if i not in test_envs]
        self.adapted = [i for i in test_envs if splits[i].uda]
        self.offsets = np.cumsum([0, *(len(environment) for environment in environments)])
        self.class_weights = {i: self._class_weights(i) for i in self.sources if class_balanced}

    def _class_weights(self, environment: int) -> np.ndarray:
        targets = self.environments[environment].targets
        return class_balanced_weights([targets[key] for key in self.splits[environment].in_])

    def __getitem__(self, task: Any) -> Batch:
        try:
            return self._train(task) if isinstance(task, TrainTask) else self._evaluate(task)
        except UserError as error:  # an exception from a worker process would arrive as a traceback
            return Batch(task, error=str(error))

    def _train(self, task: TrainTask) -> Batch:
        labelled = [self._draw(i, self.splits[i].in_, task.step, self.class_weights.get(i)) for i in self.sources]
        unlabeled = [self._draw(i, self.splits[i].uda, task.step, None) for i in self.adapted]
        batch = self._pack(task, labelled)
        if unlabeled:
            batch.unlabeled = torch.stack([x for drawn in unlabeled for x, _ in drawn.items])
            batch.unlabeled_sizes = [len(drawn.items) for drawn in unlabeled]
        return batch

    def _draw(self, environment: int, keys: list[int], step: int, weights: np.ndarray | None) -> _Drawn:
        place = (self.seed, environment, step)
        chosen = [keys[i] for i in draw_indices(self.batch_size, len(keys), weights, "minibatch", *place)]
        with torch.random.fork_rng(devices=[]):
            # The CPU generator alone: torch.manual_seed would reseed the accelerator's as well.
            torch.default_generator.manual_seed(int(raw_stream(1, "augmentation", *place)[0] >> np.uint64(1)))
            return _Drawn(environment, chosen, [self.environments[environment].train_item(key) for key in chosen])

    def _evaluate(self, task: EvaluateTask) -> Batch:
        environment = self.environments[task.environment]
        return self._pack(task, [_Drawn(task.environment, task.keys, [environment[key] for key in task.keys])])

    def _pack(self, task: Task, drawn: Sequence[_Drawn]) -> Batch:
        items = [item for one in drawn for item in one.items]
        y = torch.tensor([int(y) for _, y in items])
        index = [key + int(self.offsets[one.environment]) for one in drawn for key in one.keys]
        sizes = [len(one.items) for one in drawn]
        return Batch(task, torch.stack([x for x, _ in items]), y, torch.tensor(index), sizes)


def evaluation_tasks(splits: Sequence[Splits]) -> list[EvaluateTask]:
    """The tasks that read every split once, in DomainBed's order: all in-, all out-, all uda-splits."""
    named = [(f"env{i}_in", i, split.in_) for i, split in enumerate(splits)]
    named += [(f"env{i}_out", i, split.out) for i, split in enumerate(splits)]
    named += [(f"env{i}_uda", i, split.uda) for i, split in enumerate(splits)]
    return [
        EvaluateTask(name, i, tuple(keys[start : start + EVALUATION_BATCH]))
        for name, i, keys in named
        for start in range(0, len(keys), EVALUATION_BATCH)
    ]


@dataclass(frozen=True)
class Schedule:
    """Which tasks a run takes, in order: every step, and an evaluation after each checkpoint step and the last."""

    n_steps: int
    checkpoint_freq: int
    evaluation: Sequence[EvaluateTask]
    start: int = 0

    def is_checkpoint(self, step: int) -> bool:
        """Whether the run is evaluated after this step."""
        return step % self.checkpoint_freq == 0 or step == self.n_steps - 1

    def __iter__(self) -> Iterator[Task]:
        for step in range(self.start, self.n_steps):
            yield TrainTask(step)
            if self.is_checkpoint(step):
                yield from self.evaluation
