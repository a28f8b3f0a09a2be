"""A study's result as tables, from the runs in its folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import mean

import numpy as np

from domainbed_adm.leaderboard.comparison import PairedDifference
from domainbed_adm.recorded_run import Run
from domainbed_adm.report.tables import UNKNOWN, Cell, Row, Table, number, text
from domainbed_adm.run_files import DIFFICULTY
from domainbed_adm.studying.outcome import Verdict, accuracies, compare, corrected, finished_runs, verdict
from domainbed_adm.studying.plan import StudyPlan
from domainbed_adm.sweeping.jobs import Job

#: Shares of a run at which a difficulty is set against whether images end up right.
_MOMENTS = (0.1, 0.5, 1.0)


@dataclass(frozen=True)
class Result:
    """What a study's finished runs say.

    Attributes:
        plan: what was compared.
        jobs: of each arm.
    """

    plan: StudyPlan
    jobs: dict[str, list[Job]]

    @cached_property
    def runs(self) -> dict[str, list[Run]]:
        """The finished runs of each arm."""
        return {arm: finished_runs(own) for arm, own in self.jobs.items()}

    @cached_property
    def accuracies(self) -> dict[str, dict[tuple[str, int, int], float]]:
        """Test accuracies in % of each arm by (dataset, test environment, trial)."""
        return {arm: accuracies(self.plan, runs) for arm, runs in self.runs.items()}

    @cached_property
    def primary(self) -> PairedDifference:
        """The comparison that the study is for."""
        return self.difference(self.plan.primary.arm, self.plan.primary.baseline)

    @property
    def verdict(self) -> Verdict:
        """What the rule says of it."""
        return verdict(self.primary, self.plan.smallest_difference, self.plan.primary.arm, self.plan.primary.baseline)

    @property
    def missing(self) -> int:
        """Jobs that are not finished."""
        return sum(map(len, self.jobs.values())) - sum(map(len, self.runs.values()))

    def difference(self, arm: str, baseline: str, dataset: str | None = None) -> PairedDifference:
        """Arm - baseline in percentage points."""
        return compare(self.accuracies[arm], self.accuracies[baseline], dataset)

    def tables(self) -> list[Table]:
        """All tables, in the order of the page."""
        parts = (arms_table, differences_table, controls_table, difficulty_table, flatness_table)
        return [table for part in parts if (table := part(self)) is not None]


def arms_table(result: Result) -> Table:
    """Accuracy of each arm, overall and on each dataset, beside the passes that it spent."""
    plan, spent = result.plan, passes_spent(result)
    rows = []
    for arm, own in result.accuracies.items():
        one = plan.arms[arm]
        how = [f"{name} {value}" for name, value in one.hparams.items()]
        how += [f"as many passes as {one.match_passes}"] if one.match_passes else []
        cells = [text(f"{one.algorithm}{', ' * bool(how)}{', '.join(how)}")]
        cells += [number(mean_accuracy(own, dataset), ".2f") for dataset in plan.datasets]
        rows.append(
            Row([arm], [*cells, number(mean_accuracy(own), ".2f"), number(spent[arm], ".1f"), number(len(own), "d")])
        )
    return Table(
        "Accuracy on the environments held out, %",
        ["Arm"],
        ["trained", *plan.datasets, "mean", "passes, 1000 F", "accuracies"],
        rows,
        f"Mean over environments, each the mean of its trials; the last mean is over all environments. Checkpoints by "
        f"{plan.selection_method.name}. F: one forward pass of a batch; a plain training step is 3 F.",
        highest_first=True,
    )


def differences_table(result: Result) -> Table:
    """Each arm against the primary comparison's baseline."""
    base = result.plan.primary.baseline
    others = [arm for arm in result.plan.arms if arm != base]
    return _differences(
        f"Difference to {base}, percentage points",
        [(arm, base) for arm in others],
        result,
        f"The primary comparison is {result.plan.primary.arm} against {base}; the others are there to understand it, "
        "and their p are corrected (Benjamini-Hochberg) over this table. Pairs of one trial and environment, "
        "averaged over trials; interval: Student's over environments, whose simulated coverage stands beside it; p: "
        "Wilcoxon's signed-rank test over environments.",
    )


def controls_table(result: Result) -> Table | None:
    """Each arm against its controls: what its difference from them is, nothing else gave."""
    pairs = [(arm.control_of, name) for name, arm in result.plan.arms.items() if arm.control_of]
    if not pairs:
        return None
    return _differences(
        "Each arm against its controls, percentage points",
        pairs,
        result,
        "A control keeps all of its arm but one thing. Where the two do not differ, that thing is not what helps.",
    )


