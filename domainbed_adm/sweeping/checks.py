"""Checks of a sweep before it creates anything: a mistake in its flags is one line, not a hundred failed jobs."""

from __future__ import annotations

from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.datasets.layout import dataset_root, environments, existing_data_dir
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import default_hparams, override, parse
from domainbed_adm.registry import get_method
from domainbed_adm.run_args import check_flags
from domainbed_adm.sweeping.jobs import Sweep

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
    if sweep.n_trials < 1:
        raise UserError(f"--n_trials must be at least 1, not {sweep.n_trials}")
    if not 0 <= sweep.n_hparams_from < sweep.n_hparams:
        raise UserError(
            "--n_hparams_from must be at least 0 and below --n_hparams, "
            f"not {sweep.n_hparams_from} with --n_hparams {sweep.n_hparams}"
        )
    if sweep.task != "domain_generalization":
        raise UserError(f"task must be domain_generalization in a sweep, not {sweep.task!r}")
    check_flags(vars(sweep))
    for algorithm in sweep.algorithms:
        get_method(algorithm)
    count = sweep.count()
    if count > MOST_JOBS:
        raise UserError(f"the sweep has {count} jobs, more than {MOST_JOBS:,}: give fewer trials or hparams")
    given = {} if sweep.hparams is None else parse(sweep.hparams)
    for dataset in sweep.datasets:
        if needs_data:
            _check_data(dataset, sweep.data_dir)
        for algorithm in sweep.algorithms:
            override(default_hparams(algorithm, dataset), given, algorithm, dataset)


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
