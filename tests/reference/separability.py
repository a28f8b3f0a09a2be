"""Slow twins of analysis/separability.py: one row, plain loops."""

import math


def mean_ranks(values):
    return [sum(v < value for v in values) + (sum(v == value for v in values) - 1) / 2 for value in values]


def spearman(a, b):
    a, b = mean_ranks(a), mean_ranks(b)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    joint = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    own = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return joint / own if own else math.nan


def variation(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values)) / mean


def same_order(exact, estimate):
    ordered = kept = 0
    for x, a in zip(exact, estimate, strict=True):
        for y, b in zip(exact, estimate, strict=True):
            if x < y:
                ordered += 1
                kept += 1 if a < b else 0.5 if a == b else 0
    return kept / ordered if ordered else math.nan
