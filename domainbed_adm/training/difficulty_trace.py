"""``difficulty.npz``: how hard a fixed sample of the training images is, by every difficulty, at each checkpoint.

The sample is scored beside training and leaves no trace in it: no parameter, gradient, BatchNorm statistic or random
number moves. A score is what the curriculum would see: the mini-batches hold the source domains in equal shares, in the
mode of ``side_effects.as_trained``; images are not augmented. Cost at a checkpoint: 4 F of the sample (a clean pass
with its input gradient, a pass in evaluation mode), and the forward passes of each difficulty, 1 F for ADM.

=======================  ========================================================================================
``environment``          (N,) int64: with ``sample``, which image each one is
``sample``               (N,) int64: its position in the environment
``step``                 (T,) int64: the step scored after
``correct``              (T, N) bool: whether the image is classified rightly, in evaluation mode
``<difficulty>``         (T, N) float32: scores by each difficulty there is, such as ``Loss``, ``GDM`` and ``ADM``
``<difficulty>_<name>``  (T, N) float32: its estimate, such as ``ADM_linear``
=======================  ========================================================================================
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import DIFFICULTIES
from domainbed_adm.method.difficulty import Difficulty, Probe
from domainbed_adm.method.passes import cross_entropy
from domainbed_adm.method.side_effects import RandomState, as_trained
from domainbed_adm.system.disk import replacing
from domainbed_adm.system.seeding import raw_stream
from domainbed_adm.training.compilation import uncompiled
from domainbed_adm.training.setup import Setup

_DEFAULT_SIZE = 256
#: Arrays of the file that are no scores.
_NOT_SCORES = ("environment", "sample", "step", "correct")


@dataclass(frozen=True)
class Trace:
    """Scores of N images at T checkpoints; see the module's docstring."""

    environment: np.ndarray
    sample: np.ndarray
    step: np.ndarray
    scores: dict[str, np.ndarray]
    correct: np.ndarray

    @classmethod
    def begin(cls, images: list[tuple[int, int]], measures: Iterable[str]) -> Trace:
        """A trace of these (environment, position) by these difficulties, without a checkpoint yet."""
        environment, sample = np.array(images, dtype=np.int64).reshape(-1, 2).T
        empty = np.zeros((0, len(images)), np.float32)
        return cls(environment, sample, np.zeros(0, np.int64), dict.fromkeys(measures, empty), empty.astype(bool))

    @property
    def images(self) -> list[tuple[int, int]]:
        """(environment, position) of each one."""
        return list(zip(self.environment.tolist(), self.sample.tolist(), strict=True))

    def before(self, step: int) -> Trace:
        """The part of the checkpoints before ``step``."""
        kept = self.step < step
        scores = {name: values[kept] for name, values in self.scores.items()}
        return replace(self, step=self.step[kept], scores=scores, correct=self.correct[kept])

    def with_checkpoint(self, step: int, scores: Mapping[str, np.ndarray], correct: np.ndarray) -> Trace:
        """The trace and one checkpoint more."""
        longer = {name: np.concatenate([values, scores[name][None]]) for name, values in self.scores.items()}
        correct = np.concatenate([self.correct, correct[None]])
        return replace(self, step=np.append(self.step, step), scores=longer, correct=correct)

    def save(self, path: Path) -> None:
        """Write the trace, whole or not at all."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _NOT_SCORES} | self.scores
        with replacing(path) as file:
            np.savez_compressed(file, **arrays)


def load_trace(path: Path) -> Trace:
    """Read a trace; nothing in the file is executed.

    Raises:
        UserError: it is damaged, or no trace.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            scores = {name: file[name] for name in file.files}
            environment, sample, step, correct = (scores.pop(name) for name in _NOT_SCORES)
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no difficulty trace, or damaged") from error
    shape = (*step.shape, *sample.shape)
    wrong = [name for name, values in {"correct": correct, **scores}.items() if values.shape != shape]
    if wrong or len(shape) != 2 or environment.shape != sample.shape or not scores:
        raise UserError(f"{path} is no difficulty trace: wrong shape of {', '.join(wrong) or 'step or sample'}")
    return Trace(environment, sample, step, scores, correct.astype(bool))


