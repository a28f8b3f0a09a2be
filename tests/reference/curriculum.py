"""Curriculum weights, by counting."""


def spl_fraction(progress, start=0.1):
    stages = [start + (1 - start) * k / 9 for k in range(10)]
    for k in range(9):
        if progress < (k + 1) / 10:
            return stages[k]
    return stages[9]


def spl_quantile(scores, progress, start=0.1):
    """The smallest limit among the scores with at least the fraction r at or below it."""
    fraction = spl_fraction(progress, start)
    for limit in sorted(scores):
        if sum(score <= limit for score in scores) >= fraction * len(scores) - 1e-9:
            return [1.0 if score <= limit else 0.0 for score in scores]
    raise AssertionError("the largest score keeps all")


def spl_threshold(scores, progress, start=0.1, threshold=1.0):
    limit = max(threshold * spl_fraction(progress, start), min(scores))
    return [1.0 if score <= limit else 0.0 for score in scores]


def rank(scores, i):
    """Mean of the places that score i and its equals take in the order, 0 the smallest."""
    below = sum(score < scores[i] for score in scores)
    equal = sum(score == scores[i] for score in scores)
    return sum(range(below, below + equal)) / equal


def sspl(scores, progress, eta=1.0):
    if len(scores) == 1:
        return [1.0]
    easy = 1 + eta * (1 - 2 * progress)
    hard = 1 - eta * (1 - 2 * progress)
    return [easy + (hard - easy) * rank(scores, i) / (len(scores) - 1) for i in range(len(scores))]


def within_domains(weigh, scores, domain_sizes):
    weights, start = [], 0
    for size in domain_sizes:
        weights += weigh(scores[start : start + size]) if size else []
        start += size
    return weights
