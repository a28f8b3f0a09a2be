"""Checks of a sweep before it creates anything: a mistake in its flags is one line, not a hundred failed jobs."""

from __future__ import annotations

import os
from pathlib import Path

from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.datasets.layout import dataset_root, environments, existing_data_dir
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import default_hparams, override, parse
from domainbed_adm.method.hparams import STEPS
from domainbed_adm.registry import get_method
from domainbed_adm.sweeping.jobs import Sweep, environment_count

#: Far above any sweep; more would not fit into memory.
MOST_JOBS = 1_000_000


def check_sweep(sweep: Sweep, needs_data: bool) -> None:
    """Check everything that can be known before a job runs.

    Args:
        sweep: what is to run.
        needs_data: the jobs will run on this machine, so that the folders must be there.

    Raises:
        UserError: for the first thing that is wrong.
    """
    _check_numbers(sweep)
    if sweep.task != "domain_generalization":
        raise UserError(f"task must be domain_generalization in a sweep, not {sweep.task!r}")
    for algorithm in sweep.algorithms:
        get_method(algorithm)
    for dataset in sweep.datasets:
        environment_count(dataset, sweep.data_dir)
        if needs_data:
            _check_data(dataset, sweep.data_dir)
    if sweep.count() > MOST_JOBS:
        raise UserError(f"the sweep has {sweep.count()} jobs, more than {MOST_JOBS:,}: give fewer trials or hparams")
    given = {} if sweep.hparams is None else parse(sweep.hparams)
    for dataset in sweep.datasets:
        for algorithm in sweep.algorithms:
            override(default_hparams(algorithm, dataset), given, algorithm, dataset)


def _check_numbers(sweep: Sweep) -> None:
    if sweep.n_trials < 1:
        raise UserError(f"--n_trials must be at least 1, not {sweep.n_trials}")
    if not 0 <= sweep.n_hparams_from < sweep.n_hparams:
        raise UserError(
            "--n_hparams_from must be at least 0 and below --n_hparams, "
            f"not {sweep.n_hparams_from} with --n_hparams {sweep.n_hparams}"
        )
    if sweep.steps is not None and sweep.steps not in STEPS:
        raise UserError(f"--steps must be {STEPS}, not {sweep.steps}")
    if not 0 <= sweep.holdout_fraction < 1:
        raise UserError(f"--holdout_fraction must be in [0, 1), not {sweep.holdout_fraction}")


def _check_data(dataset: str, data_dir: str | None) -> None:
    card = get_card(dataset)
    if card.module == "mnist":
        existing_data_dir(card, data_dir)
    if card.module != "folders":
        return
    root = dataset_root(card, data_dir)
    found = environments(root)
    if dataset in CARDS and card.environments and len(found) != len(card.environments):
        raise UserError(
            f"{root} must hold the {len(card.environments)} environments of {dataset} "
            f"({', '.join(card.environments)}), has {len(found)}: {', '.join(found)}"
        )


def check_writable(folder: str | Path) -> Path:
    """Return ``folder`` as a path that can be made or written to, as far as can be told without creating it.

    Raises:
        UserError: it is a file, or the first folder above it that exists may not be written to.
    """
    path = Path(folder)
    above = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
    if not above.is_dir():
        raise UserError(f"--output_dir {path} cannot be written: {above} is a file")
    if not os.access(above, os.W_OK | os.X_OK):
        raise UserError(f"--output_dir {path} cannot be written: no permission in {above}")
    return path


def make_folder(path: Path) -> None:
    """Make the folder of the sweep.

    Raises:
        UserError: the system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {path} cannot be written: {error.strerror}") from error
