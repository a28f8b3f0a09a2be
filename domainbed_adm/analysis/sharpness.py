"""Sharpness as the methods minimise it: how much the loss rises at a distance rho from the parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from domainbed_adm.analysis.mean_loss import MeanLoss
from domainbed_adm.errors import NonFiniteError
from domainbed_adm.method.flatness import NORM_EPSILON, displaced
from domainbed_adm.method.gradients import Gradients, joint_norm
from domainbed_adm.system.seeding import seed_hash


def sam_rise(loss: MeanLoss, value: float, rho: float) -> float:
    """L(theta + rho g / ||g||_2) - L(theta), g the gradient of the whole sample (SAM: Foret et al., ICLR 2021, eq. 2).

    The first-order guess at the highest rise in the ball of radius rho; no more than a guess, and it can be negative.
    The parameters are put back bit for bit. Cost: 2 forward and 1 backward pass.

    Args:
        loss: L.
        value: L(theta).
        rho: radius, >= 0.

    Raises:
        NonFiniteError: the gradient or the loss there is not finite.
    """
    gradient = loss.gradient()
    scale = rho / (joint_norm(gradient) + NORM_EPSILON)
    return _rise(loss, value, [part * scale for part in gradient])


class RandomRise(NamedTuple):
    """Mean over directions, and its standard error."""

    mean: float
    sem: float


def random_rise(
    loss: MeanLoss,
    value: float,
    rho: float,
    directions: int,
    seed: int,
    on_direction: Callable[[], None] = lambda: None,
) -> RandomRise:
    """The mean of L(theta + rho u) - L(theta) over directions u, uniform on the unit sphere.

    Each direction is taken both ways, which removes the slope's part of the spread. To second order the mean is
    rho^2 tr H / (2 P), P the number of parameters. The parameters are put back bit for bit.
    Cost: 2 forward passes for each direction.

    Args:
        loss: L.
        value: L(theta).
        rho: radius, >= 0.
        directions: how many, at least 2.
        seed: of the directions; those of equally shaped parameters are the same.
        on_direction: called after each.

    Raises:
        NonFiniteError: the loss there is not finite.
    """
    rises = []
    for i in range(directions):
        random = torch.Generator().manual_seed(
            seed_hash("random rise", seed, i)
        )  # of the CPU: all devices have the same
        direction = [torch.randn(param.shape, generator=random).to(param) for param in loss.params]
        scale = rho / joint_norm(direction)
        both = [_rise(loss, value, [part * sign * scale for part in direction]) for sign in (1, -1)]
        rises.append(sum(both) / 2)
        on_direction()
    return RandomRise(float(np.mean(rises)), float(np.std(rises, ddof=1) / math.sqrt(directions)))


def _rise(loss: MeanLoss, value: float, offset: Gradients) -> float:
    """How much the loss rises by this offset.

    Raises:
        NonFiniteError: out of all bounds.
    """
    with displaced(loss.params, offset):
        there = loss.value()
    if not math.isfinite(there):
        raise NonFiniteError(f"the loss is {there} at a distance of rho from the model: give a smaller --rho")
    return there - value
