"""The one stream of batches of a run: training steps and evaluations, in the order the loop takes them.

A single loader serves both, so one number of workers is the run's whole budget and they live from start to end. What a
task holds is a function of the task alone: the samples of step t and their augmentation come from a counter-based
generator keyed by (seed, environment, t), whoever loads them and wherever the run was taken up again.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, resource_tracker
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from domainbed_adm.algorithms import Minibatch
from domainbed_adm.datasets.base import Environment
from domainbed_adm.errors import UserError
from domainbed_adm.system.seeding import draw_indices, raw_stream
from domainbed_adm.system.signals import ENDING, held_back
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
    """What one task yields: labelled pieces (x, y, index), and unlabeled inputs; or why it could not be loaded."""

    task: Task
    pieces: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    unlabeled: list[Tensor] = field(default_factory=list)
    error: str | None = None

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, for transfers beside computation."""
        pinned = [(x.pin_memory(), y.pin_memory(), index) for x, y, index in self.pieces]
        return Batch(self.task, pinned, [x.pin_memory() for x in self.unlabeled], self.error)

    def minibatches(self, device: torch.device) -> list[Minibatch]:
        """The labelled pieces on the device; the index stays on the CPU."""
        return [
            Minibatch(x.to(device, non_blocking=True), y.to(device, non_blocking=True), index)
            for x, y, index in self.pieces
        ]


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
        unlabeled = [self._draw(i, self.splits[i].uda, task.step, None)[0] for i in self.adapted]
        return Batch(task, labelled, unlabeled)

    def _draw(
        self, environment: int, keys: list[int], step: int, weights: np.ndarray | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        place = (self.seed, environment, step)
        chosen = [keys[i] for i in draw_indices(self.batch_size, len(keys), weights, "minibatch", *place)]
        with torch.random.fork_rng(devices=[]):
            # The CPU generator alone: torch.manual_seed would reseed the accelerator's as well.
            torch.default_generator.manual_seed(int(raw_stream(1, "augmentation", *place)[0] >> np.uint64(1)))
            items = [self.environments[environment].train_item(key) for key in chosen]
        return self._stack(environment, items, chosen)

    def _evaluate(self, task: EvaluateTask) -> Batch:
        items = [self.environments[task.environment][key] for key in task.keys]
        return Batch(task, [self._stack(task.environment, items, task.keys)])

    def _stack(
        self, environment: int, items: list[tuple[Tensor, int]], keys: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = torch.stack([x for x, _ in items])
        y = torch.tensor([int(y) for _, y in items])
        return x, y, torch.tensor(keys) + int(self.offsets[environment])


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


def open_stream(tasks: TaskDataset, schedule: Schedule, workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Yield the batches of the schedule's tasks in order.

    Args:
        tasks: loads one task.
        schedule: which ones.
        workers: processes that load; 0 loads in this one.
        pin_memory: whether to place batches in page-locked memory.

    Raises:
        UserError: a sample cannot be loaded; the message names it.
    """
    loader = DataLoader(
        tasks,
        batch_size=None,
        sampler=schedule,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        generator=torch.Generator(),  # the loader's own base seed must not draw from the global generator
        multiprocessing_context=_process_starter() if workers else None,
    )
    with held_back(*ENDING):  # a worker whose parent is gone before it is up says so in a traceback
        batches = iter(loader)
    return _checked(batches)


def _checked(batches: Iterator[Batch]) -> Iterator[Batch]:
    for batch in batches:
        if batch.error is not None:
            raise UserError(batch.error)
        yield batch


def _process_starter() -> Any:
    """Workers come from a clean server process: a fork of this one, whose threads run, could deadlock."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    resource_tracker.ensure_running()  # first: its start lets Ctrl-C through
    with held_back(
        signal.SIGINT
    ):  # from the workers for good: the terminal sends it to all, and this process ends them
        forkserver.ensure_running()
    return context


def _as_it_is(batch: Any) -> Any:
    return batch
