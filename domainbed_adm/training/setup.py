"""From flags to everything a run needs. All of it is checked here, before the run writes its first file."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from domainbed_adm import hparams_registry
from domainbed_adm.algorithms import get_algorithm_class
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.base import MultipleDomainDataset
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import RunArgs
from domainbed_adm.system.console import warn
from domainbed_adm.system.machine import WORKERS_VARIABLE, cpu_count
from domainbed_adm.system.seeding import seed_hash
from domainbed_adm.training.memory_errors import memory_errors_explained
from domainbed_adm.training.splits import Splits, split_environments


@dataclass
class Setup:
    """A run, checked and built, that has written nothing yet; ``start_time`` is when building began, monotonic."""

    args: dict[str, Any]
    hparams: dict[str, Any]
    dataset: MultipleDomainDataset
    splits: list[Splits]
    algorithm: Any
    device: torch.device
    n_steps: int
    checkpoint_freq: int
    workers: int
    start_time: float

    def in_words(self, moment: str = "") -> str:
        """What is run, on how much data at a time, for messages about memory."""
        return _in_words(self.args, self.hparams, self.dataset, self.device, moment)


def set_up(args: RunArgs) -> Setup:
    """Build the run that these flags describe, and set this process to its number of threads.

    Raises:
        UserError: a flag, an hparam or the data keep the run from starting.
    """
    start_time = time.monotonic()
    torch.set_num_threads(args.threads)
    hparams = choose_hparams(args)
    _seed_everything(args.seed)
    dataset = get_dataset_class(args.dataset)(args.data_dir, list(args.test_envs), hparams)
    check_test_envs(args.test_envs, dataset.environments)
    n_steps = args.steps or dataset.N_STEPS
    _state_run_facts(hparams, dataset, n_steps)
    lengths = [len(environment) for environment in dataset.datasets]
    splits = split_environments(
        lengths, list(args.test_envs), args.trial_seed, args.holdout_fraction, args.uda_holdout_fraction
    )
    if args.task == "domain_adaptation" and not any(split.uda for split in splits):
        raise UserError("task domain_adaptation needs unlabeled samples: give --uda_holdout_fraction above 0")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    algorithm = _build(args, hparams, dataset, device)
    workers = worker_budget(args.workers, dataset.N_WORKERS, os.environ)
    checkpoint_freq = args.checkpoint_freq or dataset.CHECKPOINT_FREQ
    return Setup(
        args.recorded(), hparams, dataset, splits, algorithm, device, n_steps, checkpoint_freq, workers, start_time
    )


def check_test_envs(test_envs: Sequence[int], environments: list[str]) -> None:
    """Check that the environments held out exist, and that one is left to train on.

    Raises:
        UserError: they do not.
    """
    named = ", ".join(f"{i} {name}" for i, name in enumerate(environments))
    if len(environments) < 2:
        raise UserError(f"domain generalization needs at least two domains, the dataset has {named or 'none'}")
    wrong = [env for env in test_envs if not 0 <= env < len(environments)]
    if wrong:
        raise UserError(f"--test_envs {wrong[0]} is none of the environments: {named}")
    if len(set(test_envs)) < len(test_envs):
        raise UserError(f"--test_envs names an environment twice: {' '.join(map(str, test_envs))}")
    if len(test_envs) == len(environments):
        raise UserError(f"--test_envs holds out all environments ({named}): none is left to train on")


def choose_hparams(args: RunArgs) -> dict[str, Any]:
    """The defaults, or the random draw of ``--hparams_seed``, with the values of ``--hparams`` over them."""
    if args.hparams_seed == 0:
        hparams = hparams_registry.default_hparams(args.algorithm, args.dataset)
    else:
        seed = seed_hash(args.hparams_seed, args.trial_seed)
        hparams = hparams_registry.random_hparams(args.algorithm, args.dataset, seed)
    given = hparams_registry.parse(args.hparams) if args.hparams else {}
    unused = hparams_registry.override(hparams, given, args.algorithm, args.dataset)
    if unused:
        warn(f"{args.algorithm} does not read the hparams {', '.join(unused)}: left out")
    return hparams


def worker_budget(asked: int | None, deserved: int, environment: Mapping[str, str]) -> int:
    """Number of loading processes of a run: never more than there are CPUs for it.

    Args:
        asked: ``--workers``, or None.
        deserved: what the dataset deserves; 0 for one in memory.
        environment: may limit the budget by ``DOMAINBED_ADM_WORKERS``, as a launcher of several runs does.
    """
    cpus = cpu_count()
    if asked is not None:
        if asked > cpus:
            warn(f"--workers {asked} is more than the {cpus} CPUs here: using {cpus}")
        return min(asked, cpus)
    limit = environment.get(WORKERS_VARIABLE, "")
    return min(deserved, int(limit) if limit.isdecimal() else cpus, cpus)


def _state_run_facts(hparams: dict[str, Any], dataset: MultipleDomainDataset, n_steps: int) -> None:
    """Put in what only the run knows, where the method reads it."""
    std = dataset.normalization.std if dataset.normalization else None
    facts = {"total_steps": n_steps, "input_std": None if std is None else list(std)}
    hparams.update({name: value for name, value in facts.items() if name in hparams})


def _build(args: RunArgs, hparams: dict[str, Any], dataset: MultipleDomainDataset, device: torch.device) -> Any:
    """Make the algorithm.

    Raises:
        UserError: it does not fit into memory.
    """
    sources = len(dataset) - len(args.test_envs)
    make = get_algorithm_class(args.algorithm)
    with memory_errors_explained(_in_words(args.recorded(), hparams, dataset, device)):
        return make(dataset.input_shape, dataset.num_classes, sources, hparams).to(device)


def _in_words(
    args: Mapping[str, Any],
    hparams: Mapping[str, Any],
    dataset: MultipleDomainDataset,
    device: torch.device,
    moment: str = "",
) -> str:
    sources = len(dataset) - len(args["test_envs"])
    return (
        f"{args['algorithm']} on {args['dataset']}{moment}, {sources} domains x batch_size {hparams['batch_size']}, "
        f"inputs {tuple(dataset.input_shape)}, on {device}"
    )


def _seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
