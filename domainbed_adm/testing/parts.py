"""Conformance of a difficulty, a curriculum, a flatness rule and an algorithm."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.method.curriculum import Curriculum
from domainbed_adm.method.difficulty import Difficulty, Probe
from domainbed_adm.method.flatness import Flatness, Point
from domainbed_adm.method.grid import METHODS
from domainbed_adm.method.step import TrainingStep

_BATCH = 12
_CLASSES = 3
_DOMAINS = 3
_INPUT_SHAPE = (3, 28, 28)
#: Steps of an algorithm before its state is saved, and after.
_STEPS = 4
#: Hparams of the network that the check of an algorithm trains; others come from the registry.
_SMALL = {"cnn_width": 8, "batch_size": _BATCH // _DOMAINS, "total_steps": 2 * _STEPS, "input_std": None}
#: Shapes of the parameters that a flatness rule gets; the last one has no gradient.
_SHAPES = ((3, 2), (4,), (), (2,))


def check_difficulty(difficulty: Difficulty) -> None:
    """Check that a difficulty scores a batch as ``difficulty.Difficulty`` says."""
    name = _name_of(difficulty)
    needs = getattr(difficulty, "needs_input_gradient", None)
    assert isinstance(needs, bool), f"{name}.needs_input_gradient must be True or False, is {needs!r}"
    random = torch.Generator().manual_seed(0)
    x = torch.rand(_BATCH, 2, 4, 4, generator=random, dtype=torch.float64)
    y = torch.randint(_CLASSES, (_BATCH,), generator=random)
    _scores(difficulty, x.float(), y)
    scores, again = (_scores(difficulty, x, y) for _ in range(2))
    assert torch.equal(scores, again), f"{name}: the same batch must get the same scores twice"
    order = torch.randperm(_BATCH, generator=torch.Generator().manual_seed(1))
    straight = _scores(difficulty, x, y, training=False)[order]
    turned = _scores(difficulty, x[order], y[order], training=False)
    same = torch.allclose(turned, straight, rtol=1e-6)
    assert same, f"{name}: a sample's score must not depend on its place in the batch, it changed with the order"


def _scores(difficulty: Difficulty, x: Tensor, y: Tensor, training: bool = True) -> Tensor:
    """The scores as a training step asks for them, checked on the way."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = [nn.Flatten(), nn.Linear(32, 10), nn.BatchNorm1d(10), nn.Tanh(), nn.Dropout(0.3)]
        model = nn.Sequential(*layers, nn.Linear(10, _CLASSES)).to(x.dtype).train(training)
        witness = _Witness(difficulty, model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        torch.manual_seed(5)
        TrainingStep(model, optimizer, None, lambda scores, _: torch.ones_like(scores), witness, total_steps=1)(x, y)
    return witness.scores


class _Witness:
    """A difficulty that watches another one at work."""

    scores: Tensor

    def __init__(self, difficulty: Difficulty, model: nn.Module) -> None:
        self.difficulty, self.model = difficulty, model
        self.needs_input_gradient = difficulty.needs_input_gradient

    def __call__(self, probe: Probe) -> Tensor:
        name = _name_of(self.difficulty)

        def input_gradient() -> Tensor:
            assert self.needs_input_gradient, f"{name} asks for probe.input_gradient: set needs_input_gradient = True"
            return probe.input_gradient()

        before = self._trace(probe)
        self.scores = self.difficulty(replace(probe, input_gradient=input_gradient))
        after = self._trace(probe)
        _check_vector(self.scores, len(probe.x), probe.x.dtype, f"{name}: its scores")
        assert not self.scores.requires_grad, f"{name}: its scores must be detached from the graph"
        for what, old in before.items():
            assert _same_state(old, after[what]), f"{name} changed {what}: a score must leave no trace"
        return self.scores

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


def check_curriculum(curriculum: Curriculum) -> None:
    """Check that a curriculum weights scores as ``curriculum.Curriculum`` says."""
    random = torch.Generator().manual_seed(0)
    for progress in (0.0, 0.3, 1.0):
        for size in (1, 2, _BATCH):
            for dtype in (torch.float32, torch.float64):
                _check_weights(curriculum, torch.rand(size, generator=random, dtype=dtype), progress)
        _check_weights(curriculum, torch.zeros(_BATCH), progress)
        scores, order = torch.rand(_BATCH, generator=random), torch.randperm(_BATCH, generator=random)
        same = torch.allclose(curriculum(scores[order], progress), curriculum(scores, progress)[order])
        assert same, f"{_name_of(curriculum)}: a sample's weight must not depend on its place in the batch"


def _check_weights(curriculum: Curriculum, scores: Tensor, progress: float) -> None:
    kept, weights = scores.clone(), curriculum(scores, progress)
    what = f"{_name_of(curriculum)}: its weights for {len(scores)} scores at progress {progress}"
    _check_vector(weights, len(scores), scores.dtype, what)
    assert weights.sum() > 0, f"{what} are all 0, one sample at least must count"
    assert torch.equal(scores, kept), f"{_name_of(curriculum)} changed the scores that it got"


def _check_vector(vector: object, size: int, dtype: torch.dtype, what: str) -> None:
    assert isinstance(vector, Tensor), f"{what} must be a tensor, are {type(vector).__name__}"
    assert vector.shape == (size,), f"{what} must have shape ({size},), have {tuple(vector.shape)}"
    assert vector.dtype == dtype, f"{what} must keep the dtype {dtype}, have {vector.dtype}"
    assert bool(vector.isfinite().all()), f"{what} must be finite, are {vector.tolist()}"
    assert bool((vector >= 0).all()), f"{what} must be >= 0, the smallest is {vector.min().item():g}"


def check_flatness(flatness: Flatness) -> None:
    """Check that a rule turns gradients into a gradient as ``flatness.Flatness`` says."""
    name = _name_of(flatness)
    passes = getattr(flatness, "passes", None)
    assert passes in range(1, 100), f"{name}.passes must be an integer >= 1, is {passes!r}"
    for dtype in (torch.float32, torch.float64):
        for scale in (1.0, 0.0):  # a gradient that is not 0, or is
            _check_rule_and_state(flatness, dtype, scale)

    def fails() -> list[Tensor | None]:
        raise ArithmeticError("not finite")

    params = _params(torch.float64)
    with contextlib.suppress(ArithmeticError):
        flatness(Point(params, _gradient(params, 0, 1.0), fails, {}))
    restored = all(map(torch.equal, params, _params(torch.float64)))
    assert restored, f"{name} must put the parameters back where the gradient cannot be computed"


def _check_rule_and_state(flatness: Flatness, dtype: torch.dtype, scale: float) -> None:
    """Three steps, then two again from the state after the first."""
    name, state = _name_of(flatness), dict[str, Tensor]()
    kept, handed = dict[str, Tensor](), list[list[Tensor]]()
    for step in range(3):
        handed.append(_checked_gradients(flatness, step, dtype, scale, state))
        for key, value in state.items():
            assert isinstance(value, Tensor), f"{name}: its state must be tensors, {key!r} is {type(value).__name__}"
        kept = copy.deepcopy(state) if step == 0 else kept
    for step in (1, 2):
        again = _checked_gradients(flatness, step, dtype, scale, kept)
        assert all(map(torch.equal, again, handed[step])), (
            f"{name}: from a copy of its state it goes on otherwise, so something that lasts from step to step is not "
            "in the state"
        )


def _checked_gradients(
    flatness: Flatness, step: int, dtype: torch.dtype, scale: float, state: dict[str, Tensor]
) -> list[Tensor]:
    name, params, calls = _name_of(flatness), _params(dtype), []
    random = torch.get_rng_state()

    def gradient_here() -> list[Tensor | None]:
        calls.append(1)
        return _gradient(params, step, scale)

    handed = list(flatness(Point(params, _gradient(params, step, scale), gradient_here, state)))
    assert len(calls) == flatness.passes - 1, (
        f"{name} asked for the gradient {len(calls)} times: its passes must be {len(calls) + 1}, are {flatness.passes}"
    )
    assert all(map(torch.equal, params, _params(dtype))), f"{name} must put the parameters back, bit for bit"
    assert all(param.grad is None for param in params), f"{name} changed .grad of parameters"
    assert torch.equal(torch.get_rng_state(), random), f"{name} changed the state of the random generator"
    assert len(handed) == len(params), f"{name} must return {len(params)} gradients, returned {len(handed)}"
    returned = []
    for param, part in zip(params[:-1], handed, strict=False):
        what = f"{name}: the gradient that it returns"
        assert isinstance(part, Tensor), f"{what} must be a tensor, is {type(part).__name__}"
        assert part.shape == param.shape, f"{what} must have shape {tuple(param.shape)}, has {tuple(part.shape)}"
        assert part.dtype == dtype, f"{what} must keep the dtype {dtype}, has {part.dtype}"
        assert bool(part.isfinite().all()), f"{what} must be finite, also where the gradient is {scale:g} everywhere"
        returned.append(part)
    assert handed[-1] is None, f"{name}: where the gradient is None it must return None, returned {handed[-1]!r}"
    return returned


def _params(dtype: torch.dtype) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_() for shape in _SHAPES]


