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


def asam(theta, first, gradient_at, kept, rho=0.5, eta=0.01):
    scales = [abs(t) + eta if is_weight else 1.0 for t, is_weight in zip(theta, kept["weights"], strict=True)]
    length = norm([s * g for s, g in zip(scales, first, strict=True)])
    return gradient_at([t + rho * s * s * g / length for t, s, g in zip(theta, scales, first, strict=True)])


def gsam(theta, first, gradient_at, kept, rho=0.05, alpha=0.01):
    there = sam(theta, first, gradient_at, kept, rho)
    inner, length = sum(g * h for g, h in zip(first, there, strict=True)), norm(there)
    across = [g - inner * h / length**2 for g, h in zip(first, there, strict=True)]
    return [h - alpha * a for h, a in zip(there, across, strict=True)]