def _differences(caption: str, pairs: Sequence[tuple[str, str]], result: Result, note: str) -> Table:
    found = [result.difference(arm, base) for arm, base in pairs]
    plan, rows = result.plan, []
    for (arm, base), one, p in zip(pairs, found, corrected(found), strict=True):
        interval = "{:+.2f} to {:+.2f}".format(*one.interval) if one.interval else UNKNOWN
        coverage = "{:.0f} to {:.0f} %".format(*one.coverage) if one.coverage else UNKNOWN
        said = verdict(one, plan.smallest_difference, arm, base)
        by_dataset = [number(result.difference(arm, base, name).mean, "+.2f") for name in plan.datasets]
        cells = [*by_dataset, number(one.mean, "+.2f"), Cell(interval, one.interval and one.interval[0])]
        cells += [Cell(coverage, one.coverage and one.coverage[0]), number(one.p, ".2g"), number(p, ".2g")]
        rows.append(Row([arm, base], [*cells, number(one.n_environments, "d"), text(said.key)]))
    columns = [*plan.datasets, "all", "95 % interval", "coverage", "p", "corrected p", "environments", "by the rule"]
    return Table(caption, ["Arm", "against"], columns, rows, note)


def difficulty_table(result: Result) -> Table | None:
    """How each difficulty, at some moments of training, goes with whether an image ends up right."""
    if not any((run.folder / DIFFICULTY).is_file() for runs in result.runs.values() for run in runs):
        return None
    from domainbed_adm.analysis.difficulty import load_traces

    rows = []
    for arm, runs in result.runs.items():
        for method in load_traces(runs):
            places = [round(share * (len(method.step) - 1)) for share in _MOMENTS]
            for measure, figures in method.figures.items():
                values = [float(figures["correctness_correlation"][place]) for place in places]
                cells = [number(None if math.isnan(value) else value, "+.3f") for value in values]
                rows.append(Row([arm, method.dataset, measure], [*cells, number(len(method.traces), "d")]))
    return Table(
        "Difficulty and later correctness",
        ["Arm", "Dataset", "Difficulty"],
        [*(f"at {share:.0%} of the run" for share in _MOMENTS), "runs"],
        rows,
        "Spearman's correlation of an image's score then with whether it is right at the end, mean over runs: below 0 "
        "where images that end wrong looked harder. Above 0 the order is backwards.",
    )


def flatness_table(result: Result) -> Table | None:
    """Sharpness of each arm's models, of their pool and of the sharpest source domain, where it was measured."""
    from domainbed_adm.analysis.result_files import load_flatness

    rows = []
    for arm, runs in result.runs.items():
        for dataset in result.plan.datasets:
            found = [one for run in runs if run.dataset == dataset for one in load_flatness(run.folder)]
            if not found:
                continue
            pooled = [one.of("pooled")[0].sharpness for one in found]
            sources = [[domain.sharpness for domain in one.of("source")] for one in found]
            columns = (
                pooled,
                list(map(mean, sources)),
                list(map(max, sources)),
                [one.of("test")[0].sharpness for one in found],
            )
            cells = [number(mean(values), ".3g") for values in columns]
            rows.append(Row([arm, dataset], [*cells, number(found[0].rho, "g"), number(len(found), "d")]))
    if not rows:
        return None
    return Table(
        "Sharpness by domain",
        ["Arm", "Dataset"],
        ["sources pooled", "mean of sources", "sharpest source", "test", "rho", "runs"],
        rows,
        "The rise of the loss, in nats, by one step of length rho up the gradient, as SAM takes it; means over runs. A "
        "minimum can be flat for the pool and sharp for a domain. Measured by `domainbed-adm analyze hessian`.",
    )


def passes_spent(result: Result) -> dict[str, float | None]:
    """Of each arm: passes of a run, in 1000 F, the mean over datasets; None of DomainBed's algorithms."""
    plan = result.plan
    spent: dict[str, float | None] = {}
    for arm, own in result.jobs.items():
        steps = {job.train_args["dataset"]: job.n_steps for job in own}
        passes = plan.passes(arm) * mean(steps.values()) / 1000
        spent[arm] = None if math.isnan(passes) else passes
    return spent


def mean_accuracy(found: dict[tuple[str, int, int], float], dataset: str | None = None) -> float | None:
    """Mean over environments of the means over trials."""
    by_environment: dict[tuple[str, int], list[float]] = {}
    for key, accuracy in found.items():
        if dataset in (None, key[0]):
            by_environment.setdefault(key[:2], []).append(accuracy)
    return float(np.mean([np.mean(values) for values in by_environment.values()])) if by_environment else None
