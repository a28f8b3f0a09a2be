"""Check of an algorithm."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from domainbed_adm.hparams_registry import default_hparams
from domainbed_adm.method.cards import METHODS
from domainbed_adm.testing.common import BATCH, CLASSES, same_state

INPUT_SHAPE = (3, 28, 28)
DOMAINS = 3
STEPS = 4
#: Hparams of the network that the check trains; others come from the registry.
SMALL = {"cnn_width": 8, "batch_size": BATCH // DOMAINS, "total_steps": 2 * STEPS, "input_std": None}


def check_algorithm(algorithm_class: type[nn.Module], hparams: Mapping[str, Any] | None = None) -> None:
    """Check that a class keeps DomainBed's contract of an ``Algorithm``, and can be saved and loaded.

    Args:
        algorithm_class: the class; its constructor gets (input_shape, num_classes, num_domains, hparams).
        hparams: over the registry's defaults of its name, or of ERM's where the registry does not know it.

    Raises:
        AssertionError: it does not; the message says where.
    """
    name = algorithm_class.__name__
    known = default_hparams(name if name in METHODS else "ERM", "Debug28")
    given = {**known, **SMALL, **(hparams or {})}
    algorithm = _built(algorithm_class, given)
    assert isinstance(algorithm, nn.Module), f"{name} must be a torch.nn.Module"
    minibatches = [_minibatches(t) for t in range(2 * STEPS)]
    dtypes = {key: parameter.dtype for key, parameter in algorithm.named_parameters()}
    start = copy.deepcopy(algorithm.state_dict())
    _check_updates(algorithm, minibatches[:STEPS], name)
    found = {key: parameter.dtype for key, parameter in algorithm.named_parameters()}
    assert found == dtypes, f"{name}: update() changed the dtype or the names of parameters"
    moved = any(not torch.equal(start[key], value) for key, value in algorithm.named_parameters())
    assert moved, f"{name}: update() changed no parameter"
    _check_predict(algorithm, minibatches[0], name)
    _check_round_trip(algorithm, _built(algorithm_class, given), minibatches, name)


def _check_updates(algorithm: nn.Module, steps: Sequence[Any], name: str) -> None:
    for minibatches in steps:
        kept = [(x.clone(), y.clone()) for x, y in minibatches]
        figures = algorithm.update(minibatches, None)  # type: ignore[operator]
        assert isinstance(figures, dict), f"{name}: update() must return a dict of figures, returned {figures!r}"
        assert "loss" in figures, f"{name}: update() must return 'loss', returned {', '.join(map(str, figures))}"
        for key, value in figures.items():
            real = isinstance(value, (float, int)) and not isinstance(value, bool)
            assert real, f"{name}: update() must return floats, {key!r} is a {type(value).__name__}"
            assert math.isfinite(value), f"{name}: update() returned {key!r} = {value}"
        for (x, y), (old_x, old_y) in zip(minibatches, kept, strict=True):
            same = torch.equal(x, old_x) and torch.equal(y, old_y)
            assert same, f"{name}: update() changed its minibatches"
        assert algorithm.training, f"{name}: update() must leave the algorithm in training mode"


def _check_predict(algorithm: nn.Module, minibatches: Sequence[Any], name: str) -> None:
    algorithm.eval()
    before = copy.deepcopy(algorithm.state_dict())
    x = torch.cat([x for x, _ in minibatches])
    with torch.no_grad():
        logits = algorithm.predict(x)  # type: ignore[operator]
    wanted = (len(x), CLASSES)
    assert isinstance(logits, Tensor), f"{name}: predict() must return a tensor"
    assert logits.shape == wanted, f"{name}: predict() must return shape {wanted}, returned {tuple(logits.shape)}"
    assert same_state(before, algorithm.state_dict()), f"{name}: predict() in evaluation mode changed the state"
    algorithm.train()


def _check_round_trip(old: Any, new: Any, minibatches: Sequence[Any], name: str) -> None:
    """A fresh instance that loads the state, the optimizer's too, goes on bit for bit as the old one."""
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    assert same_state(old.state_dict(), new.state_dict()), f"{name}: its state dict changes when it is loaded"
    optimizers = {key: value for key, value in vars(old).items() if isinstance(value, torch.optim.Optimizer)}
    for key, optimizer in optimizers.items():
        getattr(new, key).load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one in (old, new):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            for step in minibatches[STEPS:]:
                one.update(step, None)
    assert same_state(old.state_dict(), new.state_dict()), (
        f"{name}: loaded from its state dict it goes on otherwise than the instance that was saved, so something that "
        "lasts from step to step is in neither a parameter, a buffer, a submodule nor an optimizer"
    )


def _built(algorithm_class: type[nn.Module], hparams: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return algorithm_class(INPUT_SHAPE, CLASSES, DOMAINS, dict(hparams)).train()


def _minibatches(seed: int) -> list[tuple[Tensor, Tensor]]:
    random = torch.Generator().manual_seed(seed)
    size = BATCH // DOMAINS
    return [
        (torch.rand(size, *INPUT_SHAPE, generator=random), torch.randint(CLASSES, (size,), generator=random))
        for _ in range(DOMAINS)
    ]
