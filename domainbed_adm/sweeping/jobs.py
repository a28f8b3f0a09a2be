"""Jobs of a sweep: DomainBed's train arguments, seeds, folders and states, one job for each training run."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from domainbed_adm import run_files
from domainbed_adm.datasets.cards import CARDS, get_card
from domainbed_adm.datasets.layout import dataset_root, environments
from domainbed_adm.run_args import words
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.failures import Failure
from domainbed_adm.system.lock import is_locked
from domainbed_adm.system.seeding import seed_hash

DONE, RUNNING, INCOMPLETE, FAILED, NOT_LAUNCHED = STATES = ("done", "running", "incomplete", "failed", "not launched")


@dataclass(frozen=True)
class Job:
    """One training run of a sweep.

    Attributes:
        train_args: flags of ``train`` and their values, without ``output_dir``; they are the folder's name.
        sweep_dir: folder of the sweep.
        flags: flags of ``train`` that say how to run, such as ``workers``; they are no part of the folder's name.
    """

    train_args: dict[str, Any]
    sweep_dir: Path
    flags: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def name(self) -> str:
        """Of its folder: md5 of the arguments as JSON with sorted keys."""
        return hashlib.md5(json.dumps(self.train_args, sort_keys=True).encode()).hexdigest()

    @property
    def output_dir(self) -> Path:
        """``<sweep_dir>/<name>``."""
        return self.sweep_dir / self.name

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
        flags = {**self.train_args, **self.flags, "output_dir": str(self.output_dir)}
        return shlex.join([sys.executable, "-m", "domainbed_adm.scripts.train", *words(flags)])

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

    ``hparams`` is JSON text, kept as given since it is part of a job's hash. ``data_dir`` None is left out of the hash,
    and so is ``checkpoint_freq``, which DomainBed's sweep does not have.
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
    checkpoint_freq: int | None = None

    def jobs(
        self, sweep_dir: str | Path, flags: Mapping[str, Any] | None = None, counts: Mapping[str, int] | None = None
    ) -> list[Job]:
        """All jobs, in DomainBed's order: trial, dataset, algorithm, test environments, hparams_seed.

        Args:
            sweep_dir: folder of the sweep.
            flags: flags of ``train`` that say how to run each job.
            counts: number of environments of each dataset; looked up where not given.

        Raises:
            UserError: a folder dataset's environments cannot be counted.
        """
        counts = self.environment_counts() if counts is None else counts
        return [
            Job(self._train_args(trial_seed, dataset, algorithm, test_envs, hparams_seed), Path(sweep_dir), flags or {})
            for trial_seed in range(self.n_trials)
            for dataset in self.datasets
            for algorithm in self.algorithms
            for test_envs in held_out(counts[dataset], self.single_test_envs)
            for hparams_seed in range(self.n_hparams_from, self.n_hparams)
        ]

    def count(self) -> int:
        """How many jobs there are, without making them.

        Raises:
            UserError: a folder dataset's environments cannot be counted.
        """
        held = sum(len(list(held_out(n, self.single_test_envs))) for n in self.environment_counts().values())
        return self.n_trials * len(self.algorithms) * held * (self.n_hparams - self.n_hparams_from)

    def environment_counts(self) -> dict[str, int]:
        """Number of environments of each dataset: from its card where it is known, else from its folders.

        Raises:
            UserError: there is neither a card nor a folder, or the folder holds fewer than two.
        """
        counts = {}
        for dataset in self.datasets:
            card = get_card(dataset)
            names = card.environments if dataset in CARDS else None
            counts[dataset] = len(names or environments(dataset_root(card, self.data_dir)))
        return counts

    def _train_args(
        self, trial_seed: int, dataset: str, algorithm: str, test_envs: list[int], hparams_seed: int
    ) -> dict[str, Any]:
        args = {
            "dataset": dataset,
            "algorithm": algorithm,
            "test_envs": test_envs,
            "holdout_fraction": self.holdout_fraction,
            "hparams_seed": hparams_seed,
            "task": self.task,
            "trial_seed": trial_seed,
            "seed": seed_hash(dataset, algorithm, test_envs, hparams_seed, trial_seed),
        }
        optional = {name: getattr(self, name) for name in ("data_dir", "steps", "hparams", "checkpoint_freq")}
        return args | {name: value for name, value in optional.items() if value is not None}


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


def with_states(jobs: Sequence[Job]) -> list[tuple[Job, str]]:
    """Each job and its state; of those without a folder by one look at the sweep's folder.

    Raises:
        PermissionError: a folder may not be looked into.
    """
    there: dict[Path, set[str]] = {}
    for folder in {job.sweep_dir for job in jobs}:
        there[folder] = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - names alone
    return [(job, job.state if job.name in there[job.sweep_dir] else NOT_LAUNCHED) for job in jobs]


def held_out(count: int, single: bool) -> Iterator[list[int]]:
    """Every environment alone and, unless ``single``, every pair behind its first; no pair where there are but two."""
    for first in range(count):
        yield [first]
        if not single and count > 2:
            yield from ([first, second] for second in range(first + 1, count))
