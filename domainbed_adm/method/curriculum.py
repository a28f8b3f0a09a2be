"""Curriculum: scores[B] and progress -> weights v[B], detached. The step's loss is sum_i v_i l_i / sum_i v_i.

For SSPL, whose weights have mean 1, that is mean(v_i l_i). Names, sources and defaults are in
``cards.CURRICULA``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from domainbed_adm.method.cards import CURRICULA, SPL_MODE, SPL_START, SPL_THRESHOLD, SSPL_ETA
from domainbed_adm.method.difficulty import mean_ranks

STAGES = 10


class Curriculum(Protocol):
    """Weights a batch: ``curriculum(scores, progress) -> weights`` of shape (B,).

    ``absolute: bool`` may say that weights depend on the scores' size, not on their order alone: then there is no
    mirror image of it, ``hard_first``.
    """

    def __call__(self, scores: Tensor, progress: float) -> Tensor:
        """Weights of shape (B,), >= 0; ``progress`` is in [0, 1]."""
        ...


@dataclass(frozen=True)
class SPL:
    """Self-paced learning: v_i = 1 if xi_i <= lambda(p), else 0 (Kumar et al., NeurIPS 2010; the ADM paper).

    lambda grows with progress p through the fraction r(p), which rises in ten equal stages from ``start`` to 1:
    r = start + (1 - start) floor(10 p) / 9. Our choice, as in the SSPL authors' code: 0.1, 0.2, ..., 1.0.

    - "quantile", our choice of the default: lambda is the smallest score with at least the fraction r of the batch at
      or below it. At least one sample stays, and so do samples that tie with the last one kept.
    - "threshold", the ADM paper's absolute lambda: lambda = ``threshold`` * r(p), in the score's own units. Our choice:
      the ADM paper says only that lambda grows. Where no score is that small, the easiest stays.

    Args:
        start: r at the start, in (0, 1].
        mode: "quantile" or "threshold".
        threshold: lambda at the end of training in threshold mode, > 0.

    Raises:
        UserError: a value is out of its range.
    """

    start: float = SPL_START.default
    mode: str = SPL_MODE.default
    threshold: float = SPL_THRESHOLD.default

    def __post_init__(self) -> None:
        CURRICULA["SPL"].check(self)

    @property
    def absolute(self) -> bool:
        """Whether lambda is in the score's units."""
        return self.mode == "threshold"

    def fraction(self, progress: float) -> float:
        """r(p) in [start, 1]."""
        stage = min(math.floor(STAGES * progress), STAGES - 1)
        return self.start + (1 - self.start) * stage / (STAGES - 1)

    def __call__(self, scores: Tensor, progress: float) -> Tensor:
        """Weights 0 or 1 of shape (B,)."""
        fraction = self.fraction(progress)
        if self.mode == "quantile":
            # 1e-9 keeps a product such as 0.1 * 30 = 3.0000000000000004 from counting one sample more.
            kept = max(1, math.ceil(fraction * len(scores) - 1e-9))
            limit = scores.kthvalue(kept).values
        else:
            limit = scores.min().clamp(min=self.threshold * fraction)
        return (scores <= limit).to(scores.dtype)


@dataclass(frozen=True)
class SSPL:
    """Symmetric self-paced learning: weights linear in rank, easy first, hard last (Zhao et al., AAAI 2024).

    With w_easy = 1 + eta (1 - 2p) and w_hard = 1 - eta (1 - 2p), the sample of rank k (0 = easiest of B) gets
    w_easy + (w_hard - w_easy) k / (B - 1). The mean weight is 1 at every p; B = 1 gives weight 1. Our choice:
    equal scores share the mean of their ranks, hence equal weights.

    Args:
        eta: in [0, 1]; 0 gives weight 1 to all, 1 weights from 0 to 2.

    Raises:
        UserError: ``eta`` is out of its range.
    """

    eta: float = SSPL_ETA.default

    def __post_init__(self) -> None:
        CURRICULA["SSPL"].check(self)

    def __call__(self, scores: Tensor, progress: float) -> Tensor:
        """Weights in [1 - eta, 1 + eta] of shape (B,)."""
        if len(scores) == 1:
            return torch.ones_like(scores)
        slope = self.eta * (1 - 2 * progress)
        return 1 + slope * (1 - 2 * mean_ranks(scores) / (len(scores) - 1))  # equal scores: 1 to the bit


def hardest_first(scores: Tensor) -> Tensor:
    """Scores whose order is turned around, >= 0, shape (B,): the number of samples that are harder; ties stay ties."""
    return mean_ranks(-scores)


def within_domains(curriculum: Curriculum, scores: Tensor, progress: float, domain_sizes: Sequence[int]) -> Tensor:
    """Scope "domain" (ours): the curriculum within each source domain, so that no hard domain is pushed out as a whole.

    Args:
        curriculum: weights one domain's scores.
        scores: of the domains' minibatches, concatenated; shape (B,).
        progress: in [0, 1].
        domain_sizes: number of samples of each domain, in order; empty domains are allowed.

    Returns:
        Weights of shape (B,).
    """
    parts = scores.split_with_sizes(list(domain_sizes))
    return torch.cat([curriculum(part, progress) if len(part) else part for part in parts])