def _gradient(params: Sequence[Tensor], step: int, scale: float) -> list[Tensor | None]:
    """Of a quartic around a point that moves from step to step, None for the last parameter."""
    return [*(scale * (param.detach() - step) ** 3 for param in params[:-1]), None]


def check_algorithm(algorithm_class: type[nn.Module], hparams: Mapping[str, Any] | None = None) -> None:
    """Check that a class keeps DomainBed's contract of an ``Algorithm``, and can be saved and loaded.

    Args:
        algorithm_class: the class; its constructor gets (input_shape, num_classes, num_domains, hparams).
        hparams: over the registry's defaults of its name, or of ERM's where the registry does not know it.
    """
    name = algorithm_class.__name__
    given = {**default_hparams(name if name in METHODS else "ERM", "Debug28"), **_SMALL, **(hparams or {})}
    algorithm, loaded = (_built(algorithm_class, given) for _ in range(2))
    minibatches = [_minibatches(seed) for seed in range(2 * _STEPS)]
    start = copy.deepcopy(dict(algorithm.named_parameters()))
    for step in minibatches[:_STEPS]:
        _check_update(algorithm, step, name)
    end = dict(algorithm.named_parameters())
    same = {key: value.dtype for key, value in start.items()} == {key: value.dtype for key, value in end.items()}
    assert same, f"{name}: update() changed the dtype or the names of parameters"
    assert not _same_state(start, end), f"{name}: update() changed no parameter"
    _check_predict(algorithm, torch.cat([x for x, _ in minibatches[0]]), name)
    _check_goes_on(algorithm, loaded, minibatches[_STEPS:], name)


