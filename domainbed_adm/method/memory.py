"""Scores from when a sample was last seen: the paper's v^(t+1), for weighting "memory".

They are kept in a step's state as the tensor ``difficulty_memory``, one score per sample of the training set, -1 for a
sample never seen (scores are >= 0).
"""

from __future__ import annotations

from collections.abc import MutableMapping

import torch
from torch import Tensor

KEY = "difficulty_memory"
NEVER_SEEN = -1.0


def recall(state: MutableMapping[str, Tensor], index: Tensor, like: Tensor) -> Tensor:
    """The scores of these samples when last seen, -1 where never; makes room for samples that are new.

    Args:
        state: where the memory is kept.
        index: int64 on the CPU, shape (B,), >= 0: which sample each one is.
        like: a tensor of the device and dtype to answer in.

    Returns:
        Scores of shape (B,).
    """
    memory = state[KEY] if KEY in state else like.new_empty(0)
    size = int(index.max()) + 1
    if len(memory) < size:
        memory = torch.cat([memory, memory.new_full((2 * size - len(memory),), NEVER_SEEN)])
    state[KEY] = memory = memory.to(like.device)
    return memory[index.to(like.device)].to(like.dtype)


def remember(state: MutableMapping[str, Tensor], index: Tensor, scores: Tensor) -> None:
    """Keep these scores; of a sample that stands in the batch more than once, the largest (*chosen*: order-free)."""
    memory = state[KEY]
    memory.scatter_reduce_(0, index.to(memory.device), scores.to(memory.dtype), "amax", include_self=False)
