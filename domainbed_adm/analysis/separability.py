"""How well a measure tells samples apart, from a trace of its scores: pure functions of arrays.

With xi_t in R^N the scores of N images at checkpoint t, t = 0 ... T - 1:

============================  ==================================================================================
coefficient of variation      std(xi_t) / mean(xi_t), std with divisor N; 0: all images score alike
correlation with the last     Spearman's of xi_t and xi_{t-1}: whether the order lasts; NaN at t = 0
correlation with correctness  Spearman's of xi_t and c in {0, 1}^N, whether the image is right at t = T - 1: below
                              0 where images that end wrong were scored harder
share of an estimate          share of the pairs (i, j) with xi_i < xi_j that the estimate has in that order
rank correlation of it        Spearman's of xi_t and its estimate
============================  ==================================================================================

Where scores are all equal a correlation is NaN; where one is no finite number, all figures of its checkpoint are.
Spearman's is Pearson's of mean ranks (Spearman, 1904).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import rankdata


class Separability(NamedTuple):
    """Figures of one measure at each checkpoint, each of shape (T,)."""

    variation: np.ndarray
    self_correlation: np.ndarray
    correctness_correlation: np.ndarray


class Agreement(NamedTuple):
    """How much of a measure's order its estimate keeps, at each checkpoint, each of shape (T,)."""

    share: np.ndarray
    rank_correlation: np.ndarray


def separability(scores: np.ndarray, correct: np.ndarray) -> Separability:
    """The figures of one measure.

    Args:
        scores: of shape (T, N), >= 0.
        correct: bool of shape (T, N); the last row counts.
    """
    scores = _finite(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        variation = scores.std(axis=1) / scores.mean(axis=1)
    previous = np.append(np.full((1, scores.shape[1]), np.nan), scores[:-1], axis=0)[: len(scores)]
    final = np.broadcast_to(correct[-1:], scores.shape)
    return Separability(variation, rank_correlations(scores, previous), rank_correlations(scores, final))


def agreement(exact: np.ndarray, estimate: np.ndarray) -> Agreement:
    """How an estimate fares against the exact scores, both of shape (T, N)."""
    exact, estimate = _finite(exact), _finite(estimate)
    share = np.array([same_order(*pair) for pair in zip(exact, estimate, strict=True)])
    return Agreement(share, rank_correlations(exact, estimate))


def _finite(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(scores), scores.astype(np.float64), np.nan)


def rank_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's correlation of the rows of two arrays of shape (T, N), of shape (T,); NaN for constant or NaN rows."""
    ranks = np.array([rankdata(values, axis=1, nan_policy="propagate") for values in (a, b)])
    centred = ranks - ranks.mean(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlations: np.ndarray = (centred[0] * centred[1]).sum(axis=1) / np.linalg.norm(centred, axis=2).prod(axis=0)
    return correlations


def same_order(exact: np.ndarray, estimate: np.ndarray) -> float:
    """Share of the pairs that ``exact`` orders strictly which ``estimate`` orders alike; an equal pair is half.

    Args:
        exact: of shape (N,).
        estimate: of shape (N,).

    Returns:
        In [0, 1]; 1/2 is chance, NaN where all of ``exact`` are equal.
    """
    ordered = kept = 0.0
    for i in range(len(exact) - 1):
        above = np.sign(exact[i + 1 :] - exact[i])
        agreement = above * np.sign(estimate[i + 1 :] - estimate[i])
        ordered += np.count_nonzero(above)
        kept += np.count_nonzero(agreement > 0) + np.count_nonzero((agreement == 0) & (above != 0)) / 2
    return kept / ordered if ordered else float("nan")
