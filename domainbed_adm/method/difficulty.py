"""Difficulty: clean losses and inputs -> scores[B], detached, >= 0, one per sample; a larger score is harder.

Every difficulty is called with a :class:`Probe` of the batch and asks it for what it needs: the clean losses (free),
the input gradient (one backward pass to the inputs), losses at other inputs (one forward pass each). Names, sources and
defaults are in ``cards.DIFFICULTIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import ADM_ALPHA, ADM_DELTA, ADM_ESTIMATOR, ADM_REFRESH, DIFFICULTIES


@dataclass(frozen=True)
class Probe:
    """What a difficulty may look at, at the parameters of the clean pass.

    Attributes:
        x: inputs, shape (B, ...).
        losses: clean losses l_i, shape (B,), detached.
        input_gradient: returns the gradient of sum_i l_i in ``x`` (no 1/B), shape of ``x``, detached.
        losses_at: returns the detached losses of the batch at other inputs of ``x``'s shape, in the same mode and with
            the same dropout mask, and leaves BatchNorm statistics and random state alone.
    """

    x: Tensor
    losses: Tensor
    input_gradient: Callable[[], Tensor]
    losses_at: Callable[[Tensor], Tensor]


class Difficulty(Protocol):
    """Scores a batch: ``difficulty(probe) -> scores`` of shape (B,).

    A difficulty that estimates another one may also offer ``reference: Callable[[Probe], Tensor] | None``, the exact
    scores: the training step then reports, every so many steps, how well the two agree in rank.

    One whose scores are dear may offer ``refresh: float`` in (0, 1]: with weighting "memory" the step then scores only
    this share of a batch, those scored longest ago.
    """

    #: whether the score asks for ``probe.input_gradient``
    needs_input_gradient: bool

    def __call__(self, probe: Probe) -> Tensor:
        """Scores of shape (B,), detached, >= 0."""
        ...


@dataclass(frozen=True)
class Loss:
    """xi_i = l_i, the sample's own loss (SPL: Kumar et al., NeurIPS 2010). Cost: 0 passes."""

    needs_input_gradient = False

    def __call__(self, probe: Probe) -> Tensor:
        """Scores of shape (B,), in nats."""
        return probe.losses


@dataclass(frozen=True)
class GDM:
    """xi_i = ||grad_{x_i} l_i||_2 over all pixels of x_i (SSPL: Zhao et al., AAAI 2024). Cost: 1 input gradient."""

    needs_input_gradient = True

    def __call__(self, probe: Probe) -> Tensor:
        """Scores of shape (B,), in nats per input unit."""
        norms: Tensor = torch.linalg.vector_norm(probe.input_gradient().flatten(1), dim=1)
        return norms


@dataclass(frozen=True)
class ADM:
    """The Adversarial Difficulty Measure (Aizawa and Hayashi, BMVC 2025, arXiv 2508.18726).

    Exact: xi_i = |l(x_i + s sign(grad_{x_i} l_i)) - l_i| / (l_i + delta), the normalised loss gap to the FGSM copy.
    Linear (ours): xi_i = sum_d s_d |d l_i / d x_{i,d}| / (l_i + delta), the first-order value of the same gap.

    The step s is ``alpha`` in pixels of [0, 1]; where inputs are normalised it is ``alpha / input_std`` per channel.
    The FGSM copy is not clipped to valid pixels; the ADM paper does not clip it either. Our choice: ``delta`` = 1e-6;
    the ADM paper says > 0. How well the linear score ranks samples depends on the network, so it is never a default:
    the run reports its rank correlation with the exact one.

    Args:
        alpha: FGSM step in [0, 1] pixel units, >= 0.
        delta: > 0.
        estimator: "exact" (1 input gradient + 1 forward pass) or "linear" (1 input gradient).
        refresh: share in (0, 1] of a batch that a step scores, for weighting "memory" and the exact estimator; below 1
            the training step reports how well the scores it used agree in rank with fresh ones.
        input_std: the ``std`` of the inputs' normalisation, one per channel; None where inputs are raw pixels.

    Raises:
        UserError: a value is out of its range, or ``refresh`` is below 1 with the linear estimator.
    """

    alpha: float = ADM_ALPHA.default
    delta: float = ADM_DELTA.default
    estimator: str = ADM_ESTIMATOR.default
    input_std: Sequence[float] | None = None
    refresh: float = ADM_REFRESH.default

    needs_input_gradient = True

    def __post_init__(self) -> None:
        DIFFICULTIES["ADM"].check(self)
        if self.refresh < 1 and self.estimator == "linear":
            raise UserError(
                f"ADM's refresh {self.refresh:g} saves forward passes, and the linear estimator has none: "
                "set adm_refresh to 1 or adm_estimator to exact"
            )

    def __call__(self, probe: Probe) -> Tensor:
        """Scores of shape (B,), without unit."""
        return self.linear(probe) if self.estimator == "linear" else self.exact(probe)

    @property
    def reference(self) -> Callable[[Probe], Tensor] | None:
        """The exact scores where this is the linear estimator, else None."""
        return self.exact if self.estimator == "linear" else None

    def exact(self, probe: Probe) -> Tensor:
        """The loss gap to the FGSM copy over the clean loss, shape (B,)."""
        x_adv = probe.x + self._step(probe.x) * probe.input_gradient().sign()
        return (probe.losses_at(x_adv) - probe.losses).abs() / (probe.losses + self.delta)

    def linear(self, probe: Probe) -> Tensor:
        """The gap's first-order value over the clean loss, shape (B,)."""
        gap = (self._step(probe.x) * probe.input_gradient().abs()).flatten(1).sum(1)
        return gap / (probe.losses + self.delta)

    def _step(self, x: Tensor) -> Tensor | float:
        if self.input_std is None:
            return self.alpha
        if len(self.input_std) != x.shape[1]:
            raise UserError(f"input_std has {len(self.input_std)} channels, the inputs have {x.shape[1]}")
        std = torch.tensor(self.input_std, dtype=x.dtype).to(x.device, non_blocking=True)
        return self.alpha / std.view(1, -1, *[1] * (x.ndim - 2))


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's correlation of two score vectors of shape (B,): Pearson's of their mean ranks. NaN for constants."""
    ranks = torch.stack([mean_ranks(a), mean_ranks(b)]).to(torch.promote_types(a.dtype, torch.float32))
    centred = ranks - ranks.mean(1, keepdim=True)
    norms: Tensor = torch.linalg.vector_norm(centred, dim=1)
    return (centred[0] * centred[1]).sum() / norms.prod()


def mean_ranks(scores: Tensor) -> Tensor:
    """Rank of each score, 0 = smallest; equal scores share the mean of their ranks. Shape (B,), on the device."""
    ordered = scores.sort().values
    below = torch.searchsorted(ordered, scores, right=False)
    upto = torch.searchsorted(ordered, scores, right=True)
    return (below + upto - 1).to(scores.dtype) / 2
