"""Curriculum: scores[B] and progress -> weights v[B], detached. The step's loss is sum_i v_i l_i / sum_i v_i.

For SSPL, whose weights have mean 1, that is mean(v_i l_i). Names and sources are in ``methods.CURRICULA``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from domainbed_adm.errors import UserError, lookup
from domainbed_adm.method.difficulty import mean_ranks

STAGES = 10


class Curriculum(Protocol):
    """Weights a batch: ``curriculum(scores, progress) -> weights`` of shape (B,)."""

    def __call__(self, scores: Tensor, progress: float) -> Tensor:
        """Weights of shape (B,), >= 0; ``progress`` is in [0, 1]."""
        ...


@dataclass(frozen=True)
class SPL:
    """Self-paced learning: v_i = 1 if xi_i <= lambda(p), else 0 (Kumar et al., NeurIPS 2010; the ADM poster).

    lambda grows with progress p through the fraction r(p), which rises in ten equal stages from ``start`` to 1:
    r = start + (1 - start) floor(10 p) / 9 (*chosen*, as the SSPL authors' code does it: 0.1, 0.2, ..., 1.0).

    - "quantile" (*chosen* default): lambda is the smallest score with at least the fraction r of the batch at or
      below it, so at least one sample stays, and samples that tie with the last one kept stay too.
    - "threshold" (the poster's absolute lambda): lambda = ``threshold`` * r(p), in the score's own units (*chosen*: the
      poster says only that lambda grows). Where no score is that small, the easiest stays.

    Args:
        start: r at the start, in (0, 1].
        mode: "quantile" or "threshold".
        threshold: lambda at the end of training in threshold mode, > 0.

    Raises:
        UserError: a value is out of its range.
    """

    start: float = 0.1
    mode: str = "quantile"
    threshold: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.start <= 1:
            raise UserError(f"SPL's start must be in (0, 1], not {self.start}")
        if not self.threshold > 0:
            raise UserError(f"SPL's threshold must be > 0, not {self.threshold}")
        lookup({"quantile": None, "threshold": None}, self.mode, "SPL mode")

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
    w_easy + (w_hard - w_easy) k / (B - 1). The mean weight is 1 at every p; B = 1 gives weight 1. Equal scores share
    the mean of their ranks (*chosen*), hence equal weights.

    Args:
        eta: in [0, 1]; 0 gives weight 1 to all, 1 weights from 0 to 2.

    Raises:
        UserError: ``eta`` is out of its range.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UserError(f"SSPL's eta must be in [0, 1], not {self.eta}")

    def __call__(self, scores: Tensor, progress: float) -> Tensor:
        """Weights in [1 - eta, 1 + eta] of shape (B,)."""
        if len(scores) == 1:
            return torch.ones_like(scores)
        slope = self.eta * (1 - 2 * progress)
        return 1 + slope - 2 * slope * mean_ranks(scores) / (len(scores) - 1)


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
    parts = scores.split(list(domain_sizes))
    return torch.cat([curriculum(part, progress) if len(part) else part for part in parts])


#: The curricula by the names of ``methods.CURRICULA``; each builds one from hparams.
FROM_HPARAMS: dict[str, Callable[[dict[str, Any]], Curriculum]] = {
    "SPL": lambda hparams: SPL(hparams["spl_start"], hparams["spl_mode"], hparams["spl_threshold"]),
    "SSPL": lambda hparams: SSPL(hparams["sspl_eta"]),
}
