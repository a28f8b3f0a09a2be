"""Which hparams a selection method ranks highest, in a sweep or in a search.

In a sweep each test environment and trial seed has a ranking of its own, as in DomainBed, since a random search draws
other hparams for each trial seed. In a search the trials are ranked by their mean over all it was asked to average.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from domainbed_adm.hparams_registry import hparams_of
from domainbed_adm.leaderboard.board import by_trial
from domainbed_adm.method.grid import METHODS
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Run


@dataclass(frozen=True)
class Candidate:
    """One choice of hparams: what it is ranked by and reports, fractions, means over its ``runs``."""

    hparams_seed: int
    val_acc: float
    test_acc: float
    runs: list[Run]

    @property
    def hparams(self) -> dict[str, Any]:
        """All of them."""
        return self.runs[0].hparams


@dataclass(frozen=True)
class Ranking:
    """The candidates, best first, of what was trained on one dataset by one algorithm."""

    dataset: str
    algorithm: str
    test_envs: list[int]
    trial_seeds: list[int]
    selection: SelectionMethod
    candidates: list[Candidate]

    @property
    def title(self) -> str:
        """What is ranked, and by what."""
        envs, seeds = (" ".join(map(str, numbers)) for numbers in (self.test_envs, self.trial_seeds))
        mean = ", means" if len(self.test_envs) * len(self.trial_seeds) > 1 else ""
        return f"{self.algorithm} on {self.dataset}, test_envs {envs}, trial seed {seeds}: {self.selection.name}{mean}"

    def varied(self) -> list[str]:
        """Names of the hparams in which the candidates differ."""
        names = dict.fromkeys(name for one in self.candidates for name in one.hparams)
        first = self.candidates[0].hparams
        return [name for name in names if any(one.hparams.get(name) != first.get(name) for one in self.candidates)]

    def top(self) -> dict[str, Any]:
        """The best candidate, as ``train --hparams_from`` reads it: without hparams that each run sets itself."""
        best = self.candidates[0]
        specs = hparams_of(self.algorithm, self.dataset) if self.algorithm in METHODS else {}
        set_by_run = {name for name, spec in specs.items() if spec.set_by_run}
        return {
            "dataset": self.dataset,
            "algorithm": self.algorithm,
            "test_envs": self.test_envs,
            "trial_seeds": self.trial_seeds,
            "selection": self.selection.key,
            "val_acc": best.val_acc,
            "test_acc": best.test_acc,
            "hparams_seed": best.hparams_seed,
            "hparams": {name: value for name, value in sorted(best.hparams.items()) if name not in set_by_run},
            "output_dirs": [str(run.folder) for run in best.runs],
        }


def rankings(runs: Iterable[Run], selection: SelectionMethod, together: bool) -> list[Ranking]:
    """A ranking for each dataset, algorithm, test environment and trial seed; ``together``, over the latter two.

    Where they are ranked together, a candidate that lacks some of the runs is left out. Equal ones: as ``chosen`` does,
    the last hparams_seed first.
    """
    cells: dict[tuple[str, str], dict[tuple[int, ...], dict[int, tuple[float, float, Run]]]] = {}
    for dataset, algorithm, env, trial, own in _by_cell(runs):
        alone = {run.hparams_seed: run for run in own if run.alone}
        for seed, accuracies in selection.accuracies(own, env):
            cell = cells.setdefault((dataset, algorithm), {}).setdefault((trial, *alone[seed].test_envs), {})
            cell[seed] = (*accuracies, alone[seed])
    made = []
    for (dataset, algorithm), own_cells in sorted(cells.items()):
        groups = [sorted(own_cells)] if together else [[cell] for cell in sorted(own_cells)]
        for group in groups:
            seeds = set.intersection(*(set(own_cells[cell]) for cell in group))
            candidates = [_candidate(seed, [own_cells[cell][seed] for cell in group]) for seed in sorted(seeds)]
            candidates.sort(key=lambda one: (one.val_acc, one.hparams_seed), reverse=True)
            envs = sorted({env for cell in group for env in cell[1:]})
            trials = sorted({cell[0] for cell in group})
            if candidates:
                made.append(Ranking(dataset, algorithm, envs, trials, selection, candidates))
    return made


def _candidate(seed: int, known: list[tuple[float, float, Run]]) -> Candidate:
    val, test = (sum(one[i] for one in known) / len(known) for i in (0, 1))  # type: ignore[misc]
    return Candidate(seed, val, test, [one[2] for one in known])


def _by_cell(runs: Iterable[Run]) -> Iterator[tuple[str, str, int, int, list[Run]]]:
    """The runs that hold out each environment, by dataset, algorithm, environment and trial."""
    groups: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        for env in run.test_envs:
            groups.setdefault((run.dataset, run.algorithm, env), []).append(run)
    for (dataset, algorithm, env), own in groups.items():
        for trial, of_trial in by_trial(own).items():
            yield dataset, algorithm, env, trial, of_trial
