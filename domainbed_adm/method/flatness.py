"""Flatness: from the gradient of a weighted loss to the gradient handed to the base optimizer.

A rule is called with a :class:`Point`. It moves the parameters, asks for the gradient there, and puts them back, bit
for bit, also when asking raises. ||.||_2 is over all parameters jointly and is never read by the host. Parameters whose
gradient is None are left alone. Names, sources and defaults are in ``cards.FLATNESS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from domainbed_adm.method.cards import FLATNESS
from domainbed_adm.method.flatness_hparams import FSAM_LAMBDA, FSAM_SIGMA, RHO, SAGM_ALPHA
from domainbed_adm.method.gradients import Gradients, joint_norm, present

#: Added to ||g||, as the authors of SAM, SAGM and F-SAM do: a zero gradient moves nothing.
NORM_EPSILON = 1e-12


@dataclass
class Point:
    """What a rule may use.

    Attributes:
        params: the parameters.
        gradient: of the loss in them, one tensor or None each; the rule may change the tensors and empty the list.
        gradient_here: returns the gradient of the same loss wherever the parameters are then. Cost: 3 F.
        model: the parameters are of; None where nobody says.
        rate_share: the learning rate as a share of the one that its schedule began with (``initial_lr`` of the
            optimizer's first group, as torch's schedulers call it); 1 where it has none.
        state: what lasts from step to step. A rule writes new tensors, ``state[name] = tensor``, and changes none in
            place: the step takes over what was written only where all numbers turned out finite.
    """

    params: Sequence[Tensor]
    gradient: Gradients
    gradient_here: Callable[[], Gradients]
    state: MutableMapping[str, Tensor]
    model: nn.Module | None = None
    rate_share: float = 1.0

    def names(self) -> list[str]:
        """The model's names of the parameters, "" of one that it does not have; none where there is no model."""
        names: dict[Tensor, str] = {}
        if self.model is not None:
            names = {param: name for name, param in self.model.named_parameters()}
        return [names.get(param, "") for param in self.params] if names else []


class Flatness(Protocol):
    """A rule: ``flatness(point) -> gradient for the optimizer``, one tensor or None per parameter."""

    #: forward-backward passes a step takes, the first gradient's included
    passes: int

    def __call__(self, point: Point) -> Gradients:
        """Gradient to hand to the base optimizer."""
        ...


@dataclass(frozen=True)
class Plain:
    """No flatness: the gradient at the parameters. Cost: 1 forward-backward pass."""

    passes = 1

    def __call__(self, point: Point) -> Gradients:
        """The gradient as it is."""
        return point.gradient


@dataclass(frozen=True)
class SAM:
    """Sharpness-aware minimization: the gradient at theta + rho g / ||g||_2 (Foret et al., ICLR 2021, eq. 2 and 3).

    Cost: 2 forward-backward passes, one extra copy of the parameters.

    Args:
        rho: radius, >= 0; 0 gives the base optimizer.

    Raises:
        UserError: ``rho`` is out of its range.
    """

    rho: float = RHO.default

    passes = 2

    def __post_init__(self) -> None:
        FLATNESS["SAM"].check(self)

    def __call__(self, point: Point) -> Gradients:
        """The gradient at the top of the ball."""
        parts = present(point.gradient)
        if parts:
            torch._foreach_mul_(parts, self.rho / (joint_norm(parts) + NORM_EPSILON))
        del parts
        with displaced(point.params, point.gradient):
            return point.gradient_here()


@dataclass(frozen=True)
class SAGM:
    """Sharpness-aware gradient matching: (g + grad L(theta + (rho / ||g||_2 - alpha) g)) / 2 (Wang et al., CVPR 2023).

    Cost: 2 forward-backward passes, two extra copies of the parameters.

    Args:
        rho: radius, >= 0.
        alpha: the paper's step against the gradient, >= 0; with rho 0 and alpha 0 this is the base optimizer.

    Raises:
        UserError: a value is out of its range.
    """

    rho: float = RHO.default
    alpha: float = SAGM_ALPHA.default

    passes = 2

    def __post_init__(self) -> None:
        FLATNESS["SAGM"].check(self)

    def __call__(self, point: Point) -> Gradients:
        """The mean of the two gradients."""
        parts = present(point.gradient)
        if not parts:
            return point.gradient
        scale = self.rho / (joint_norm(parts) + NORM_EPSILON) - self.alpha
        scaled = list(torch._foreach_mul(parts, scale))
        offsets = [None if part is None else scaled.pop(0) for part in point.gradient]
        with displaced(point.params, offsets):  # which frees them
            there = point.gradient_here()
        return [_mean(here, far) for here, far in zip(point.gradient, there, strict=True)]


@dataclass(frozen=True)
class FSAM:
    """Friendly SAM: SAM along d = g - sigma m, m a running mean of g (Li et al., CVPR 2024, algorithm 1).

    m <- lambda m + (1 - lambda) g with the *raw* g, after d is taken; a parameter's first step has d = g, m = g. The
    mean is kept in ``state`` under ``fsam_momentum_<position of the parameter>``.
    Cost: 2 forward-backward passes, three extra copies of the parameters (the mean before and after the step).

    Args:
        rho: radius, >= 0; 0 gives the base optimizer.
        sigma: share of the mean taken out, >= 0; 0 gives SAM.
        momentum: the paper's lambda, in [0, 1).

    Raises:
        UserError: a value is out of its range.
    """

    rho: float = RHO.default
    sigma: float = FSAM_SIGMA.default
    momentum: float = FSAM_LAMBDA.default

    passes = 2

    def __post_init__(self) -> None:
        FLATNESS["FSAM"].check(self)

    def __call__(self, point: Point) -> Gradients:
        """The gradient at the top of the ball along the minibatch's own direction."""
        for position, raw in enumerate(point.gradient):
            if raw is not None:
                point.gradient[position] = self._without_mean(f"fsam_momentum_{position}", raw, point.state)
        return SAM(self.rho)(point)

    def _without_mean(self, key: str, raw: Tensor, state: MutableMapping[str, Tensor]) -> Tensor:
        if key not in state:
            state[key] = raw.clone()
            return raw
        mean = state[key].to(raw.device)  # a checkpoint may come from another device
        state[key] = (mean * self.momentum).add_(raw, alpha=1 - self.momentum)
        return raw - self.sigma * mean


@contextmanager
def displaced(params: Sequence[Tensor], offsets: Gradients) -> Iterator[None]:
    """Within the block the parameters are ``params + offsets``; after it, bit for bit what they were.

    ``offsets`` is emptied once added, so that its memory is free for the block's own gradients. Autocast keeps the
    weights that it has cast to a lower precision; they are dropped whenever the parameters move, or the next pass would
    still see the old ones.
    """
    moved = [param for param, offset in zip(params, offsets, strict=True) if offset is not None]
    with torch.no_grad():
        kept = [param.clone() for param in moved]
    try:
        with torch.no_grad():
            if moved:
                torch._foreach_add_(moved, present(offsets))
        offsets.clear()
        torch.clear_autocast_cache()
        yield
    finally:
        with torch.no_grad():
            if moved:
                torch._foreach_copy_(moved, kept)
        torch.clear_autocast_cache()


def _mean(here: Tensor | None, there: Tensor | None) -> Tensor | None:
    if here is None:
        return None if there is None else 0.5 * there
    return 0.5 * here if there is None else here.add_(there).mul_(0.5)
