"""Jobs of a sweep, one for each training run: DomainBed's train arguments, seeds and folders, and how far each is."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from domainbed_adm import run_files
from domainbed_adm.datasets.cards import FOLDERS, MNIST, get_card
from domainbed_adm.datasets.layout import dataset_root, environments, existing_data_dir
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import default_hparams, override, parse, read_top
from domainbed_adm.registry import get_method, matched_steps
from domainbed_adm.run_args import AugmentOn, Precision, check_flags, words
from domainbed_adm.sweeping import failures
from domainbed_adm.system.disk import LockedError, is_locked, run_lock
from domainbed_adm.system.seeding import seed_hash

DONE, RUNNING, INCOMPLETE, FAILED, NOT_LAUNCHED = STATES = ("done", "running", "incomplete", "failed", "not launched")
#: States in which a job's folder may be deleted.
UNFINISHED = {INCOMPLETE, FAILED}
#: Far above any sweep; more would not fit into memory.
_MOST_JOBS = 1_000_000


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
    def n_steps(self) -> int:
        """How many steps it trains; where epochs are given about so many, and the dataset's where that is not known."""
        card, epochs = get_card(self.train_args["dataset"]), self.train_args.get("epochs")
        as_given = card.n_steps * epochs // card.n_epochs if epochs and card.n_epochs else card.n_steps
        steps, other = self.train_args.get("steps") or as_given, self.train_args.get("match_passes")
        if other is None:
            return int(steps)
        return matched_steps(steps, self.train_args["algorithm"], other, parse(self.train_args.get("hparams") or "{}"))

    @property
    def command(self) -> str:
        """The shell command that trains it; every value is quoted."""
        flags = {**self.train_args, **self.flags, "output_dir": str(self.output_dir)}
        return shlex.join([sys.executable, "-m", "domainbed_adm.scripts.train", *words(flags)])

    @property
    def label(self) -> str:
        """A few words for progress lines."""
        args = self.train_args
        seeds = [f", {what} {args[f'{what}_seed']}" for what in ("hparams", "trial") if args[f"{what}_seed"]]
        held_out = " ".join(map(str, args["test_envs"]))
        return f"{args['algorithm']} on {args['dataset']}, test_envs {held_out}{''.join(seeds)}"


@dataclass(frozen=True)
class Sweep:
    """What a sweep runs over; the names are DomainBed's flags.

    ``hparams`` is JSON text, kept as given since it is part of a job's hash. What DomainBed's sweep does not have is
    left out of the hash at its default: ``hparams_from``, ``epochs``, ``checkpoint_freq``, ``precision``, ``compile``,
    ``augment_on``, ``match_passes``. ``test_envs`` are held out alone, in place of all environments and pairs.

    Those of the ``algorithms`` that are in ``double_epochs`` run with twice the epochs as well, unless steps are given.
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
    test_envs: list[int] | None = None
    data_dir: str | None = None
    task: str = "domain_generalization"
    hparams_from: str | None = None
    epochs: int | None = None
    checkpoint_freq: int | None = None
    precision: Precision = "fp32"
    compile: bool = False
    augment_on: AugmentOn = "cpu"
    match_passes: str | None = None
    double_epochs: list[str] = field(default_factory=list)

    def jobs(
        self, sweep_dir: str | Path, flags: Mapping[str, Any] | None = None, counts: Mapping[str, int] | None = None
    ) -> list[Job]:
        """All jobs in the folder ``sweep_dir``, in DomainBed's order.

        ``flags`` of ``train`` say how to run each; ``counts``, the number of environments of each dataset, is looked up
        where not given.
        """
        counts = counts or self.environment_counts()
        ours = ("hparams_from", "epochs", "checkpoint_freq", "precision", "compile", "augment_on", "match_passes")
        optional = ("data_dir", "steps", "hparams", *ours)
        values = {name: getattr(self, name) for name in optional}  # a plan of an older version lacks some
        given = {name: value for name, value in values.items() if value != getattr(Sweep, name)}
        return [
            Job(
                {
                    "dataset": dataset,
                    "algorithm": algorithm,
                    "test_envs": test_envs,
                    "holdout_fraction": self.holdout_fraction,
                    "hparams_seed": hparams_seed,
                    "task": self.task,
                    "trial_seed": trial_seed,
                    "seed": seed_hash(dataset, algorithm, test_envs, hparams_seed, trial_seed),
                    **given,
                    **longer,
                },
                Path(sweep_dir),
                flags or {},
            )
            for trial_seed in range(self.n_trials)
            for dataset in self.datasets
            for algorithm in self.algorithms
            for longer in self._lengths(dataset, algorithm)
            for test_envs in self.held_out(dataset, counts[dataset])
            for hparams_seed in range(self.n_hparams_from, self.n_hparams)
        ]

    def count(self) -> int:
        """How many jobs there are, without making them."""
        held = [list(self.held_out(*counted)) for counted in self.environment_counts().items()]
        lengths = sum(len(self._lengths("", algorithm)) for algorithm in self.algorithms)
        return self.n_trials * lengths * sum(map(len, held)) * (self.n_hparams - self.n_hparams_from)

    def _lengths(self, dataset: str, algorithm: str) -> list[dict[str, int]]:
        """What each length of an algorithm's runs adds to the flags: nothing, and for some twice the epochs."""
        if self.steps or algorithm not in self.double_epochs:
            return [{}]
        return [{}, {"epochs": 2 * (self.epochs or get_card(dataset).n_epochs or 0)}]

    def held_out(self, dataset: str, count: int) -> Iterator[list[int]]:
        """What the runs on a dataset with so many environments hold out, run by run."""
        if self.test_envs is not None and get_card(dataset).test_envs is None:
            return ([env] for env in self.test_envs)
        return held_out(dataset, count, self.single_test_envs)

    def environment_counts(self) -> dict[str, int]:
        """Number of environments of each dataset: from its card where it is known, else from its folders."""
        cards = [get_card(name) for name in self.datasets]
        return {c.name: len(c.environments or environments(c, dataset_root(c, self.data_dir))) for c in cards}


