"""Check of a flatness rule."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import torch
from torch import Tensor

from domainbed_adm.method.flatness import Flatness, Point
from domainbed_adm.testing.common import name_of

#: Shapes of the parameters; the last one has no gradient.
_SHAPES = ((3, 2), (4,), (), (2,))


def check_flatness(flatness: Flatness) -> None:
    """Check that a rule turns gradients into a gradient as ``flatness.Flatness`` says.

    Raises:
        AssertionError: it does not; the message says where.
    """
    name = name_of(flatness)
    passes = getattr(flatness, "passes", None)
    assert passes in range(1, 100), f"{name}.passes must be an integer >= 1, is {passes!r}"
    for dtype in (torch.float32, torch.float64):
        for scale in (1.0, 0.0):
            _check_steps(flatness, dtype, scale)
    _check_raising(flatness)


def _check_steps(flatness: Flatness, dtype: torch.dtype, scale: float) -> None:
    """Three steps, of a gradient that is not 0 or is, then two again from the state after the first."""
    name, state = name_of(flatness), dict[str, Tensor]()
    kept, handed = dict[str, Tensor](), list[list[Tensor]]()
    for step in range(3):
        handed.append(_step(flatness, step, dtype, scale, state))
        for key, value in state.items():
            assert isinstance(value, Tensor), f"{name}: its state must be tensors, {key!r} is {type(value).__name__}"
        kept = copy.deepcopy(state) if step == 0 else kept
    for step in (1, 2):
        again = _step(flatness, step, dtype, scale, kept)
        assert all(map(torch.equal, again, handed[step])), (
            f"{name}: from a copy of its state it goes on otherwise, so something that lasts from step to step is not "
            "in the state"
        )


def _step(flatness: Flatness, step: int, dtype: torch.dtype, scale: float, state: dict[str, Tensor]) -> list[Tensor]:
    """The gradients that one call returns, checked."""
    name, params, calls = name_of(flatness), _params(dtype), []
    before, random = [param.detach().clone() for param in params], torch.get_rng_state()
    gradient_at = _gradient(params, step, scale)

    def gradient_here() -> list[Tensor | None]:
        calls.append(1)
        return gradient_at()

    handed = list(flatness(Point(params, gradient_at(), gradient_here, state)))
    assert len(calls) == flatness.passes - 1, (
        f"{name} asked for the gradient {len(calls)} times: its passes must be {len(calls) + 1}, are {flatness.passes}"
    )
    restored = all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
    assert restored, f"{name} must put the parameters back, bit for bit"
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


def _check_raising(flatness: Flatness) -> None:
    """A rule that asks for another gradient puts the parameters back where asking fails."""
    params = _params(torch.float64)
    before = [param.detach().clone() for param in params]

    def fails() -> list[Tensor | None]:
        raise ArithmeticError("not finite")

    with contextlib.suppress(ArithmeticError):
        flatness(Point(params, _gradient(params, 0, 1.0)(), fails, {}))
    restored = all(torch.equal(param, old) for param, old in zip(params, before, strict=True))
    assert restored, f"{name_of(flatness)} must put the parameters back where the gradient cannot be computed"


def _params(dtype: torch.dtype) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    return [torch.rand(shape, generator=random, dtype=torch.float64).to(dtype).requires_grad_() for shape in _SHAPES]


def _gradient(params: list[Tensor], step: int, scale: float) -> Callable[[], list[Tensor | None]]:
    """Of a quartic around a point that moves from step to step, None for the last parameter."""

    def gradient() -> list[Tensor | None]:
        return [*(scale * (param.detach() - step) ** 3 for param in params[:-1]), None]

    return gradient
