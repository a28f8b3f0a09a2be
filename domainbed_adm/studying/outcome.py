"""What a study's runs say: differences with intervals, the verdict, and how many trials a difference takes.

The units are test environments: accuracies of one trial and environment are paired, differences averaged over trials
within an environment, and the interval is Student's over environments (``leaderboard.comparison``). With the interval
[low, high] of arm - baseline and the smallest difference of interest d, in percentage points:

===================  ================================================
low >= d             better, by a difference of interest
0 < low < d          better, perhaps by less than is of interest
high <= -d           worse, by a difference of interest
-d < high < 0        worse, perhaps by less than is of interest
-d < low <= high < d no difference of interest (where it holds 0)
otherwise            undecided
===================  ================================================
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domainbed_adm import records, run_files
from domainbed_adm.leaderboard.comparison import PairedDifference, benjamini_hochberg, paired_difference
from domainbed_adm.recorded_run import Run
from domainbed_adm.studying.plan import StudyPlan
from domainbed_adm.sweeping.jobs import Job

#: (dataset, test environment, trial seed) -> accuracy in %.
Accuracies = Mapping[tuple[str, int, int], float]
#: Power that the number of trials is for, and the most trials that are thought of.
POWER, MOST_TRIALS = 0.8, 100


def finished_runs(jobs: Iterable[Job]) -> list[Run]:
    """The runs of these jobs that are done."""
    done = (job.output_dir for job in jobs if (job.output_dir / run_files.DONE).exists())
    return [run for folder in done for run in records.read_runs(folder / run_files.RESULTS)]


def accuracies(plan: StudyPlan, runs: Iterable[Run]) -> dict[tuple[str, int, int], float]:
    """Test accuracies in % of one arm's runs, of the checkpoint that the plan's selection method takes."""
    found = {}
    for run in runs:
        for env in run.test_envs:
            chosen = plan.selection_method.sweep_acc([run], env)
            if chosen is not None:
                found[run.dataset, env, run.trial_seed] = 100 * chosen
    return found


def source_accuracies(runs: Iterable[Run]) -> dict[tuple[str, int, int], float]:
    """The best accuracies in % on the sources' out-splits, for a pilot: no test environment is looked at."""
    found = {}
    for run in runs:
        column = run.source_accuracy("out")
        if not np.isnan(column).all():
            found[run.dataset, run.test_envs[0], run.trial_seed] = 100 * float(np.nanmax(column))
    return found


def compare(arm: Accuracies, baseline: Accuracies, dataset: str | None = None) -> PairedDifference:
    """Arm - baseline over their common pairs, on one dataset or on all."""
    pairs = sorted(key for key in arm.keys() & baseline.keys() if dataset in (None, key[0]))
    return paired_difference([arm[key] for key in pairs], [baseline[key] for key in pairs], [key[:2] for key in pairs])


@dataclass(frozen=True)
class Verdict:
    """What the rule says of a difference; ``key`` is one of better, worse, small gain, small loss, equal, undecided."""

    key: str
    words: str


def verdict(difference: PairedDifference, smallest: float, arm: str, baseline: str) -> Verdict:
    """The rule of this module's docstring, in words."""
    if difference.interval is None or difference.mean is None:
        return Verdict("undecided", f"Undecided: {'; '.join(difference.remarks) or 'no interval'}.")
    low, high = difference.interval
    span = f"{difference.mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}"
    if low >= smallest:
        return Verdict("better", f"{arm} is better than {baseline} by {smallest:g} points or more ({span}).")
    if high <= -smallest:
        return Verdict("worse", f"{arm} is worse than {baseline} by {smallest:g} points or more ({span}).")
    if low > 0:
        return Verdict("small gain", f"{arm} is better than {baseline}, perhaps by less than {smallest:g} ({span}).")
    if high < 0:
        return Verdict("small loss", f"{arm} is worse than {baseline}, perhaps by less than {smallest:g} ({span}).")
    if -smallest < low and high < smallest:
        return Verdict("equal", f"{arm} and {baseline} differ by less than {smallest:g} points ({span}).")
    return Verdict(
        "undecided", f"Undecided whether {arm} or {baseline} is better by {smallest:g} points or more ({span})."
    )


def corrected(differences: Sequence[PairedDifference]) -> list[float | None]:
    """Benjamini and Hochberg's p of the comparisons beside the primary one."""
    return benjamini_hochberg([difference.p for difference in differences])


@dataclass(frozen=True)
class Pilot:
    """What a pilot says of the spread: standard deviations in points, over environments and over trials within one."""

    n_environments: int
    n_trials: int
    between: float
    within: float

    def half_width(self, n_trials: int) -> float:
        """Of the 95 % interval with so many trials: t sqrt((between^2 + within^2 / n) / environments)."""
        from scipy.special import stdtrit

        return float(stdtrit(self.n_environments - 1, 0.975)) * self._error(n_trials)

    def trials_for(self, smallest: float) -> int | None:
        """Fewest trials for which a true difference of ``smallest`` is found with power 0.8; None: no number does.

        (t_0.975 + t_0.8) sqrt((between^2 + within^2 / n) / environments) <= smallest, with environments - 1 degrees.
        """
        from scipy.special import stdtrit

        factor = float(stdtrit(self.n_environments - 1, 0.975) + stdtrit(self.n_environments - 1, POWER))
        numbers = range(1, MOST_TRIALS + 1)
        return next((n for n in numbers if factor * self._error(n) <= smallest), None)

    def _error(self, n_trials: int) -> float:
        return math.sqrt((self.between**2 + self.within**2 / n_trials) / self.n_environments)


def pilot(arm: Accuracies, baseline: Accuracies) -> Pilot | None:
    """The spread of paired differences: one-way analysis of variance over environments; None with too few pairs.

    Of k trials in each environment, within^2 is the mean variance over trials, and between^2 what the variance of the
    environments' means has above within^2 / k, at least 0.
    """
    by_environment: dict[tuple[str, int], list[float]] = {}
    for key in sorted(arm.keys() & baseline.keys()):
        by_environment.setdefault(key[:2], []).append(arm[key] - baseline[key])
    several = [values for values in by_environment.values() if len(values) > 1]
    if len(by_environment) < 2 or len(several) < len(by_environment):
        return None
    k = min(map(len, several))
    within = float(np.mean([np.var(values, ddof=1) for values in several]))
    between = float(np.var([np.mean(values) for values in several], ddof=1)) - within / k
    return Pilot(len(several), k, math.sqrt(max(0.0, between)), math.sqrt(within))


def folder_of(jobs: Mapping[str, Sequence[Job]]) -> dict[Path, str]:
    """The arm of each run's folder."""
    return {job.output_dir: arm for arm, own in jobs.items() for job in own}
