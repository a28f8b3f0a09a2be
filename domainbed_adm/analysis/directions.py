"""Random directions in the space of a network's parameters, normalised by filter, and the loss along them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from domainbed_adm.analysis.mean_loss import MeanLoss
from domainbed_adm.method.flatness import displaced
from domainbed_adm.system.seeding import seed_hash


def filter_normalised(params: Sequence[Tensor], seed: int, number: int) -> list[Tensor]:
    """Random direction ``number``: d_f <- d_f ||theta_f|| / ||d_f|| for each filter f (Li et al., NeurIPS 2018, 4).

    A filter is what makes one output: a slice along the first axis. Parameters of one axis (biases, those of
    normalisations) have direction zero. The entries are standard normal before, drawn on the CPU by the parameter's
    position and shape alone: networks of equal shapes get the same direction, up to their own filters' norms.
    """
    return [
        _direction(param, seed_hash("landscape", seed, number, i, tuple(param.shape))) for i, param in enumerate(params)
    ]


def _direction(param: Tensor, seed: int) -> Tensor:
    if param.ndim <= 1:
        return torch.zeros_like(param)
    direction = torch.randn(param.shape, generator=torch.Generator().manual_seed(seed)).to(param)
    axes = tuple(range(1, param.ndim))
    lengths, own = (torch.linalg.vector_norm(x.detach(), dim=axes, keepdim=True) for x in (direction, param))
    scaled: Tensor = direction * (own / lengths)
    return scaled


def symmetric_grid(points: int, radius: float) -> np.ndarray:
    """``points`` (odd) numbers from -radius to radius at equal distances; the middle one is exactly 0."""
    half = points // 2
    return np.arange(-half, half + 1) / half * radius


def loss_along(
    loss: MeanLoss, direction: Sequence[Tensor], alphas: np.ndarray, on_point: Callable[[], None] = lambda: None
) -> np.ndarray:
    """L(theta + alpha d) for each alpha, shape (len(alphas),); infinite or NaN where the loss is.

    The parameters are put back bit for bit. Cost: 1 forward pass for each alpha.
    """
    return np.array([_loss_at(loss, [(alpha, direction)], on_point) for alpha in alphas])


def loss_over_plane(
    loss: MeanLoss,
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    alphas: np.ndarray,
    on_point: Callable[[], None] = lambda: None,
) -> np.ndarray:
    """L(theta + alpha_i d_1 + alpha_j d_2) at [i, j]; otherwise as :func:`loss_along`."""
    return np.array([[_loss_at(loss, [(a, first), (b, second)], on_point) for b in alphas] for a in alphas])


def _loss_at(loss: MeanLoss, steps: Sequence[tuple[float, Sequence[Tensor]]], on_point: Callable[[], None]) -> float:
    offsets: list[Tensor | None] = [
        torch.stack([float(alpha) * direction[i] for alpha, direction in steps]).sum(0) for i in range(len(loss.params))
    ]
    with displaced(loss.params, offsets):
        value = loss.value()
    on_point()
    return value
