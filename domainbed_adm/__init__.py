"""Curricula by adversarial difficulty, and flatness-aware training, for domain generalization on DomainBed's protocol.

The flow, which is also the layout::

    data -> minibatches -> difficulty -> curriculum weights -> flatness-aware step
         -> records -> selection -> leaderboard

============================  ================================================================
``datasets``                  what is trained on: environments over one set of classes; ``decoded``
                              keeps images decoded in one file
``method``                    pure PyTorch, no files and no flags. ``cards``: the parts as data, ``grid``:
                              the 28 methods; ``difficulty``: losses and inputs -> scores[B];
                              ``curriculum``: scores[B] and progress -> weights[B]; ``flatness``:
                              gradient function -> gradient for the optimizer; ``step``: the three
                              wired into one training step of any PyTorch loop
``algorithms``                the grid as DomainBed ``Algorithm`` classes
``registry``                  the names there are, with those of installed extensions
``hparams_registry``          their defaults, random ranges and valid ranges
``networks``                  what is trained: feature extractors, pretrained or not, and classifiers
``run_args``, ``run_files``   the flags of a run; every file name and exit code
``loggers``                   where a run's figures go beside its records: TensorBoard, wandb, MLflow, CSV
``training``                  one run: set-up, batches, loop, evaluation, resume, models
``records``                   ``results.jsonl``: write, read; ``recorded_run`` is a run as arrays over
                              its checkpoints
``model_selection``           runs -> the accuracy each selection method reports
``leaderboard``               runs -> tables, paired comparisons, published numbers beside ours
``sweeping``                  many runs: jobs, command launchers, named sweeps, status
``analysis``                  models -> Hessian, sharpness, landscape; traces -> separability
``report``                    a sweep as one HTML page; ``section_*`` make its parts
``upstream``                  the same methods in a DomainBed checkout, and its algorithms here
``extensions``                parts of other packages; ``testing`` checks them
``scripts``, ``cli``          the command line
``running``                   the same from Python: ``train``, ``sweep``
``trained_network``           ``load_model``: a run's network, to classify and embed images with; ``exporting``
                              writes it for other programs
``figures``                   runs -> matplotlib axes
``system``                    the terminal, the disk, locks, signals, the machine, seeds
============================  ================================================================

Importing the package loads no torch.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_PUBLIC = {
    "ADM": "method.difficulty",
    "GDM": "method.difficulty",
    "Loss": "method.difficulty",
    "SPL": "method.curriculum",
    "SSPL": "method.curriculum",
    "SAM": "method.flatness",
    "SAGM": "method.flatness",
    "FSAM": "method.flatness",
    "ASAM": "method.further_flatness",
    "GSAM": "method.further_flatness",
    "EMA": "method.averaging",
    "SWAD": "method.averaging",
    "TrainingStep": "method.step",
    "METHODS": "method.grid",
    "get_algorithm_class": "algorithms",
    "default_hparams": "hparams_registry",
    "random_hparams": "hparams_registry",
    "train": "running",
    "sweep": "running",
    "load_runs": "records",
    "load_model": "trained_network",
    "export": "exporting",
    "UserError": "errors",
    "NonFiniteError": "errors",
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
