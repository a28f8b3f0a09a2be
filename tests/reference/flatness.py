"""Flatness rules on one flat vector of parameters: theta is a list of floats, L's gradient a function of it."""

import math


def norm(vector):
    return math.sqrt(sum(v * v for v in vector))


def plain(theta, first, gradient_at, kept):
    return first


def sam(theta, first, gradient_at, kept, rho=0.05):
    length = norm(first)
    return gradient_at([t + rho * g / length for t, g in zip(theta, first, strict=True)])


def sagm(theta, first, gradient_at, kept, rho=0.05, alpha=0.001):
    length = norm(first)
    there = gradient_at([t + (rho / length - alpha) * g for t, g in zip(theta, first, strict=True)])
    return [(g + h) / 2 for g, h in zip(first, there, strict=True)]


def fsam(theta, first, gradient_at, kept, rho=0.05, sigma=1.0, momentum=0.9):
    if "m" not in kept:
        direction, kept["m"] = list(first), list(first)
    else:
        direction = [g - sigma * m for g, m in zip(first, kept["m"], strict=True)]
        kept["m"] = [momentum * m + (1 - momentum) * g for g, m in zip(first, kept["m"], strict=True)]
    length = norm(direction)
    return gradient_at([t + rho * d / length for t, d in zip(theta, direction, strict=True)])
