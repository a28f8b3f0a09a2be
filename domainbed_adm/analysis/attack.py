"""Accuracy in the worst case: inputs moved, within a small distance in every pixel, to where the loss is high."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from domainbed_adm.datasets.cards import Normalization


def projected_gradient_descent(
    predict: Callable[[Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    start: Tensor,
    steps: int,
    epsilon: Tensor,
    low: Tensor,
    high: Tensor,
) -> Tensor:
    """Inputs near ``x`` with a high loss, by projected gradient descent in L-infinity (PGD).

    x_0 = P(x + epsilon start), x_{t+1} = P(x_t + 2.5 epsilon / steps sign(grad L(x_t, y))), L the cross-entropy, P the
    projection to [x - epsilon, x + epsilon] and [low, high]. Madry et al., ICLR 2018, arXiv 1706.06083, section 2.1;
    the step size is that of their code, 2.5 epsilon / steps, by which the far side of the ball can be reached.

    Args:
        predict: inputs -> logits; each row is to depend on its own input alone, as in evaluation mode.
        x: inputs of shape (B, channels, height, width).
        y: class indices of shape (B,).
        start: where in the ball to begin, of ``x``'s shape, in [-1, 1].
        steps: at least 1; each is a forward and a backward pass.
        epsilon: radius; like ``low`` and ``high``, what a pixel may be, in units of the inputs, and broadcast to ``x``.
    """
    lowest, highest = torch.maximum(x - epsilon, low), torch.minimum(x + epsilon, high)
    moved = torch.clamp(x + epsilon * start, lowest, highest)
    for _ in range(steps):
        moved.requires_grad_()
        loss = F.cross_entropy(predict(moved), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, moved)
        moved = torch.clamp(moved.detach() + 2.5 / steps * epsilon * gradient.sign(), lowest, highest)
    return moved


def in_input_units(
    epsilon: float, normalization: Normalization | None, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """``epsilon``, and the pixels 0 and 1, in units of normalised inputs: each of shape (channels, 1, 1), or ().

    epsilon / std, -mean / std and (1 - mean) / std of each channel.
    """
    if normalization is None:
        return torch.tensor(epsilon, device=device), torch.zeros((), device=device), torch.ones((), device=device)
    mean, std = (torch.tensor(v, device=device).view(-1, 1, 1) for v in (normalization.mean, normalization.std))
    return epsilon / std, -mean / std, (1 - mean) / std