def check_sweep(sweep: Sweep, needs_data: bool) -> None:
    """Check all that can be known before a job runs: a mistake is one line, not a hundred failed jobs.

    Where the jobs will run on this machine, ``needs_data``, the datasets' folders must be there.

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
    for algorithm in (*sweep.algorithms, *sweep.double_epochs, *filter(None, [sweep.match_passes])):
        get_method(algorithm)
    for dataset in sweep.datasets if sweep.double_epochs else ():
        if not (sweep.steps or sweep.epochs or get_card(dataset).n_epochs):
            raise UserError(f"--double_epochs needs --epochs on {dataset}, whose length is given in steps")
    count = sweep.count()
    if count > _MOST_JOBS:
        raise UserError(f"the sweep has {count} jobs, more than {_MOST_JOBS:,}: give fewer trials or hparams")
    given = {} if sweep.hparams is None else parse(sweep.hparams)
    if sweep.test_envs is not None:
        _check_test_envs(sweep.test_envs, sweep.environment_counts())
    for dataset in sweep.datasets:
        card = get_card(dataset)
        if needs_data and card.path == MNIST:
            existing_data_dir(card, sweep.data_dir)
        elif needs_data and card.path == FOLDERS:
            environments(card, dataset_root(card, sweep.data_dir))
        elif needs_data and card.directory:
            for name in {dataset, card.train_of or dataset}:
                dataset_root(get_card(name), sweep.data_dir)
        for algorithm in sweep.algorithms:
            override(default_hparams(algorithm, dataset), given, algorithm, dataset)
    if sweep.hparams_from:
        for job in sweep.jobs(""):
            names = (job.train_args[name] for name in ("algorithm", "dataset", "test_envs", "trial_seed"))
            read_top(sweep.hparams_from, *names)


def _check_test_envs(test_envs: Sequence[int], counts: Mapping[str, int]) -> None:
    if len(set(test_envs)) < max(1, len(test_envs)):
        raise UserError(f"--test_envs names an environment twice: {' '.join(map(str, test_envs))}; name each once")
    for dataset, count in counts.items():
        wrong = [env for env in test_envs if not 0 <= env < count]
        if wrong:
            raise UserError(
                f"--test_envs {wrong[0]} is none of the {count} environments of {dataset}, 0 to {count - 1}"
            )


def held_out(dataset: str, count: int, single: bool) -> Iterator[list[int]]:
    """Every environment alone and, unless ``single``, every pair behind its first; no pair where there are but two.

    Official test sets are held out together, and nothing else is.
    """
    if official := get_card(dataset).test_envs:
        yield list(official)
        return
    for first in range(count):
        yield [first]
        if not single and count > 2:
            yield from ([first, second] for second in range(first + 1, count))


def state_of(folder: Path) -> str:
    """As a job's folder says: done where it holds ``done``, running where its lock is held, else where it was left."""
    if not folder.exists():
        return NOT_LAUNCHED
    locked = is_locked(folder)  # asked first: a run that ends in between is done
    if (folder / run_files.DONE).exists():
        return DONE
    return RUNNING if locked else FAILED if failures.read(folder) else INCOMPLETE


def with_states(jobs: Sequence[Job]) -> list[tuple[Job, str]]:
    """Each job and its state; of those without a folder by one look at the sweep's folder."""
    there: dict[Path, set[str]] = {}
    for folder in {job.sweep_dir for job in jobs}:
        there[folder] = set(os.listdir(folder)) if folder.is_dir() else set()  # noqa: PTH208 - names alone
    return [(job, job.state if job.name in there[job.sweep_dir] else NOT_LAUNCHED) for job in jobs]


def delete_incomplete(jobs: Sequence[Job]) -> int:
    """Remove the folders of jobs that are incomplete or failed, never one that a process trains in; return how many."""
    return sum(_delete(job.output_dir) for job, state in with_states(jobs) if state in UNFINISHED)


def _delete(folder: Path) -> bool:
    """Remove a job's folder under its lock; False where it has begun to run, or is done, by now."""
    try:
        with run_lock(folder):
            if (folder / run_files.DONE).exists():
                return False
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != run_files.LOCK:
                    path.unlink()
    except LockedError:
        return False
    with contextlib.suppress(OSError):  # not empty: a process has begun to train there since
        folder.rmdir()
    return True
