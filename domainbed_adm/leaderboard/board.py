"""Runs -> the accuracy of each (selection method, dataset, algorithm, test environment), and what made the runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.searches import search_lines
from domainbed_adm.method.grid import METHODS
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Run, Runs
from domainbed_adm.registry import DOMAINBED_ALGORITHMS

#: (dataset, algorithm, index of the test environment)
Key = tuple[str, str, int]


@dataclass(frozen=True)
class Entry:
    """Mean over ``n`` trials and its standard error, both in %; None where there is no trial, and no error of one.

    An average over entries has no error, and ``n`` 0.
    """

    mean: float | None
    sem: float | None
    n: int

    @classmethod
    def of(cls, accuracies: Sequence[float]) -> Entry:
        """Mean and std / sqrt(n), std with divisor n as DomainBed's, of fractions in [0, 1], in %."""
        own = cls.over(accuracies)
        return cls(None if own.mean is None else 100 * own.mean, None if own.sem is None else 100 * own.sem, own.n)

    @classmethod
    def over(cls, values: Sequence[float]) -> Entry:
        """As ``of``, of numbers of any unit, in it."""
        n = len(values)
        sem = float(np.std(np.array(values) / np.sqrt(n))) if n > 1 else None
        return cls(float(np.mean(values)) if n else None, sem, n)

    @classmethod
    def average(cls, entries: Sequence[Entry]) -> Entry:
        """Mean of the means; unknown where one of them is."""
        means = [entry.mean for entry in entries if entry.mean is not None]
        return cls(sum(means) / len(means) if means and len(means) == len(entries) else None, None, 0)


class Board:
    """What the runs of a sweep say under each selection method.

    Attributes:
        runs: all of them.
        total: number of records.
        algorithms: names: DomainBed's own in its order, those of ``METHODS`` in theirs, others as they appear; an
            algorithm's runs of other lengths follow it.
        environments: of each dataset, the known ones in the order of ``CARDS``, the names of the environments that are
            tested on by their indices: of a set for classification its official test sets, else all.
        runs_of: the runs of each (dataset, algorithm, environment), which is held out alone or with another.
        scores: for each selection method's key, the accuracy (a fraction) of each trial of each ``Key``.
    """

    def __init__(self, runs: Runs, selections: Iterable[SelectionMethod]) -> None:
        self.runs = runs
        self.total = runs.n_records
        methods = _ordered((run.method for run in runs), (*DOMAINBED_ALGORITHMS, *METHODS))
        names = {run.algorithm: run.method for run in runs}
        self.algorithms = sorted(names, key=lambda name: (methods.index(names[name]), len(name), name))
        datasets = _ordered((run.dataset for run in runs), CARDS)
        self.environments = {dataset: _environment_names(dataset, runs) for dataset in datasets}
        self.runs_of: dict[Key, list[Run]] = {}
        for run in runs:
            for env in run.test_envs:
                self.runs_of.setdefault((run.dataset, run.algorithm, env), []).append(run)
        self.scores = {selection.key: dict(self._scores(selection)) for selection in selections}

    def _scores(self, selection: SelectionMethod) -> Iterator[tuple[Key, dict[int, float]]]:
        for key, runs in self.runs_of.items():
            selected = {trial: selection.sweep_acc(own, key[2]) for trial, own in sorted(by_trial(runs).items())}
            accuracies = {trial: accuracy for trial, accuracy in selected.items() if accuracy is not None}
            if accuracies:
                yield key, accuracies

    @cached_property
    def sweep_line(self) -> str:
        """What made the runs, for below a table: seeds, splits, versions, searches; devices and threads that differ."""
        holdouts = sorted({str(run.args.get("holdout_fraction", "not recorded")) for run in self.runs})
        return (
            f"Trial seeds {spoken(seeds(self.runs, 'trial_seed'))}; "
            f"hparams seeds {spoken(seeds(self.runs, 'hparams_seed'))}; holdout_fraction {', '.join(holdouts)}. "
            f"Versions: {versions(self.runs)}."
            + "".join(f" {line}" for line in (*self.differences, *search_lines(self.runs)))
        )

    @cached_property
    def differences(self) -> list[str]:
        """A sentence on the devices, and one on the numbers of threads, where runs differ in them: sums do then too."""
        return _differences(self.runs)

    def trials(self, selection: SelectionMethod, dataset: str, algorithm: str, env: int) -> dict[int, float]:
        """Accuracy, a fraction, of each trial on one environment."""
        return self.scores[selection.key].get((dataset, algorithm, env), {})

    def cell(self, selection: SelectionMethod, dataset: str, algorithm: str, env: int) -> Entry:
        """Accuracy on one environment over trials."""
        return Entry.of(list(self.trials(selection, dataset, algorithm, env).values()))

    def over_environments(
        self,
        selection: SelectionMethod,
        dataset: str,
        algorithm: str,
        whole_trials: bool = False,
        envs: Iterable[int] | None = None,
    ) -> Entry:
        """Accuracy on one dataset: each trial's mean over its test environments, then over trials.

        ``envs`` are those that count; None for all. Where ``whole_trials``, trials that lack an environment are left
        out; DomainBed averages what they have.
        """
        by_env = [self.trials(selection, dataset, algorithm, env) for env in envs or self.environments[dataset]]
        count = len(by_env)
        trials = sorted(set().union(*by_env))
        of_trials = [[accuracies[trial] for accuracies in by_env if trial in accuracies] for trial in trials]
        return Entry.of([float(np.mean(own)) for own in of_trials if len(own) == count or not whole_trials])