def _check_update(algorithm: Any, minibatches: Sequence[tuple[Tensor, Tensor]], name: str) -> None:
    kept = copy.deepcopy(minibatches)
    figures = algorithm.update(minibatches, None)
    assert isinstance(figures, dict), f"{name}: update() must return a dict of figures, returned {figures!r}"
    assert "loss" in figures, f"{name}: update() must return 'loss', returned {', '.join(map(str, figures))}"
    for key, value in figures.items():
        real = isinstance(value, (float, int)) and not isinstance(value, bool)
        assert real, f"{name}: update() must return floats, {key!r} is a {type(value).__name__}"
        assert math.isfinite(value), f"{name}: update() returned {key!r} = {value}"
    same = all(map(torch.equal, chain(*minibatches), chain(*kept)))
    assert same, f"{name}: update() changed its minibatches"
    assert algorithm.training, f"{name}: update() must leave the algorithm in training mode"


def _check_predict(algorithm: Any, x: Tensor, name: str) -> None:
    algorithm.eval()
    before = copy.deepcopy(algorithm.state_dict())
    with torch.no_grad():
        logits = algorithm.predict(x)
    wanted = (len(x), _CLASSES)
    assert isinstance(logits, Tensor), f"{name}: predict() must return a tensor"
    assert logits.shape == wanted, f"{name}: predict() must return shape {wanted}, returned {tuple(logits.shape)}"
    assert _same_state(before, algorithm.state_dict()), f"{name}: predict() in evaluation mode changed the state"
    algorithm.train()


def _check_goes_on(old: Any, new: Any, steps: Sequence[Any], name: str) -> None:
    """A fresh instance that loads the state, the optimizer's too, goes on bit for bit as the old one."""
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert _same_state(old.state_dict(), new.state_dict()), f"{name}: its state dict changes when it is loaded"
    for key, value in vars(old).items():
        if isinstance(value, torch.optim.Optimizer):
            getattr(new, key).load_state_dict(copy.deepcopy(value.state_dict()))
    for algorithm in (old, new):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            for minibatches in steps:
                algorithm.update(minibatches, None)
    assert _same_state(old.state_dict(), new.state_dict()), (
        f"{name}: loaded from its state dict it goes on otherwise than the instance that was saved, so something that "
        "lasts from step to step is in neither a parameter, a buffer, a submodule nor an optimizer"
    )


def _built(algorithm_class: type[nn.Module], hparams: Mapping[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        algorithm = algorithm_class(_INPUT_SHAPE, _CLASSES, _DOMAINS, dict(hparams))
    assert isinstance(algorithm, nn.Module), f"{algorithm_class.__name__} must be a torch.nn.Module"
    return algorithm.train()


def _minibatches(seed: int) -> list[tuple[Tensor, Tensor]]:
    random, size = torch.Generator().manual_seed(seed), _BATCH // _DOMAINS
    return [
        (torch.rand(size, *_INPUT_SHAPE, generator=random), torch.randint(_CLASSES, (size,), generator=random))
        for _ in range(_DOMAINS)
    ]


def _same_state(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a
    )


def _name_of(part: object) -> str:
    return getattr(part, "__name__", type(part).__name__)
