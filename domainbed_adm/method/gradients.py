"""Gradients of an objective as lists, one entry per parameter; their sum and their joint norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from domainbed_adm.errors import UserError

#: One tensor or None per parameter.
Gradients = list["Tensor | None"]


def gradient_of(objective: Tensor, params: Sequence[Tensor]) -> Gradients:
    """The objective's gradients, each in memory of its own, so that a rule may write into it; None where there is none.

    Autograd may hand one tensor to two parameters (those of ``a + b``), or a view that repeats one number.

    Raises:
        UserError: a gradient is sparse, or nothing requires one.
    """
    trained = [param for param in params if param.requires_grad]
    if not trained:
        raise UserError("no parameter of the optimizer requires a gradient: nothing can be trained")
    parts = iter(torch.autograd.grad(objective, trained, allow_unused=True))
    gradient: Gradients = []
    seen: set[int] = set()
    for param in params:
        part = next(parts) if param.requires_grad else None
        if part is not None:
            if part.layout != torch.strided:
                raise UserError(
                    f"the gradient of a parameter of shape {tuple(param.shape)} is sparse: set sparse=False"
                )
            # views into one tensor, such as those of ``cat``, may overlap without beginning at one place
            if part.untyped_storage().data_ptr() in seen or 0 in part.stride():
                part = part.clone(memory_format=torch.contiguous_format)
            seen.add(part.untyped_storage().data_ptr())
        gradient.append(part)
    return gradient


def present(gradient: Gradients) -> list[Tensor]:
    """The entries that are there."""
    return [part for part in gradient if part is not None]


def add_gradients(total: Gradients, gradient: Gradients) -> None:
    """Add ``gradient`` to ``total`` in place; an entry that is None counts as zero, an empty total takes all over."""
    if not total:
        total.extend(gradient)
        return
    for position, part in enumerate(gradient):
        here = total[position]
        if part is not None:
            total[position] = part if here is None else here.add_(part)


def joint_norm(tensors: list[Tensor]) -> Tensor:
    """||.||_2 of all entries of all tensors, as a tensor of shape () on their device; 0 where there are none."""
    if not tensors:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
    return norm
