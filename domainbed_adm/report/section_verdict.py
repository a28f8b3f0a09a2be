"""The top of the page: which methods beat the baseline, in words and as a forest plot; accuracy against passes spent.

A difference to the baseline is *shown* where p of Student's t-test over test environments, corrected by Benjamini and
Hochberg over the methods compared, is below 0.05. Of one method that is where its 95 % interval leaves out 0; of 20 the
correction keeps the one of them whose interval leaves out 0 by luck from being told as a find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean
from typing import NamedTuple

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.comparison import ALL, Comparison, PairedDifference, benjamini_hochberg, comparisons
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Run
from domainbed_adm.registry import get_method
from domainbed_adm.report.charts import Chart
from domainbed_adm.report.points import Interval, Point, against, forest
from domainbed_adm.report.section_learning import selected_runs

#: What the page compares methods with: SAM, which the curricula were made for, and ERM.
BASELINES = ("SAM", "ERM")
_LEVEL = 0.05
#: Of the methods of one kind so many are named.
_NAMED = 6
#: Kind of a comparison, and how its list begins.
KINDS = {
    "better": "Better",
    "worse": "Worse",
    "open": "No difference shown",
    "unjudged": "Not judged",
}


class Standing(NamedTuple):
    """A method against the baseline."""

    kind: str  # of ``KINDS``
    row: Comparison
    accuracies: tuple[float, float]  # the method's and the baseline's in %, over their common pairs

    @property
    def words(self) -> str:
        """As in "SAM +0.6 points (95 % interval -8.3 to +6.7; 83.5 against 82.8 %)"."""
        one, told = self.row.difference, []
        if one.interval:
            told.append("95 % interval {:+.1f} to {:+.1f}".format(*one.interval))
        told.append("{:.1f} against {:.1f} %".format(*self.accuracies))
        told += one.remarks[:1] if self.kind == "unjudged" else []
        if self.kind == "open" and one.interval and one.interval[0] * one.interval[1] > 0:
            told.append("by luck alone one of so many methods may stand as far apart")
        return f"{self.row.method} {one.mean or 0:+.1f} points ({'; '.join(told)})"


class Verdict(NamedTuple):
    """All methods against one baseline."""

    baseline: str
    headline: str
    lists: list[tuple[str, list[str], int]]  # how it begins, methods in words, how many more there are
    basis: str  # environments, trials, the rule
    chart: Chart | None


def verdicts(board: Board, selection: SelectionMethod) -> list[Verdict]:
    """Against each baseline that is among the methods; none where there is nothing to compare."""
    return [
        found
        for base in BASELINES
        if base in board.algorithms and (found := _verdict(board, selection, base)) is not None
    ]


def standings(board: Board, selection: SelectionMethod, base: str) -> list[Standing]:
    """What is shown of each other method that has a pair, over all datasets where there are several; best first."""
    methods = [name for name in board.algorithms if name != base]
    rows = comparisons(board, selection, base, methods)
    last = {row.method: row for row in rows if row.difference.n}  # the row over all datasets is the last
    corrected = benjamini_hochberg([student_p(row.difference) for row in last.values()])
    found = [
        Standing(_kind(row, p), row, _accuracies(board, selection, row))
        for row, p in zip(last.values(), corrected, strict=True)
    ]
    return sorted(found, key=lambda one: -(one.row.difference.mean or 0))


def student_p(difference: PairedDifference) -> float | None:
    """Two-sided p of Student's t over environments, below 0.05 where ``interval`` leaves out 0; None without one."""
    if difference.interval is None or difference.mean is None:
        return None
    from scipy.special import stdtr, stdtrit

    df, half = difference.n_environments - 1, (difference.interval[1] - difference.interval[0]) / 2
    return float(2 * stdtr(df, -abs(difference.mean) * stdtrit(df, 1 - _LEVEL / 2) / half))


def _accuracies(board: Board, selection: SelectionMethod, row: Comparison) -> tuple[float, float]:
    """Over the pairs that the difference is over, averaged as it is."""
    means = []
    for dataset in board.environments if row.dataset == ALL else [row.dataset]:
        for env in board.environments[dataset]:
            ours, theirs = (board.trials(selection, dataset, name, env) for name in (row.method, row.baseline))
            if trials := ours.keys() & theirs.keys():
                means.append([mean(100 * side[trial] for trial in sorted(trials)) for side in (ours, theirs)])
    ours_mean, theirs_mean = map(mean, zip(*means, strict=True))
    return ours_mean, theirs_mean


