"""The loss around models, along random directions normalised by filter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from domainbed_adm.analysis.cost import Cost, announce, timed
from domainbed_adm.analysis.mean_loss import MeanLoss
from domainbed_adm.analysis.result_files import Landscape
from domainbed_adm.analysis.runs import LandscapeSettings
from domainbed_adm.analysis.trained_model import TrainedModel
from domainbed_adm.method.flatness import displaced
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.system.seeding import seed_hash


def measure_landscape(model: TrainedModel, where: LandscapeSettings, seed: int, title: str) -> Landscape:
    """The loss around a model, on all source domains pooled and on all test domains pooled.

    Raises:
        UserError: BatchNorm has too small a mini-batch.
    """
    alphas, alphas_2d = symmetric_grid(where.points, where.radius), symmetric_grid(where.plane_points, where.radius)
    samples = {"source": model.samples.pooled, "test": model.samples.test}
    first, second = (filter_normalised(model.params, seed, number) for number in range(2))
    arrays: dict[str, Any] = {}
    each = where.points + where.plane_points**2
    cost = Cost(len(samples), sum(map(len, samples.values())), (0, 0), each)
    announce(title, timed(cost, model.loss(model.samples.test)), ("--samples", "--plane_points", "--points"))
    with ProgressBar(title, len(samples) * each, lines=True) as bar:
        for name, sample in samples.items():
            loss = model.loss(sample)
            arrays[f"{name}_1d"] = loss_along(loss, first, alphas, bar.advance)
            arrays[f"{name}_2d"] = loss_over_plane(loss, first, second, alphas_2d, bar.advance)
    return Landscape(**model.about, test_name=model.samples.test.name, alphas=alphas, alphas_2d=alphas_2d, **arrays)


def filter_normalised(params: Sequence[Tensor], seed: int, number: int) -> list[Tensor]:
    """Random direction ``number``: d_f <- d_f ||theta_f|| / ||d_f|| for each filter f (Li et al., NeurIPS 2018, 4).

    A filter is what makes one output: a slice along the first axis. Parameters of one axis (biases, those of
    normalisations) have direction zero. The entries are standard normal before, drawn on the CPU by the parameter's
    position and shape alone: networks of equal shapes get the same direction, up to their own filters' norms.
    """
    directions = []
    for i, param in enumerate(params):
        seeded = torch.Generator().manual_seed(seed_hash("landscape", seed, number, i, tuple(param.shape)))
        direction = torch.zeros_like(param)
        if param.ndim > 1:
            direction = torch.randn(param.shape, generator=seeded).to(param)
            axes = tuple(range(1, param.ndim))
            lengths, own = (torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (direction, param.detach()))
            direction *= own / lengths
        directions.append(direction)
    return directions


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
