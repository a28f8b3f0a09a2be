"""A search of hyperparameters as data: ``search.json``, the points of its samplers, each trial's jobs and objective.

A trial is one choice of hparams. It is trained once for each test environment and trial seed, each in a job folder like
any sweep's; trial t has hparams_seed t + 1, as 0 means the defaults. Loads neither torch nor Optuna.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec
import numpy as np

import domainbed_adm
from domainbed_adm import records
from domainbed_adm.errors import UserError
from domainbed_adm.hparams_registry import hparams_of
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.recorded_run import Run
from domainbed_adm.run_args import differences
from domainbed_adm.run_files import RESULTS, SEARCH
from domainbed_adm.sweeping.jobs import Job, Sweep
from domainbed_adm.sweeping.search_space import Space, from_json
from domainbed_adm.system.disk import replacing
from domainbed_adm.system.seeding import seed_hash

Sampler = Literal["tpe", "random", "qmc", "grid"]
SAMPLERS: tuple[str, ...] = get_args(Sampler)
#: So many trials of TPE are random before it begins to learn, Optuna's default.
N_RANDOM = 10
_SELECTION = SELECTION_METHODS["training-domain"]


@dataclass(frozen=True)
class Search:
    """What a search is over, and how.

    Attributes:
        sweep: what each trial runs over: one dataset, one algorithm, ``test_envs``, ``n_trials`` (trial seeds).
        space: what is searched, as ``search_space.as_json`` writes it.
        hparams: what each trial has beside: those given, and the defaults of what a random draw would move.
        sampler: chooses the trials' points.
        seed: of the sampler.
        prune: whether trials are stopped early.
        grid_points: values of a range in a grid.
        version: of this package, when it began.
    """

    sweep: Sweep
    space: dict[str, Any]
    hparams: dict[str, Any]
    sampler: Sampler = "tpe"
    seed: int = 0
    prune: bool = False
    grid_points: int = 3
    version: str = domainbed_adm.__version__

    @property
    def dataset(self) -> str:
        """Its name."""
        return self.sweep.datasets[0]

    @property
    def algorithm(self) -> str:
        """Its name."""
        return self.sweep.algorithms[0]

    @property
    def dimensions(self) -> Space:
        """What is searched."""
        return from_json(self.space)

    @property
    def size(self) -> int | None:
        """How many trials there can be; None where any number."""
        return math.prod(map(len, self._grid())) if self.sampler == "grid" else None

    @property
    def objective_line(self) -> str:
        """What is maximised, in words."""
        envs, trials = self.sweep.test_envs, self.sweep.n_trials
        over = f"test environment{'s' * (len(envs) > 1)} {' '.join(map(str, envs))}" if envs else "official test sets"
        seeds = f"mean over trial seeds 0 to {trials - 1}" if trials > 1 else "trial seed 0"
        mean = "mean over " if envs and len(envs) > 1 else ""
        return f"training-domain validation accuracy, {mean}{over} held out, {seeds}"

    def _grid(self) -> list[list[Any]]:
        return [one.spread(self.grid_points) for one in self.dimensions.values()]

    def point(self, number: int) -> dict[str, Any] | None:
        """The hparams that trial ``number`` tries; None where they depend on the trials before it.

        They depend on the seed and the number alone, whoever runs the trial. The first ``N_RANDOM`` points of TPE are
        those of ``random``: each hparam has a stream of its own, as in ``random_hparams``. ``qmc`` is a scrambled Sobol
        sequence over all hparams. (Optuna's own samplers for both need the trials before, and choose some twice where
        several processes ask.)
        """
        space = self.dimensions
        if self.sampler == "grid":
            return dict(zip(space, next(itertools.islice(itertools.product(*self._grid()), number, None)), strict=True))
        if self.sampler == "qmc":
            from scipy.stats.qmc import Sobol

            sequence = Sobol(len(space), rng=np.random.default_rng(self.seed))
            shares = (sequence.fast_forward(number) if number else sequence).random(1)[0].tolist()
        elif self.sampler == "random" or number < N_RANDOM:
            seed = seed_hash(self.seed, number)
            shares = [np.random.RandomState(seed_hash(seed, name)).uniform() for name in space]
        else:
            return None
        return {name: one.at(share) for (name, one), share in zip(space.items(), shares, strict=True)}

    def sweep_of(self, number: int, values: Mapping[str, Any]) -> Sweep:
        """The runs of trial ``number``, which tries these hparams."""
        hparams = json.dumps({**self.hparams, **values}, sort_keys=True)
        return replace(self.sweep, n_hparams_from=number + 1, n_hparams=number + 2, hparams=hparams)

    def n_jobs(self) -> int:
        """Runs of one trial."""
        return self.sweep_of(0, {}).count()


def fixed_hparams(algorithm: str, dataset: str, space: Space, given: Mapping[str, Any]) -> dict[str, Any]:
    """Hparams of every trial beside those searched: ``given``, and defaults where hparams_seed would draw others."""
    drawn = {name: hparam.default for name, hparam in hparams_of(algorithm, dataset).items() if hparam.draw}
    return {name: value for name, value in (drawn | dict(given)).items() if name not in space}


def objective(runs: Sequence[Run | None]) -> float:
    """Of a trial's runs: the mean of the training-domain validation accuracies by which ``collect_results`` ranks them.

    Each is the best checkpoint's mean out-accuracy over the source environments; the test environment has no part. A
    run without such a checkpoint, as one that was not finite at once (None), counts as 0.
    """
    best = [_SELECTION.run_acc(run, [run], run.test_envs[0]) if run else None for run in runs]
    return sum(one.val_acc for one in best if one) / len(runs)


def recorded(job: Job) -> Run | None:
    """What a job has recorded so far; None where it has nothing."""
    path = job.output_dir / RESULTS
    runs = records.read_runs(path) if path.is_file() else []
    return runs[-1] if runs else None


def curve(runs: Sequence[Run]) -> list[float]:
    """The objective as it was after each checkpoint of these runs, trained one after another, those so far counting."""
    values: list[float] = []
    best: list[float] = []
    for run in runs:
        accuracy = np.nan_to_num(run.source_accuracy("out"))
        so_far = np.maximum.accumulate(accuracy)
        values += [float(value) for value in (sum(best) + so_far) / (len(best) + 1)]
        best.append(float(so_far[-1]))
    return values


def in_words(values: dict[str, Any]) -> str:
    """Hparams on one line: ``lr 0.00123, optimizer "adam"``."""
    return ", ".join(
        f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {json.dumps(value)}"
        for name, value in values.items()
    )


def read_search(folder: Path) -> Search | None:
    """The search in ``folder``; None where there is none.

    Raises:
        UserError: its ``search.json`` cannot be understood.
    """
    path = folder / SEARCH
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Search)
    except ValueError as error:
        raise UserError(f"{path} is no search ({error}): give another --output_dir") from error


def write_search(folder: Path, search: Search) -> None:
    """Write ``search.json``."""
    with replacing(folder / SEARCH) as file:
        file.write(msgspec.json.format(msgspec.json.encode(search)) + b"\n")


def check_same(folder: Path, there: Search, here: Search) -> None:
    """Check that the search in ``folder`` is the one that is asked for.

    Raises:
        UserError: it is another; the message says how they differ.
    """

    def settings(search: Search) -> dict[str, Any]:
        own = {f"--{name}": value for name, value in vars(search).items() if name not in {"sweep", "space", "version"}}
        ranges = {f"range of {name}": json.dumps(one) for name, one in search.space.items()}
        runs = {f"--{name}": value for name, value in vars(search.sweep).items() if name != "hparams"}
        renamed = {"--datasets": "--dataset", "--algorithms": "--algorithm", "--n_trials": "--n_trial_seeds"}
        return {renamed.get(name, name): value for name, value in (own | ranges | runs).items()}

    if different := differences(settings(there), settings(here)):
        raise UserError(
            f"{folder} holds a search of {there.algorithm} on {there.dataset}: {different}. Give another --output_dir"
        )
