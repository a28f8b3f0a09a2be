"""Checks of a difficulty and of a curriculum."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from domainbed_adm.method.curriculum import Curriculum
from domainbed_adm.method.difficulty import Difficulty, Probe
from domainbed_adm.method.step import TrainingStep
from domainbed_adm.testing.common import BATCH, CLASSES, name_of, same_state


def check_difficulty(difficulty: Difficulty) -> None:
    """Check that a difficulty scores a batch as ``difficulty.Difficulty`` says.

    Raises:
        AssertionError: it does not; the message says where.
    """
    name = name_of(difficulty)
    needs = getattr(difficulty, "needs_input_gradient", None)
    assert isinstance(needs, bool), f"{name}.needs_input_gradient must be True or False, is {needs!r}"
    _scores(difficulty, _model(torch.float32), *_batch(torch.float32))
    x, y = _batch(torch.float64)
    scores, again = (_scores(difficulty, _model(torch.float64), x, y) for _ in range(2))
    assert torch.equal(scores, again), f"{name}: the same batch must get the same scores twice"
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(1))
    straight = _scores(difficulty, _model(torch.float64).eval(), x, y)[order]
    turned = _scores(difficulty, _model(torch.float64).eval(), x[order], y[order])
    same = torch.allclose(turned, straight, rtol=1e-6)
    assert same, f"{name}: a sample's score must not depend on its place in the batch, it changed with the order"


def check_curriculum(curriculum: Curriculum) -> None:
    """Check that a curriculum weights scores as ``curriculum.Curriculum`` says.

    Raises:
        AssertionError: it does not; the message says where.
    """
    name = name_of(curriculum)
    random = torch.Generator().manual_seed(0)
    for progress in (0.0, 0.3, 1.0):
        for size in (1, 2, BATCH):
            for dtype in (torch.float32, torch.float64):
                _check_weights(curriculum, torch.rand(size, generator=random, dtype=dtype), progress)
        _check_weights(curriculum, torch.zeros(BATCH), progress)
        scores = torch.rand(BATCH, generator=random)
        order = torch.randperm(BATCH, generator=random)
        same = torch.allclose(curriculum(scores[order], progress), curriculum(scores, progress)[order])
        assert same, f"{name}: a sample's weight must not depend on its place in the batch"


def _check_weights(curriculum: Curriculum, scores: Tensor, progress: float) -> None:
    name = name_of(curriculum)
    kept = scores.clone()
    weights = curriculum(scores, progress)
    what = f"{name}: its weights for {len(scores)} scores at progress {progress}"
    _check_vector(weights, len(scores), scores.dtype, what)
    assert weights.sum() > 0, f"{what} are all 0, one sample at least must count"
    assert torch.equal(scores, kept), f"{name} changed the scores that it got"


def _check_vector(found: object, size: int, dtype: torch.dtype, what: str) -> None:
    assert isinstance(found, Tensor), f"{what} must be a tensor, are {type(found).__name__}"
    assert found.shape == (size,), f"{what} must have shape ({size},), have {tuple(found.shape)}"
    assert found.dtype == dtype, f"{what} must keep the dtype {dtype}, have {found.dtype}"
    assert bool(found.isfinite().all()), f"{what} must be finite, are {found.tolist()}"
    assert bool((found >= 0).all()), f"{what} must be >= 0, the smallest is {found.min().item():g}"


def _scores(difficulty: Difficulty, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The scores as a training step asks for them, checked on the way."""
    witness = _Witness(difficulty, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        TrainingStep(
            model, optimizer, None, lambda scores, progress: torch.ones_like(x[:, 0, 0, 0]), witness, total_steps=1
        )(x, y)
    assert witness.scores is not None
    return witness.scores


class _Witness:
    """A difficulty that watches another one at work."""

    def __init__(self, difficulty: Difficulty, model: nn.Module) -> None:
        self.difficulty, self.model = difficulty, model
        self.needs_input_gradient = difficulty.needs_input_gradient
        self.scores: Tensor | None = None

    def __call__(self, probe: Probe) -> Tensor:
        name = name_of(self.difficulty)

        def input_gradient() -> Tensor:
            assert self.needs_input_gradient, f"{name} asks for probe.input_gradient: set needs_input_gradient = True"
            return probe.input_gradient()

        before = self._trace(probe)
        scores = self.difficulty(replace(probe, input_gradient=input_gradient))
        after = self._trace(probe)
        _check_vector(scores, len(probe.x), probe.x.dtype, f"{name}: its scores")
        assert not scores.requires_grad, f"{name}: its scores must be detached from the graph"
        for what, old in before.items():
            assert same_state(old, after[what]), f"{name} changed {what}: a score must leave no trace"
        self.scores = scores
        return scores

    def _trace(self, probe: Probe) -> dict[str, dict[str, Any]]:
        """Everything that a score must leave alone."""
        gradients = {key: p.grad for key, p in self.model.named_parameters() if p.grad is not None}
        return copy.deepcopy(
            {
                "the inputs or losses that it got": {"x": probe.x, "losses": probe.losses},
                "parameters or buffers of the model": self.model.state_dict(),
                ".grad of parameters": gradients,
                "the mode of a module": {key: module.training for key, module in self.model.named_modules()},
                "the state of the random generator": {"torch": torch.get_rng_state()},
            }
        )


def _model(dtype: torch.dtype) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [
            nn.Flatten(),
            nn.Linear(32, 10),
            nn.BatchNorm1d(10),
            nn.Tanh(),
            nn.Dropout(0.3),
            nn.Linear(10, CLASSES),
        ]
        return nn.Sequential(*layers).to(dtype).train()


def _batch(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, 2, 4, 4, generator=random, dtype=torch.float64).to(dtype)
    return x, torch.randint(CLASSES, (BATCH,), generator=random)