class DifficultyTracer:
    """Scores these images of the run when asked, and keeps the file up to date.

    An earlier part of the same run in the file is continued, its checkpoints from ``next_step`` on are dropped.

    Raises:
        UserError: the file there is another trace's.
    """

    def __init__(self, run: Setup, path: Path, images: list[tuple[int, int]], next_step: int) -> None:
        self.run, self.path = run, path
        difficulties = _traced_difficulties(run)
        self.trace = Trace.begin(images, difficulties)
        if path.exists() and next_step:
            earlier = load_trace(path)
            if images != earlier.images:
                raise UserError(f"{path} traces other images: give the --trace_difficulty it began with, or --restart")
            if lacking := earlier.scores.keys() - difficulties.keys():
                raise UserError(f"{path} has scores by {', '.join(sorted(lacking))}, which is not there: --restart")
            self.trace = earlier.before(next_step)
            if len(self.trace.step) < len(earlier.step):
                self.trace.save(path)  # as the records: readers want the steps of both equal
        self._difficulties = {name: difficulties[name] for name in self.trace.scores}
        with torch.random.fork_rng(devices=[]):
            items = [run.dataset.datasets[environment][position] for environment, position in images]
        self._x, self._y = torch.stack([x for x, _ in items]), torch.tensor([int(y) for _, y in items])

    def observe(self, step: int) -> dict[str, np.ndarray]:
        """Score the sample after this step, write the file, and return the scores by difficulty, each of shape (N,)."""
        # equal parts of about a training batch, each with the domains in equal shares
        count = max(1, len(self._y) // (len(self.run.sources) * self.run.hparams["batch_size"]))
        minibatches = zip(self._x.tensor_split(count), self._y.tensor_split(count), strict=True)
        parts = [self._score(x.to(self.run.device), y.to(self.run.device)) for x, y in minibatches]
        scores = {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in parts[0]}
        correct = scores.pop("correct")
        self.trace = self.trace.with_checkpoint(step, scores, correct)
        self.trace.save(self.path)
        return scores

    def _score(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        algorithm = self.run.algorithm
        losses_at = torch.no_grad()(lambda other: cross_entropy(algorithm.predict(other), y))
        with RandomState({x.device}).replayed(), self.run.autocast(), uncompiled(algorithm):
            with as_trained(algorithm):
                clean = x.detach().requires_grad_()
                losses = cross_entropy(algorithm.predict(clean), y)
                # scaled as in training, where fp16 would lose the small ones
                scale = self.run.scaler.get_scale() / len(x) if self.run.scaler else 1.0
                gradient = torch.autograd.grad(losses.sum() * scale, clean)[0] / scale
                probe = Probe(x, losses.detach(), lambda: gradient, losses_at)
                scores = {name: difficulty(probe).float() for name, difficulty in self._difficulties.items()}
            algorithm.eval()
            with torch.no_grad():
                correct = algorithm.predict(x).argmax(1) == y
            algorithm.train()
        return scores | {"correct": correct}


def _traced_difficulties(run: Setup) -> dict[str, Difficulty]:
    """Every difficulty that measures something, by name, with the run's hparams or defaults; also ``ADM_linear``."""
    std = run.dataset.normalization.std if run.dataset.normalization else None
    found = {}
    for card in (card for card in DIFFICULTIES.values() if not card.only_by_name):
        hparams = {hparam.name: hparam.default for hparam in card.hparams} | run.hparams
        hparams |= {"input_std": std, "total_steps": run.n_steps}
        if estimate := card.estimate:
            hparams[estimate.hparam.name] = estimate.hparam.default
        found[card.name] = card.build(hparams)
        if estimate:
            found[f"{card.name}_{estimate.value}"] = card.build(hparams | {estimate.hparam.name: estimate.value})
    return found


def choose_sample(run: Setup) -> list[tuple[int, int]]:
    """(environment, position) of the images to score: from the in-splits of the sources, in turn, without repeats.

    They depend on the data, the splits, the trial and the number asked for, not on the method, so that the runs of one
    trial score the same images. None are chosen where no trace is asked for.

    Raises:
        UserError: there are not so many images, or fewer than two.
    """
    asked = run.trace_difficulty
    if asked is None and "tensorboard" not in run.loggers:
        return []
    shuffled = []
    for i in run.sources:
        keys = np.array(run.splits[i].in_)
        order = np.argsort(raw_stream(len(keys), "difficulty trace", run.args["trial_seed"], i), kind="stable")
        shuffled.append([(i, int(key)) for key in keys[order]])
    longest = max(map(len, shuffled), default=0)
    dealt = [keys[place] for place in range(longest) for keys in shuffled if place < len(keys)]
    wanted = min(_DEFAULT_SIZE, len(dealt)) if asked is None or asked is True else asked
    if not 2 <= wanted <= len(dealt):
        raise UserError(f"--trace_difficulty must be in [2, {len(dealt)}], the training images there are, not {wanted}")
    return dealt[:wanted]
