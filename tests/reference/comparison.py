"""Means and intervals over environments by plain sums; Wilcoxon's test by every sign; correction by every level."""

import math
from fractions import Fraction
from itertools import product

from tests.reference.curriculum import rank


def environment_means(method, baseline, environments):
    """The mean difference of each environment, in the order in which they appear."""
    means = []
    for one in dict.fromkeys(environments):
        own = [a - b for a, b, env in zip(method, baseline, environments, strict=True) if env == one]
        means.append(sum(own) / len(own))
    return means


def student_quantile(df):
    """t with P(|T| <= t) = 0.95 for df >= 1: the density integrated by Simpson's rule, t found by halving."""
    constant = math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) / math.sqrt(df * math.pi)

    def within(t):
        """T = sqrt(df) tan(u): the integrand is cos(u)^(df - 1), smooth on a bounded range."""
        end, steps = math.atan(t / math.sqrt(df)), 2000
        weights = [1, *(4 if i % 2 else 2 for i in range(1, steps)), 1]
        area = sum(w * math.cos(end * i / steps) ** (df - 1) for i, w in enumerate(weights)) * end / steps / 3
        return 2 * constant * math.sqrt(df) * area

    low, high = 0.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if within(middle) < 0.95 else (low, middle)
    return low


def student_interval(means):
    n = len(means)
    mean = sum(means) / n
    variance = sum((d - mean) ** 2 for d in means) / (n - 1)
    half = student_quantile(n - 1) * math.sqrt(variance / n)
    return mean - half, mean + half


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
