"""Difficulty: clean losses and inputs -> scores[B], detached, >= 0, one per sample; a larger score is harder.

Every difficulty is called with a :class:`Probe` of the batch and asks it for what it needs: the clean losses (free),
the input gradient (one backward pass to the inputs), losses at other inputs (one forward pass each). Names, sources and
defaults are in ``cards.DIFFICULTIES``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from domainbed_adm.errors import UserError
from domainbed_adm.method.cards import (
    ADM_ALPHA,
    ADM_DELTA,
    ADM_ESTIMATOR,
    ADM_GAP,
    ADM_REFRESH,
    DIFFICULTIES,
    RANDOM_SCORES,
    RUN_SEED,
)


@dataclass(frozen=True)
class Probe:
    """What a difficulty may look at, at the parameters of the clean pass.

    Attributes:
        x: inputs, shape (B, ...).
        losses: clean losses l_i, shape (B,), detached.
        input_gradient: returns the gradient of sum_i l_i in ``x`` (no 1/B), shape of ``x``, detached.
        losses_at: returns the detached losses of the batch at other inputs of ``x``'s shape, in the same mode and with
            the same dropout mask, and leaves BatchNorm statistics and random state alone.
        step: how many steps were done before.
        index: which sample of the training set each one is, int64 on the CPU, shape (B,); None where the loop does not
            say.
        place: where each stands in the step's batch, likewise.
    """

    x: Tensor
    losses: Tensor
    input_gradient: Callable[[], Tensor]
    losses_at: Callable[[Tensor], Tensor]
    step: int = 0
    index: Tensor | None = None
    place: Tensor | None = None


class Difficulty(Protocol):
    """Scores a batch: ``difficulty(probe) -> scores`` of shape (B,).

    A difficulty that estimates another one may also offer ``reference: Callable[[Probe], Tensor] | None``, the exact
    scores: the training step then reports, every so many steps, how well the two agree in rank.

    One whose scores are dear may offer ``refresh: float`` in (0, 1]: with weighting "memory" the step then scores only
    this share of a batch, those scored longest ago.

    ``whole_batch: bool`` may say that a sample's score depends on the others it is scored with, so that a batch cannot
    be scored in micro-batches.
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

    Two variants (ours). ``delta`` "batch_mean" is the mean of l_i over the samples that are scored together: late in
    training, where losses vanish, the score is then the gap in units of the usual loss, and no sample looks hard only
    since its own loss is near 0. ``gap`` "signed" leaves out the absolute value and adds 1, which changes no order and
    keeps scores >= 0: xi_i = (l(x_i + s sign(...)) + delta) / (l_i + delta), below 1 where the step lowers the loss.

    Args:
        alpha: FGSM step in [0, 1] pixel units, >= 0.
        delta: > 0, or "batch_mean".
        gap: "absolute" or "signed".
        estimator: "exact" (1 input gradient + 1 forward pass) or "linear" (1 input gradient).
        refresh: share in (0, 1] of a batch that a step scores, for weighting "memory" and the exact estimator; below 1
            the training step reports how well the scores it used agree in rank with fresh ones.
        input_std: the ``std`` of the inputs' normalisation, one per channel; None where inputs are raw pixels.

    Raises:
        UserError: a value is out of its range, or ``refresh`` is below 1 with the linear estimator.
    """

    alpha: float = ADM_ALPHA.default
    delta: float | str = ADM_DELTA.default
    gap: str = ADM_GAP.default
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
    def whole_batch(self) -> bool:
        """Whether a score depends on the other samples."""
        return self.delta == "batch_mean"

    @property
    def reference(self) -> Callable[[Probe], Tensor] | None:
        """The exact scores where this is the linear estimator, else None."""
        return self.exact if self.estimator == "linear" else None

    def exact(self, probe: Probe) -> Tensor:
        """The loss gap to the FGSM copy over the clean loss, shape (B,)."""
        x_adv = probe.x + self._step(probe.x) * probe.input_gradient().sign()
        gap = probe.losses_at(x_adv) - probe.losses
        return self._normalised(gap.abs() if self.gap == "absolute" else gap, probe.losses)

    def linear(self, probe: Probe) -> Tensor:
        """The gap's first-order value over the clean loss, shape (B,)."""
        gap = (self._step(probe.x) * probe.input_gradient().abs()).flatten(1).sum(1)
        return self._normalised(gap, probe.losses)

    def _normalised(self, gap: Tensor, losses: Tensor) -> Tensor:
        delta = losses.mean().clamp(min=ADM_DELTA.default) if isinstance(self.delta, str) else self.delta
        if self.gap == "absolute":
            return gap / (losses + delta)
        return (losses + gap + delta) / (losses + delta)

    def _step(self, x: Tensor) -> Tensor | float:
        if self.input_std is None:
            return self.alpha
        if len(self.input_std) != x.shape[1]:
            raise UserError(f"input_std has {len(self.input_std)} channels, the inputs have {x.shape[1]}")
        std = torch.tensor(self.input_std, dtype=x.dtype).to(x.device, non_blocking=True)
        return self.alpha / std.view(1, -1, *[1] * (x.ndim - 2))


@dataclass(frozen=True)
class Random:
    """xi_i uniform in [0, 1): a control (ours). Whatever a curriculum gains with it, no order of samples gave.

    Scores are a function of the seed, the sample and, where fresh, the step; where the loop does not say which samples
    they are, of the place in the batch. Cost: 0 passes.

    Args:
        scores: "fresh": others at each step; "fixed": each sample keeps its own.
        seed: >= 0.

    Raises:
        UserError: a value is out of its range.
    """

    scores: str = RANDOM_SCORES.default
    seed: int = RUN_SEED.default

    needs_input_gradient = False

    def __post_init__(self) -> None:
        DIFFICULTIES["Random"].check(self)

    def __call__(self, probe: Probe) -> Tensor:
        """Scores of shape (B,), without unit.

        Raises:
            UserError: fixed scores are asked for, and the loop does not say which samples they are.
        """
        samples = probe.index
        if samples is None:
            if self.scores == "fixed":
                raise UserError("random_scores fixed needs index, the identity of each sample; this loop has none")
            samples = torch.arange(len(probe.x)) if probe.place is None else probe.place
        step = probe.step + 1 if self.scores == "fresh" else 0
        places = samples.numpy()
        numbers = np.random.Generator(np.random.Philox(key=[self.seed, step])).random(int(places.max(initial=0)) + 1)
        return torch.from_numpy(numbers[places]).to(probe.losses)


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
