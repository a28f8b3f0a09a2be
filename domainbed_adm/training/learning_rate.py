"""The learning rate of each step, as a function of the step alone: a run that goes on needs no state of it.

What it begins with stands as ``initial_lr`` in an optimizer's groups, as torch's schedulers do it: GSAM reads it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from domainbed_adm.errors import UserError

#: Milestones are shares of a run, whose products with its steps may miss a whole number by a rounding error.
_ROUNDING = 1e-9


def factor(step: int, n_steps: int, hparams: Mapping[str, Any]) -> float:
    """What the learning rate of step t of T is multiplied by, in [0, 1].

    In the first W = ``warmup_steps`` steps (t + 1) / W. After it, by ``lr_schedule``: "constant" 1; "cosine"
    (1 + cos(pi (t - W) / (T - W))) / 2 (Loshchilov and Hutter, ICLR 2017, without restarts); "steps"
    ``lr_gamma`` ** k, k being how many of ``lr_milestones``, shares of T, are at most t / T.
    """
    warmup = hparams.get("warmup_steps", 0)
    if step < warmup:
        return float((step + 1) / warmup)
    schedule = hparams.get("lr_schedule", "constant")
    if schedule == "cosine":
        return (1 + math.cos(math.pi * (step - warmup) / (n_steps - warmup))) / 2
    if schedule == "steps":
        passed = sum(step >= share * n_steps - _ROUNDING for share in hparams["lr_milestones"])
        return float(hparams["lr_gamma"] ** passed)
    return 1.0


class LearningRate:
    """Sets the learning rates of a run's optimizers, each a factor of the one it began with.

    Raises:
        UserError: the hparams ask for a schedule, and the algorithm has no optimizer; or the warm-up is no shorter than
            the run.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], n_steps: int, hparams: Mapping[str, Any]) -> None:
        # a loaded state replaces an optimizer's groups
        self._first = [(optimizer, [group["lr"] for group in optimizer.param_groups]) for optimizer in optimizers]
        self._n_steps, self._hparams = n_steps, hparams
        self._constant = hparams.get("lr_schedule", "constant") == "constant" and not hparams.get("warmup_steps", 0)
        if self._constant:
            return
        if not self._first:
            raise UserError(
                "hparams lr_schedule and warmup_steps need an algorithm whose optimizer is an attribute of it"
            )
        if hparams["warmup_steps"] >= n_steps:
            raise UserError(f"hparam warmup_steps {hparams['warmup_steps']} must be below the run's {n_steps} steps")

    def set(self, step: int) -> None:
        """Before step ``step``."""
        if not self._constant:
            now = factor(step, self._n_steps, self._hparams)
            for optimizer, rates in self._first:
                for group, lr in zip(optimizer.param_groups, rates, strict=True):
                    group["lr"], group["initial_lr"] = now * lr, lr
