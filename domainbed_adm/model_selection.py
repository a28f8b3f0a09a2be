"""Model selection: which checkpoint of which hyperparameter seed is reported, as pure functions of runs.

For one (trial, dataset, algorithm, test environment), a selection method scores each run, that is each hparams_seed,
by a validation accuracy that it may look at. The run with the best score is reported by its accuracy on the test
environment's in-split. Ties are resolved as DomainBed does: the first of equal checkpoints, the last of equal runs.

Of a run with hparam ``averaging`` "swad" every method sees the record of its result alone, as SWAD's authors report it:
it has chosen its steps itself, and the records before are of other weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from domainbed_adm.recorded_run import Column, Run, is_official


class RunAccuracy(NamedTuple):
    """What one run is ranked by, and what it reports; both in [0, 1], and NaN where there is nothing to rank by."""

    val_acc: float
    test_acc: float


@dataclass(frozen=True)
class SelectionMethod:
    """One way to choose.

    Attributes:
        key: its name on the command line.
        name: its name in tables, as DomainBed prints it.
        splits: what it looks at.
        run_acc: (the run of one hparams_seed that holds out the test environment alone, all runs of this seed, test
            environment) -> the accuracies; None where one is missing.
        needs: the records it cannot do without.
    """

    key: str
    name: str
    splits: str
    run_acc: Callable[[Run, Sequence[Run], int], RunAccuracy | None]
    needs: str = "each run that holds out one environment, with out-split accuracies (--holdout_fraction above 0)"

    def chosen(self, runs: Iterable[Run], test_env: int) -> tuple[int, RunAccuracy] | None:
        """The hparams_seed of the chosen run, and what it is ranked by and reports.

        ``runs`` are all of one (trial, dataset, algorithm) that hold out ``test_env``. None where no run has what this
        method needs.
        """
        return max(self.accuracies(runs, test_env), key=lambda one: (one[1].val_acc, one[0]), default=None)

    def accuracies(self, runs: Iterable[Run], test_env: int) -> list[tuple[int, RunAccuracy]]:
        """The hparams_seed of each run, of those in ``chosen`` that have what this method needs, and its accuracies."""
        by_seed: dict[int, list[Run]] = {}
        for run in runs:
            by_seed.setdefault(run.hparams_seed, []).append(run)
        known = []
        for seed, own in by_seed.items():
            alone = [run for run in own if run.alone]
            accuracies = self.run_acc(alone[0], own, test_env) if len(alone) == 1 else None
            known += [(seed, accuracies)] if accuracies else []
        if len(by_seed) > 1:  # what is not known ranks no run among others
            known = [one for one in known if not math.isnan(one[1].val_acc)]
        return known

    def sweep_acc(self, runs: Iterable[Run], test_env: int) -> float | None:
        """Test accuracy in [0, 1] of the chosen run of ``runs``, as in ``chosen``; None where there is none."""
        best = self.chosen(runs, test_env)
        return best[1].test_acc if best else None


def _first_best(val_acc: Column, test_acc: Column, offered: NDArray[np.bool_]) -> RunAccuracy | None:
    """The first checkpoint with the highest validation accuracy, of those that are offered and have both accuracies."""
    ranked = np.where(np.isnan(val_acc) | np.isnan(test_acc) | ~offered, -1.0, val_acc)
    best = int(ranked.argmax())
    return RunAccuracy(float(ranked[best]), float(test_acc[best])) if ranked[best] >= 0 else None


def _offered(run: Run) -> NDArray[np.bool_]:
    """Which checkpoints may be reported: of SWAD's the one of its result."""
    if run.hparams.get("averaging") == "swad":
        return ~np.isnan(run.column("swad_segments"))
    return np.ones(len(run), dtype=bool)


def _training_domain(run: Run, _: Sequence[Run], test_env: int) -> RunAccuracy | None:
    return _first_best(run.source_accuracy("out"), run.accuracy(test_env, "in"), _offered(run))


