"""What a model is worth on each split: accuracy, negative log-likelihood and calibration, in one pass."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from domainbed_adm.method.ranks import ALONE, Ranks
from domainbed_adm.training.batches import EVALUATION_BATCH, Batch, EvaluateTask
from domainbed_adm.training.compilation import uncompiled
from domainbed_adm.training.precision import autocast

#: Bins of the calibration error, equally wide, of confidences in (0, 1].
BINS = 15


def evaluate(
    algorithm: Any,
    batches: Iterable[Batch],
    device: torch.device,
    precision: str = "fp32",
    ranks: Ranks = ALONE,
    names: Collection[str] = (),
) -> dict[str, float]:
    """Evaluate on every split that has samples; the figures are ``env0_in_acc``, ``env0_in_nll`` and so on.

    ============  ==================================================================================================
    ``acc``       fraction of right predictions
    ``nll``       mean negative log-likelihood of the label, in nats
    ``ece``       expected calibration error sum_b n_b / n |acc_b - confidence_b| over 15 bins of the predicted class's
                  probability (Guo et al., ICML 2017, eq. 3), in [0, 1]
    ============  ==================================================================================================

    The batches are an evaluation's, in any order; those that are not full run uncompiled. The algorithm is in
    evaluation mode meanwhile, then in training mode. Probabilities are in single precision, their sums in double.

    Several ``ranks`` each evaluate some of the batches, of splits among those with these ``names``; counts are exact.
    """
    sums: dict[str, Tensor] = {}
    algorithm.eval()
    for batch in batches:  # outside the mode: what is loaded meanwhile is trained on later
        assert isinstance(batch.task, EvaluateTask)
        y = batch.y.to(device, non_blocking=True)
        rest = len(y) != EVALUATION_BATCH[device.type]
        with torch.inference_mode():
            with autocast(precision, device), uncompiled(algorithm) if rest else nullcontext():
                logits = algorithm.predict(batch.inputs(device))
            name = batch.task.name
            sums[name] = sums.get(name, 0) + _binned(logits.float(), y)
    algorithm.train()
    if ranks.count > 1:
        nothing = torch.zeros(4, BINS, dtype=torch.float64, device=device)
        sums = {name: sums.get(name, nothing) for name in names}
    stacked = torch.stack(list(sums.values()))
    ranks.add_up([stacked])
    tables = stacked.cpu()  # the host waits for the device once
    return {
        f"{name}_{figure}": value
        for name, table in zip(sums, tables, strict=True)
        for figure, value in _figures(table).items()
    }


def _binned(logits: Tensor, y: Tensor) -> Tensor:
    """Sums over the samples in each bin, shape (4, BINS): number, right ones, confidences, losses."""
    logs, predicted = logits.log_softmax(1), logits.argmax(1)
    confidence = logs.gather(1, predicted[:, None])[:, 0].exp()
    losses = -logs.gather(1, y[:, None])[:, 0]
    columns = torch.stack([torch.ones_like(losses), predicted == y, confidence, losses]).double()
    bins = (confidence.nan_to_num() * BINS).ceil().long().sub_(1).clamp_(0, BINS - 1)
    return torch.zeros(4, BINS, dtype=torch.float64, device=logits.device).index_add_(1, bins, columns)


def _figures(table: Tensor) -> dict[str, float]:
    count, right, confidence, losses = table
    n = count.sum()
    figures = {"acc": right.sum() / n, "nll": losses.sum() / n, "ece": (right - confidence).abs().sum() / n}
    return {name: float(value) for name, value in figures.items()}
