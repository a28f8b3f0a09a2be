"""Wilcoxon's test by trying every sign; Benjamini and Hochberg's correction by trying every level."""

from fractions import Fraction
from itertools import product

from tests.reference.curriculum import rank


def mean_difference(method, baseline):
    total = 0.0
    for ours, theirs in zip(method, baseline, strict=True):
        total += ours - theirs
    return total / len(method)


def wilcoxon(differences):
    """Of all ways to sign the ranks, the share whose sum is as far from the middle as the one seen."""
    moved = [d for d in differences if d != 0]
    sizes = [abs(d) for d in moved]
    ranks = [rank(sizes, i) + 1 for i in range(len(moved))]
    middle = sum(ranks) / 2
    seen = abs(sum(r for r, d in zip(ranks, moved, strict=True) if d > 0) - middle)
    as_far = [
        abs(sum(r for r, positive in zip(ranks, signs, strict=True) if positive) - middle) >= seen
        for signs in product((False, True), repeat=len(moved))
    ]
    return sum(as_far) / len(as_far)


def rejected(p_values, level):
    """Benjamini and Hochberg, 1995, (1): the k smallest, k the largest with p_(k) <= k / m * level."""
    m = len(p_values)
    order = sorted(range(m), key=lambda i: p_values[i])
    largest = max((k for k in range(1, m + 1) if p_values[order[k - 1]] <= Fraction(k, m) * level), default=0)
    return set(order[:largest])


def corrected(p_values):
    """The smallest level at which each is rejected."""
    exact = [Fraction(p) for p in p_values]
    m = len(exact)
    levels = sorted(p * m / k for p in exact for k in range(1, m + 1))
    return [float(min(level for level in levels if i in rejected(exact, level))) for i in range(m)]