def _kind(row: Comparison, p: float | None) -> str:
    if p is None or row.difference.mean is None:
        return "unjudged"
    if p >= _LEVEL:
        return "open"
    return "better" if row.difference.mean > 0 else "worse"


def _verdict(board: Board, selection: SelectionMethod, base: str) -> Verdict | None:
    found = standings(board, selection, base) if len(board.algorithms) > 1 else []
    if not found:
        return None
    lists = []
    for kind, begins in KINDS.items():
        own = [one.words for one in found if one.kind == kind]
        if own:
            lists.append((begins, own[:_NAMED], len(own) - _NAMED))
    return Verdict(base, headline(found, base), lists, _basis(selection, found), _forest(found, base))


def headline(found: Sequence[Standing], base: str) -> str:
    """What beats the baseline, in a sentence."""
    better = [one for one in found if one.kind == "better"]
    judged = [one for one in found if one.kind != "unjudged"]
    if not judged:
        return f"Nothing can be said against {base}: {found[0].row.difference.remarks[0]}."
    if len(better) == 1:
        return f"{better[0].row.method} beats {base} by {better[0].row.difference.mean:.1f} points."
    if better:
        most = f"{better[0].row.method} by most: {better[0].row.difference.mean:.1f} points"
        return f"{len(better)} of {len(judged)} methods beat {base}, {most}."
    worse = sum(one.kind == "worse" for one in found)
    if len(judged) == 1:
        name = judged[0].row.method
        return f"{name} is worse than {base}." if worse else f"No difference shown between {name} and {base}."
    return f"No method is shown to beat {base}" + (f"; {worse} of {len(judged)} are worse." if worse else ".")


def _basis(selection: SelectionMethod, found: Sequence[Standing]) -> str:
    environments = [one.row.difference.n_environments for one in found]
    pairs = [one.row.difference.n / max(1, one.row.difference.n_environments) for one in found]
    trials = "one trial" if max(pairs) == 1 else f"{_span(pairs)} trials"
    correction = f", corrected for {len(found)} comparisons (Benjamini-Hochberg)" if len(found) > 1 else ""
    return (
        f"n: {_span(environments)} test environments, {trials} of each. Paired differences of test accuracy, "
        f"checkpoints by {selection.name}. Shown: p < {_LEVEL} of Student's t over environments{correction}."
    )


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def _forest(found: Sequence[Standing], base: str) -> Chart:
    points = [
        Interval(one.row.method, one.row.difference.mean or 0, one.row.difference.interval, one.kind, one.words)
        for one in found
    ]
    spoken = f"Difference of each method to {base} with its 95 % interval; the table of Statistics has the numbers"
    caption = f"Accuracy minus that of {base}, percentage points: mean and 95 % interval over test environments"
    return Chart(caption, spoken, forest(points))


def against_passes(board: Board, selection: SelectionMethod) -> list[Chart]:
    """For each dataset, the mean accuracy of each method against the passes that its selected runs have spent."""
    charts = []
    for dataset, names in board.environments.items():
        points = []
        for algorithm in board.algorithms:
            accuracy = board.over_environments(selection, dataset, algorithm, whole_trials=True).mean
            runs = [run for env in names for run in selected_runs(board, selection, dataset, algorithm, env)]
            spent = [passes for run in runs if (passes := passes_of(run)) is not None]
            if accuracy is not None and spent and len(spent) == len(runs):
                words = f"{algorithm}: {accuracy:.1f} %, {mean(spent):.3g} thousand passes"
                points.append(Point(algorithm, mean(spent), accuracy, words))
        if len(points) > 1:
            spoken = f"Mean accuracy of each method on {dataset} against the passes that a run has spent"
            caption = f"{dataset}: mean test accuracy in % against the passes of a run, in 1000 F"
            charts.append(Chart(caption, spoken, against(points)))
    return charts


def passes_of(run: Run) -> float | None:
    """Forward passes of a batch that the run has spent on training, in thousands; None where that is not known."""
    passes = _passes_of_a_step(run)
    return None if math.isnan(passes) else passes * (run.last_step + 1) / 1000


def _passes_of_a_step(run: Run) -> float:
    try:
        return get_method(run.method).passes(**run.hparams)
    except (TypeError, ValueError):  # of an extension that is not here, or of records with odd hparams
        return math.nan
