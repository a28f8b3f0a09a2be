"""Seeds: DomainBed's hash of arguments, and random numbers that depend on a counter instead of on history."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_hash(*args: object) -> int:
    """DomainBed's seed of some arguments: md5 of ``str(args)`` as an integer, modulo 2**31."""
    return int(hashlib.md5(str(args).encode()).hexdigest(), 16) % 2**31


def raw_stream(n: int, *key: object) -> np.ndarray:
    """``n`` independent uniform 64-bit integers, uint64 of shape (n,), that are a function of the ``repr`` of ``key``.

    They come from the counter-based generator Philox keyed by the md5 of ``key``, so the numbers of one
    (seed, environment, step) depend neither on other steps nor on who computes them. Only the raw output is used,
    which NumPy guarantees to stay the same from version to version (its derived draws it does not: NEP 19).
    """
    digest = int(hashlib.md5(repr(key).encode()).hexdigest(), 16)
    return np.random.Philox(key=digest).random_raw(n)


def draw_indices(n: int, population: int, weights: np.ndarray | None, *key: object) -> np.ndarray:
    """Draw ``n`` indices below ``population`` with replacement, int64 of shape (n,), as a function of ``key`` alone.

    ``weights`` are None for uniform, or ``population`` non-negative ones with a positive sum.
    """
    raw = raw_stream(n, *key)
    if weights is None:
        return np.asarray(raw % np.uint64(population), dtype=np.int64)
    edges = np.cumsum(weights, dtype=np.float64)
    places = np.searchsorted(edges / edges[-1], raw / 2.0**64, side="right")
    return np.minimum(places, population - 1).astype(np.int64)