def _leave_one_domain_out(run: Run, runs: Sequence[Run], test_env: int) -> RunAccuracy | None:
    """At each step: how well each other environment is classified by the run that did not see it either."""
    pairs = {env: pair for pair in runs if len(pair.test_envs) == 2 for env in pair.test_envs}
    others = [env for env in range(run.n_envs) if env != test_env]
    if not others or not pairs.keys() >= set(others):
        return None
    order = np.argsort(run.steps, kind="stable")
    columns = [_at(run.steps[order], pairs[env], env) for env in others]
    return _first_best(np.column_stack(columns).mean(axis=1), run.accuracy(test_env, "in")[order], _offered(run)[order])


def _at(steps: Column, run: Run, env: int) -> Column:
    """A run's in-accuracy on one environment at these steps; NaN where it has not recorded one."""
    if np.array_equal(steps, run.steps):
        return run.accuracy(env, "in")
    by_step = dict(zip(run.steps.tolist(), run.accuracy(env, "in").tolist(), strict=True))
    return np.array([by_step.get(step, np.nan) for step in steps.tolist()])


def _oracle(run: Run, _: Sequence[Run], test_env: int) -> RunAccuracy | None:
    last = [int(run.steps.argmax())]
    return _first_best(run.accuracy(test_env, "out")[last], run.accuracy(test_env, "in")[last], _offered(run)[last])


def _last_epoch(run: Run, _: Sequence[Run], test_env: int) -> RunAccuracy | None:
    """At the last checkpoint, of a run that is not known to go on; ranked by the source's out-split."""
    offered = _offered(run)
    last = int(np.where(offered, run.steps, -1).argmax())
    test_acc = float(run.accuracy(test_env, "in")[last])
    goes_on = run.last_step < (run.end_step or 0) and run.hparams.get("averaging") != "swad"  # which may end early
    if math.isnan(test_acc) or goes_on or not offered.any():
        return None
    return RunAccuracy(float(run.source_accuracy("out")[last]), test_acc)


#: DomainBed's selection methods by their key, in its order.
SELECTION_METHODS = {
    method.key: method
    for method in (
        SelectionMethod(
            "training-domain",
            "training-domain validation set",
            "out-splits of the source environments",
            _training_domain,
        ),
        SelectionMethod(
            "leave-one-domain-out",
            "leave-one-domain-out cross-validation",
            "in-split of each source environment, in the run that holds it out too",
            _leave_one_domain_out,
            needs="also the runs that hold out pairs of environments",
        ),
        SelectionMethod(
            "oracle",
            "test-domain validation set (oracle)",
            "out-split of the test environment, last checkpoint",
            _oracle,
        ),
    )
}

#: For classification: no checkpoint is chosen at all, least of all by the test set.
LAST_EPOCH = SelectionMethod(
    "last-epoch",
    "last epoch",
    "the last checkpoint; of several hparams seeds the best on the source's out-split there",
    _last_epoch,
    needs="finished runs, and where there are several hparams seeds an out-split (--holdout_fraction above 0)",
)
#: All there are by their key.
EVERY_SELECTION = {**SELECTION_METHODS, LAST_EPOCH.key: LAST_EPOCH}


def applies(selection: SelectionMethod, dataset: str) -> bool:
    """Whether the method can have a number on the dataset, and is meant for it."""
    if is_official(dataset):
        return selection.key in {LAST_EPOCH.key, "training-domain"}
    return selection.key != LAST_EPOCH.key


def default_selections(datasets: Iterable[str]) -> list[SelectionMethod]:
    """Those that apply to one of the datasets.

    DomainBed's three where domains are held out; for classification the last epoch, and training-domain validation.
    """
    official = {is_official(dataset) for dataset in datasets}
    if official == {True}:
        return [LAST_EPOCH, SELECTION_METHODS["training-domain"]]
    return [*SELECTION_METHODS.values(), *([LAST_EPOCH] if True in official else [])]
