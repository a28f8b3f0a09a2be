"""Optimizers that are told on the device whether to do their step, so that the host need not wait for its answer."""

from __future__ import annotations

import torch
from torch import Tensor


def skips_on_device(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it can be told so: torch's with ``fused=True``."""
    return getattr(optimizer, "_step_supports_amp_scaling", False) and all(
        group.get("fused") for group in optimizer.param_groups
    )


def step_unless(found_inf: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """Do the step, or leave all as it is where ``found_inf``, a tensor of one number, is 1."""
    optimizer.found_inf = found_inf  # type: ignore[attr-defined]
    try:
        optimizer.step()
    finally:
        del optimizer.found_inf  # type: ignore[attr-defined]
