"""Accuracy of every split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch

from domainbed_adm.training.batches import Batch, EvaluateTask


def accuracies(algorithm: Any, batches: Iterable[Batch], device: torch.device) -> dict[str, float]:
    """Fraction of right predictions per split, in evaluation mode; the algorithm is left in training mode.

    Args:
        algorithm: offers DomainBed's ``predict``.
        batches: of the evaluation's tasks, in any order; each counts for the split that its own task names.
        device: where the algorithm is.

    Returns:
        ``{"env0_in": 0.93, ...}``, a split without samples left out.

    Raises:
        TypeError: a batch is of a training step.
    """
    right: dict[str, torch.Tensor] = {}
    seen = Counter[str]()
    algorithm.eval()
    with torch.no_grad():
        for batch in batches:
            if not isinstance(batch.task, EvaluateTask):
                raise TypeError(f"not a batch of an evaluation: {batch.task}")
            name, y = batch.task.name, batch.y.to(device, non_blocking=True)
            right[name] = right.get(name, 0) + (algorithm.predict(batch.inputs(device)).argmax(1) == y).sum()
            seen[name] += len(y)
    algorithm.train()
    counts = torch.stack(list(right.values())).tolist()  # the host waits for the device once
    return {name: count / seen[name] for name, count in zip(right, counts, strict=True)}