def by_trial(runs: Iterable[Run]) -> dict[int, list[Run]]:
    """The runs of each trial seed."""
    trials: dict[int, list[Run]] = {}
    for run in runs:
        trials.setdefault(run.trial_seed, []).append(run)
    return trials


def _ordered(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """The distinct names: first those in ``known``, in its order, then the rest as they appear."""
    present = dict.fromkeys(names)
    return list(dict.fromkeys([*(name for name in known if name in present), *present]))


def _environment_names(dataset: str, runs: Iterable[Run]) -> dict[int, str]:
    """From the dataset's card, else from the runs' provenance, else the indices."""
    card = CARDS.get(dataset)
    if card and card.environments:
        return {env: card.environments[env] for env in card.test_envs or range(len(card.environments))}
    own = [run for run in runs if run.dataset == dataset]
    count = max(run.n_envs for run in own)
    named = (run.environments for run in own if len(run.environments) == count)
    return dict(enumerate(next(named, map(str, range(count)))))


def versions(runs: Iterable[Run]) -> str:
    """The package versions, commits and torch versions found in the records; DomainBed's records name none."""
    return "; ".join(sorted({_version(made_by) for run in runs for made_by in run.provenances or ({},)})) or "none"


def _version(made_by: dict[str, Any]) -> str:
    if not made_by:
        return "not recorded"
    commit = str(made_by.get("git_commit") or "")[:10]
    own = f"domainbed_adm {made_by.get('version')}" + (f" (commit {commit})" if commit else "")
    return f"{own}, torch {made_by.get('torch')}"


def seeds(runs: Iterable[Run], name: str) -> list[int]:
    """The distinct values of one seed of ``args``, sorted."""
    return sorted({run.args[name] for run in runs})


def spoken(numbers: list[int]) -> str:
    """``0, 1, 2`` or, where they are many and consecutive, ``0 to 19``."""
    if len(numbers) > 3 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def _differences(runs: list[Run]) -> list[str]:
    sentences = []
    for name, named in (("device", "devices"), ("threads", "numbers of threads")):
        count = Counter(str(made_by[name]) for run in runs for made_by in run.provenances if name in made_by)
        if len(count) > 1:
            values = ", ".join(f"{value} ({n})" for value, n in count.most_common())
            sentences.append(f"Runs differ in {named}: {values}.")
    return sentences
