"""Jobs of a sweep: DomainBed's train arguments, seeds, folders and states, one job for each training run."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from domainbed_adm import run_files
from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.datasets.layout import dataset_root, environments
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.failures import Failure
from domainbed_adm.system.console import flag
from domainbed_adm.system.lock import is_locked
from domainbed_adm.system.seeding import seed_hash

DONE, RUNNING, INCOMPLETE, FAILED, NOT_LAUNCHED = STATES = ("done", "running", "incomplete", "failed", "not launched")


@dataclass(frozen=True)
class Job:
    """One training run of a sweep.

    Attributes:
        train_args: flags of ``train`` and their values, without ``output_dir``.
        sweep_dir: folder of the sweep.
        watch: switches of ``train`` that change no result, such as ``--tensorboard``; not part of the folder's name.
    """

    train_args: dict[str, Any]
    sweep_dir: Path
    watch: tuple[str, ...] = ()

    @cached_property
    def output_dir(self) -> Path:
        """``<sweep_dir>/<md5 of the arguments as JSON with sorted keys>``."""
        text = json.dumps(self.train_args, sort_keys=True)
        return self.sweep_dir / hashlib.md5(text.encode()).hexdigest()

    @property
    def state(self) -> str:
        """As its folder says."""
        return state_of(self.output_dir)

    @property
    def failure(self) -> Failure | None:
        """How its last attempt failed, where it did."""
        return failures.read(self.output_dir)

    @property
    def n_steps(self) -> int:
        """How many steps it trains."""
        return self.train_args.get("steps") or get_card(self.train_args["dataset"]).n_steps

    @property
    def command(self) -> str:
        """The shell command that trains it; every value is quoted."""
        words = [sys.executable, "-m", "domainbed_adm.scripts.train"]
        for name, value in sorted({**self.train_args, "output_dir": str(self.output_dir)}.items()):
            words += [f"--{name}", *map(str, value)] if isinstance(value, list) else flag(f"--{name}", str(value))
        return shlex.join([*words, *self.watch])

    @property
    def label(self) -> str:
        """A few words for progress lines."""
        args = self.train_args
        held_out = " ".join(map(str, args["test_envs"]))
        extra = "".join(
            f", {name} {args[key]}" for key, name in (("hparams_seed", "hparams"), ("trial_seed", "trial")) if args[key]
        )
        return f"{args['algorithm']} on {args['dataset']}, test_envs {held_out}{extra}"


@dataclass(frozen=True)
class Sweep:
    """What a sweep runs over; the names are DomainBed's flags.

    ``hparams`` is JSON text, kept as given since it is part of a job's hash. ``data_dir`` None is left out of the hash.
    """

    datasets: list[str]
    algorithms: list[str]
    n_hparams_from: int = 0
    n_hparams: int = 20
    n_trials: int = 3
    steps: int | None = None
    hparams: str | None = None
    holdout_fraction: float = 0.2
    single_test_envs: bool = False
    data_dir: str | None = None
    task: str = "domain_generalization"

    def jobs(self, sweep_dir: str | Path) -> list[Job]:
        """All jobs, in DomainBed's order: trial, dataset, algorithm, test environments, hparams_seed.

        Raises:
            UserError: a folder dataset's environments cannot be counted.
        """
        return [Job(args, Path(sweep_dir)) for args in make_args_list(self)]

    def count(self) -> int:
        """How many jobs there are, without making them.

        Raises:
            UserError: a folder dataset's environments cannot be counted.
        """
        counts = [environment_count(dataset, self.data_dir) for dataset in self.datasets]
        held = sum(len(list(held_out(count, self.single_test_envs))) for count in counts)
        return self.n_trials * len(self.algorithms) * held * (self.n_hparams - self.n_hparams_from)


def state_of(folder: Path) -> str:
    """As a job's folder says: done where it holds ``done``, running where its lock is held, else where it was left.

    Raises:
        PermissionError: the folder may not be looked into.
    """
    if not folder.exists():
        return NOT_LAUNCHED
    locked = is_locked(folder)  # asked first: a run that ends in between is done
    if (folder / run_files.DONE).exists():
        return DONE
    if locked:
        return RUNNING
    return FAILED if failures.read(folder) else INCOMPLETE


def make_args_list(sweep: Sweep) -> list[dict[str, Any]]:
    """The train arguments of every job, in DomainBed's order.

    Raises:
        UserError: a folder dataset's environments cannot be counted.
    """
    counts = {dataset: environment_count(dataset, sweep.data_dir) for dataset in sweep.datasets}
    return [
        _train_args(sweep, trial_seed, dataset, algorithm, test_envs, hparams_seed)
        for trial_seed in range(sweep.n_trials)
        for dataset in sweep.datasets
        for algorithm in sweep.algorithms
        for test_envs in held_out(counts[dataset], sweep.single_test_envs)
        for hparams_seed in range(sweep.n_hparams_from, sweep.n_hparams)
    ]


def _train_args(
    sweep: Sweep, trial_seed: int, dataset: str, algorithm: str, test_envs: list[int], hparams_seed: int
) -> dict[str, Any]:
    args = {
        "dataset": dataset,
        "algorithm": algorithm,
        "test_envs": test_envs,
        "holdout_fraction": sweep.holdout_fraction,
        "hparams_seed": hparams_seed,
        "task": sweep.task,
        "trial_seed": trial_seed,
        "seed": seed_hash(dataset, algorithm, test_envs, hparams_seed, trial_seed),
    }
    optional = {"data_dir": sweep.data_dir, "steps": sweep.steps, "hparams": sweep.hparams}
    return args | {name: value for name, value in optional.items() if value is not None}


def held_out(count: int, single: bool) -> Iterator[list[int]]:
    """Every environment alone and, unless ``single``, every pair behind its first; no pair where there are but two."""
    for first in range(count):
        yield [first]
        if not single and count > 2:
            yield from ([first, second] for second in range(first + 1, count))


def environment_count(dataset: str, data_dir: str | None) -> int:
    """Number of environments: from the card of a known dataset, from the folders of another.

    Raises:
        UserError: there is neither a card nor a folder, or the folder holds fewer than two.
    """
    card = get_card(dataset)
    if dataset in CARDS and card.environments:
        return len(card.environments)
    return len(environments(dataset_root(card, data_dir)))
