"""What a training step refuses when it is built."""

from __future__ import annotations

import torch
from torch import nn

from domainbed_adm.errors import UserError

#: Wrappers that average gradients by hooks on ``backward``, which a step does not run.
DISTRIBUTED = {"DistributedDataParallel", "DDP", "FullyShardedDataParallel", "FSDPModule"}


def check_length(total_steps: int | None, has_curriculum: bool, flatness_start: float, micro_batch: int | None) -> None:
    """Check the length of a run, and what is a share of it or of a batch.

    Raises:
        UserError: one is out of its range, or the length is needed and not given.
    """
    if has_curriculum and (total_steps is None or total_steps < 1):
        raise UserError(f"a curriculum needs total_steps >= 1 to know its progress, not {total_steps}")
    if not 0 <= flatness_start < 1 or (flatness_start and not total_steps):
        raise UserError(f"flatness_start must be in [0, 1) and needs total_steps, not {flatness_start:g}")
    if micro_batch is not None and micro_batch < 1:
        raise UserError(f"micro_batch must be >= 1, not {micro_batch}")


def check_trainable(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Check that a step can train this model by this optimizer.

    Raises:
        UserError: the optimizer is LBFGS, or the model is wrapped for several processes.
    """
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UserError("LBFGS asks for losses itself and cannot be the base optimizer: use Adam or SGD")
    if DISTRIBUTED & {base.__name__ for module in model.modules() for base in type(module).__mro__}:
        raise UserError("the model is wrapped for several processes: give the step the model inside, and its ranks")
