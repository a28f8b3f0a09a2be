"""Accuracy of every split."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch

from domainbed_adm.training.batches import Batch, EvaluateTask


def accuracies(
    algorithm: Any, tasks: Iterable[EvaluateTask], batches: Iterator[Batch], device: torch.device
) -> dict[str, float]:
    """Fraction of right predictions per split, in evaluation mode; the algorithm is left in training mode.

    Args:
        algorithm: offers DomainBed's ``predict``.
        tasks: the evaluation's tasks, in the order in which ``batches`` yields them.
        batches: the run's stream, at the first of these tasks.
        device: where the algorithm is.

    Returns:
        ``{"env0_in": 0.93, ...}``, a split without samples left out.
    """
    right: dict[str, torch.Tensor] = {}
    seen: dict[str, int] = {}
    algorithm.eval()
    with torch.no_grad():
        for task in tasks:
            (x, y) = next(batches).minibatches(device)[0]
            correct = (algorithm.predict(x).argmax(1) == y).sum()
            right[task.name] = right.get(task.name, 0) + correct
            seen[task.name] = seen.get(task.name, 0) + len(y)
    algorithm.train()
    counts = torch.stack(list(right.values())).tolist()
    return {name: count / seen[name] for name, count in zip(right, counts, strict=True)}
