"""Curricula by adversarial difficulty, and flatness-aware training, for domain generalization on DomainBed's protocol.

The flow, which is also the layout::

    data -> minibatches -> difficulty -> curriculum weights -> flatness-aware step
         -> records -> selection -> leaderboard

==========================  ================================================================
``methods``                 the grid of 28 methods as data: names, sources, costs
``difficulty``              clean losses and inputs -> scores[B]: Loss, GDM, ADM
``curriculum``              scores[B] and progress -> weights[B]: SPL, SSPL
``flatness``                gradient function -> gradient for the optimizer: SAM, SAGM, F-SAM
``step``                    the three wired into one training step of any PyTorch loop, with
                            ``gradients``, ``side_effects``, ``memory`` and ``state`` below it
``algorithms``              the grid as DomainBed ``Algorithm`` classes
``hparams_registry``        their defaults, random ranges and valid ranges
``networks``, ``datasets``  what is trained, on what; ``backbones``: pretrained networks
``training``                one run: splits, data stream, loop, evaluation, resume
``records``                 ``results.jsonl``: write, read; ``disk``: files whole or not at all
``model_selection``         records -> the accuracy each selection method reports
``leaderboard``             records -> tables, paired comparisons, the published numbers beside ours
``sweeping``                many runs: jobs, locks, launchers, named sweeps; ``machine``: CPUs and memory there are
``analysis``                models -> Hessian, sharpness, landscape; traces -> how difficulties tell apart
``report``                  a sweep as one HTML page; ``figures``: the one style of all figures
``upstream``                the same methods in a DomainBed checkout
``extensions``              parts of other packages; ``testing`` checks them
``scripts``, ``cli``        the command line
==========================  ================================================================

Importing the package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "ADM": "difficulty",
    "GDM": "difficulty",
    "Loss": "difficulty",
    "SPL": "curriculum",
    "SSPL": "curriculum",
    "SAM": "flatness",
    "SAGM": "flatness",
    "FSAM": "flatness",
    "TrainingStep": "step",
    "METHODS": "methods",
    "get_algorithm_class": "algorithms",
    "default_hparams": "hparams_registry",
    "random_hparams": "hparams_registry",
    "UserError": "errors",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    """Load a public name's module when the name is first used.

    Raises:
        AttributeError: the package has no such name.
    """
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)
