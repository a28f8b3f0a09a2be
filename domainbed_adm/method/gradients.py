"""Gradients of an objective as lists, one entry per parameter, and their joint norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: One tensor or None per parameter.
Gradients = list["Tensor | None"]


def gradient_of(objective: Tensor, params: Sequence[Tensor]) -> Gradients:
    """The objective's gradients, each in memory of its own, so that a rule may write into it; None where there is none.

    Autograd may hand one tensor to two parameters (those of ``a + b``), or a view that repeats one number.
    """
    trained = [param for param in params if param.requires_grad]
    found = iter(torch.autograd.grad(objective, trained, allow_unused=True))
    gradient: Gradients = []
    seen: set[int] = set()
    for param in params:
        part = next(found) if param.requires_grad else None
        if part is not None:
            if part.data_ptr() in seen or 0 in part.stride():
                part = part.clone(memory_format=torch.contiguous_format)
            seen.add(part.data_ptr())
        gradient.append(part)
    return gradient


def joint_norm(tensors: list[Tensor]) -> Tensor:
    """||.||_2 of all entries of all tensors, as a 0-d tensor on their device."""
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
