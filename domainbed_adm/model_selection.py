"""Model selection: which checkpoint of which hyperparameter seed is reported, as pure functions of records.

For one (trial, dataset, algorithm, test environment), a selection method scores each run, that is each hparams_seed,
by a validation accuracy that it may look at. The run with the best score is reported by its accuracy on the test
environment's in-split. Ties are resolved as DomainBed does: the first of equal checkpoints, the last of equal runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from domainbed_adm.records import Record, accuracy, environment_count


class RunAccuracy(NamedTuple):
    """What one run is ranked by, and what it reports; both in [0, 1]."""

    val_acc: float
    test_acc: float


@dataclass(frozen=True)
class SelectionMethod:
    """One way to choose.

    Attributes:
        key: its name on the command line.
        name: its name in tables, as DomainBed prints it.
        splits: what it looks at.
        needs: the records it cannot do without.
        run_acc: (records of one run, test environment) -> its accuracies; None where records are missing.
    """

    key: str
    name: str
    splits: str
    needs: str
    run_acc: Callable[[list[Record], int], RunAccuracy | None]

    def chosen(self, records: Iterable[Record], test_env: int) -> tuple[int, RunAccuracy] | None:
        """The hparams_seed of the chosen run, and what it is ranked by and reports.

        Args:
            records: all records of one (trial, dataset, algorithm) that hold out ``test_env``.
            test_env: index of the environment.

        Returns:
            None where no run has what this method needs.
        """
        runs: dict[int, list[Record]] = {}
        for record in records:
            runs.setdefault(record["args"]["hparams_seed"], []).append(record)
        best: tuple[int, RunAccuracy] | None = None
        for seed in sorted(runs):
            scored = self.run_acc(runs[seed], test_env)
            if scored and (best is None or scored.val_acc >= best[1].val_acc):
                best = seed, scored
        return best

    def sweep_acc(self, records: Iterable[Record], test_env: int) -> float | None:
        """Test accuracy in [0, 1] of the chosen run of ``records``, as in ``chosen``; None where there is none."""
        best = self.chosen(records, test_env)
        return best[1].test_acc if best else None


def _alone(records: Iterable[Record]) -> list[Record]:
    """Records of runs that hold out the test environment and no other."""
    return [record for record in records if len(record["args"]["test_envs"]) == 1]


def _first_best(scored: Iterable[RunAccuracy | None]) -> RunAccuracy | None:
    return max((found for found in scored if found), key=lambda found: found.val_acc, default=None)


def _scored(validation: list[float | None], test: float | None) -> RunAccuracy | None:
    """Mean of the validation accuracies and the test accuracy; None where any is missing."""
    known = [value for value in validation if value is not None]
    if test is None or not known or len(known) < len(validation):
        return None
    return RunAccuracy(float(np.mean(known)), test)


def _training_domain(records: list[Record], test_env: int) -> RunAccuracy | None:
    def at(record: Record) -> RunAccuracy | None:
        sources = [env for env in range(environment_count(record)) if env != test_env]
        return _scored([accuracy(record, env, "out") for env in sources], accuracy(record, test_env, "in"))

    return _first_best(map(at, _alone(records)))


def _leave_one_domain_out(records: list[Record], test_env: int) -> RunAccuracy | None:
    steps: dict[float, list[Record]] = {}
    for record in records:
        steps.setdefault(record["step"], []).append(record)
    return _first_best(_cross_validated(steps[step], test_env) for step in sorted(steps))


def _cross_validated(records: list[Record], test_env: int) -> RunAccuracy | None:
    """At one step: how well each other environment is classified by the run that did not see it either."""
    alone = _alone(records)
    if len(alone) != 1:
        return None
    held_out: dict[int, float | None] = {}
    for record in records:
        others = set(record["args"]["test_envs"]) - {test_env}
        if len(others) == 1:
            other = others.pop()
            held_out[other] = accuracy(record, other, "in")
    sources = [env for env in range(environment_count(alone[0])) if env != test_env]
    return _scored([held_out.get(env) for env in sources], accuracy(alone[0], test_env, "in"))


def _oracle(records: list[Record], test_env: int) -> RunAccuracy | None:
    alone = _alone(records)
    if not alone:
        return None
    last = sorted(alone, key=lambda record: record["step"])[-1]
    return _scored([accuracy(last, test_env, "out")], accuracy(last, test_env, "in"))


#: The selection methods by their key, in DomainBed's order.
SELECTION_METHODS = {
    method.key: method
    for method in (
        SelectionMethod(
            "training-domain",
            "training-domain validation set",
            "out-splits of the source environments",
            "each run that holds out one environment, with out-split accuracies (--holdout_fraction above 0)",
            _training_domain,
        ),
        SelectionMethod(
            "leave-one-domain-out",
            "leave-one-domain-out cross-validation",
            "in-split of each source environment, in the run that holds it out too",
            "also the runs that hold out pairs of environments",
            _leave_one_domain_out,
        ),
        SelectionMethod(
            "oracle",
            "test-domain validation set (oracle)",
            "out-split of the test environment, last checkpoint",
            "each run that holds out one environment, with out-split accuracies (--holdout_fraction above 0)",
            _oracle,
        ),
    )
}
