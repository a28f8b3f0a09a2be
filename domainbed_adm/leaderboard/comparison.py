"""Is one method better than another? Differences by test environment: mean, interval, Wilcoxon's test; as table, rows.

Accuracies of the same trial seed and test environment are paired. Trials that hold out the same environment are not
independent, so they are averaged first. With d_e the mean difference
in environment e over its trials, in percentage points, e = 1 ... n:

==============  ========================================================================================
mean            sum_e d_e / n
interval        95 %, Student's: mean +/- t_(0.975, n - 1) s / sqrt(n), s^2 = sum_e (d_e - mean)^2 / (n - 1)
p               Wilcoxon's signed-rank test, two-sided: ranks of abs(d_e) summed where d_e > 0; Demsar, JMLR
                2006, section 3.1.3, recommends it for two methods on several data sets
corrected p     Benjamini and Hochberg, J. R. Stat. Soc. B 1995: for the i-th smallest of m,
                min over k >= i of p_(k) m / k
==============  ========================================================================================

Student's interval is exact for normal d_e. ``interval_coverage.yaml`` has how often it holds the mean of other
distributions, simulated by ``benchmarks/interval_coverage.py``. The same simulation is why there is no bootstrap: up to
24 environments, more than any table here has, BCa covers less than Student's (83 to 86 % at 6, not 89 to 96 %).

Differences of zero have no rank and are left out of the test, as Wilcoxon did; Demsar splits their ranks. p is exact
up to 50 differences, with ties among them up to 13, and the normal approximation beyond.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.leaderboard.board import Board, versions
from domainbed_adm.leaderboard.layouts import Sheet
from domainbed_adm.leaderboard.notes import selection_line
from domainbed_adm.model_selection import SelectionMethod

COVERAGE_FILE = Path(__file__).with_name("interval_coverage.yaml")
#: Stands for a dataset's name where the pairs of all of them count.
ALL = "all datasets"
_LEVEL = 0.05
#: Fewest environments that differ for which p, at least 2^(1 - n), can be below the level.
_FEWEST = math.ceil(1 - math.log2(_LEVEL))
#: Accuracies are fractions of images: differences nearer than this are equal but for rounding.
_DECIMALS = 9
_MOST_TIES_EXACT = 13
_CORRECTED, _REMARK = "p (Benjamini-Hochberg)", "remark"


@dataclass(frozen=True)
class PairedDifference:
    """The comparison of two methods over ``n`` pairs of runs; mean and interval (low, high) in percentage points.

    p is None where so few environments differ that no outcome could bring it to 0.05; ``remarks`` say what is missing
    and why.
    """

    n: int
    n_environments: int = 0
    mean: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    remarks: tuple[str, ...] = ()

    @property
    def coverage(self) -> tuple[float, float] | None:
        """Lowest and highest simulated coverage of ``interval`` in %; None without an interval."""
        return simulated_coverage(self.n_environments) if self.interval else None


def paired_difference(
    method: Sequence[float], baseline: Sequence[float], environments: Sequence[Hashable]
) -> PairedDifference:
    """Compare a method with a baseline, by the accuracies in % and the test environment of each pair.

    Pairs of several datasets have (dataset, environment) for an environment.

    Raises:
        ValueError: the three have different lengths.
    """
    n = len(method), len(baseline), len(environments)
    if len(set(n)) > 1:
        raise ValueError("pairs need as many of each: {} of the method, {} of the baseline, {} environments".format(*n))
    if not len(method):
        return PairedDifference(0, remarks=("no common pair",))
    by_environment: dict[Hashable, list[float]] = {}
    for ours, theirs, environment in zip(method, baseline, environments, strict=True):
        by_environment.setdefault(environment, []).append(ours - theirs)
    means = np.round([np.mean(differences) for differences in by_environment.values()], _DECIMALS)
    interval, no_interval = _student_interval(means)
    p, no_p = _wilcoxon(means[means != 0])
    remarks = tuple(filter(None, (no_interval, no_p)))
    return PairedDifference(len(method), len(means), float(means.mean()), interval, p, remarks)


@cache
def simulated_coverage(environments: int) -> tuple[float, float]:
    """Lowest and highest coverage in % of the 95 % interval over the simulated distributions.

    ``environments`` is how many there are, at least 2; beyond the table, its row for the next fewer counts.
    """
    rows = yaml.safe_load(COVERAGE_FILE.read_text(encoding="utf-8"))["student"]
    values = rows[max(n for n in rows if n <= environments)].values()
    return min(values), max(values)


def _student_interval(means: np.ndarray) -> tuple[tuple[float, float] | None, str]:
    """The interval, or why there is none."""
    n = len(means)
    if n == 1:
        return None, "a single test environment: no interval"
    if np.ptp(means) == 0:
        return None, "all environments differ by the same: no interval"
    from scipy.special import stdtrit

    half = stdtrit(n - 1, 1 - _LEVEL / 2) * means.std(ddof=1) / np.sqrt(n)
    return (float(means.mean() - half), float(means.mean() + half)), ""


def _wilcoxon(differences: np.ndarray) -> tuple[float | None, str]:
    """The p of differences other than zero, or why there is none."""
    n = len(differences)
    if n == 0:
        return None, "no environment differs: no p"
    if n < _FEWEST:
        return None, f"n too small for p: the smallest possible is {2.0 ** (1 - n):.2g} at {n}"
    from scipy import stats

    ranks = stats.rankdata(np.abs(differences))
    if len(set(ranks)) < n <= _MOST_TIES_EXACT:
        signs = (ranks * np.sign(differences),)  # every way to sign the ranks
        return float(stats.permutation_test(signs, np.sum, permutation_type="samples", n_resamples=np.inf).pvalue), ""
    method = "auto" if len(set(ranks)) == n else "asymptotic"
    return float(stats.wilcoxon(differences, method=method).pvalue), ""


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """The corrected p of each; None, where there is no p, stays None and counts as no comparison."""
    from scipy import stats

    known = [p for p in p_values if p is not None]
    corrected = iter(stats.false_discovery_control(known, method="bh") if known else [])
    return [None if p is None else float(next(corrected)) for p in p_values]


@dataclass(frozen=True)
class Comparison:
    """A method against a baseline on one dataset, or ``ALL``.

    ``left_out`` is the number of (test environment, trial seed) that only one of the two has, ``corrected`` p corrected
    over the list that this one comes in.
    """

    dataset: str
    method: str
    baseline: str
    left_out: int
    difference: PairedDifference
    corrected: float | None = None


def comparisons(board: Board, selection: SelectionMethod, baseline: str, methods: Sequence[str]) -> list[Comparison]:
    """Each method against the baseline: on each dataset, then, where several have pairs, over those of all.

    The corrected p are Benjamini and Hochberg's over all p of the list.
    """

    def compare(label: str, method: str, datasets: Iterable[str]) -> Comparison:
        ours, theirs = (
            {
                (dataset, env, trial): 100 * accuracy
                for dataset in datasets
                for env in board.environments[dataset]
                for trial, accuracy in board.trials(selection, dataset, name, env).items()
            }
            for name in (method, baseline)
        )
        pairs = sorted(ours.keys() & theirs.keys())
        a, b = ([side[pair] for pair in pairs] for side in (ours, theirs))
        difference = paired_difference(a, b, [pair[:2] for pair in pairs])
        return Comparison(label, method, baseline, len(ours.keys() ^ theirs.keys()), difference)

    rows = [compare(dataset, method, [dataset]) for dataset in board.environments for method in methods]
    for method in methods:
        if sum(row.method == method and row.difference.n > 0 for row in rows) > 1:
            rows.append(compare(ALL, method, board.environments))
    corrected = benjamini_hochberg([row.difference.p for row in rows])
    return [replace(row, corrected=p) for row, p in zip(rows, corrected, strict=True)]


def compared(
    board: Board, selections: Iterable[SelectionMethod], names: Sequence[str]
) -> dict[SelectionMethod, list[Comparison]]:
    """What ``comparisons`` finds under each selection method; the first of ``names`` is the baseline.

    Raises:
        UserError: there are fewer than two names, one comes twice, the records lack one, or one has no pair anywhere.
    """
    if len(names) < 2:
        raise UserError("--compare needs two algorithms or more, the baseline first: --compare SAM SAM_SSPL_ADM")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--compare has {name} twice: name each once, the baseline first")
        if name not in board.algorithms:
            raise UserError(f"--compare, in these records: {unknown_name(board.algorithms, name, 'algorithm')}")
    baseline, *methods = names
    by_selection = {selection: comparisons(board, selection, baseline, methods) for selection in selections}
    paired = {row.method for rows in by_selection.values() for row in rows if row.difference.n}
    for method in methods:
        if method not in paired:
            raise UserError(
                f"--compare: {method} and {baseline} have no accuracy of the same dataset, trial seed and test "
                "environment; --missing without --compare lists the runs there are not"
            )
    return by_selection


def comparison_sheet(board: Board, selection: SelectionMethod, rows: Sequence[Comparison]) -> Sheet:
    """The table of ``comparisons``; corrected p only where there are several, remarks where there is one."""
    size = sum(row.difference.p is not None for row in rows)
    table = [_cells(row) for row in rows]
    shown = {_CORRECTED: size > 1, _REMARK: any(row[_REMARK] for row in table)}
    columns = tuple(name for name in table[0] if shown.get(name, True))
    all_rows = f" and the rows of {ALL}" if any(row.dataset == ALL for row in rows) else ""
    correction = (
        f"Corrected by Benjamini and Hochberg over the {size} p of this table, every method and dataset{all_rows}. "
    )
    note = (
        f"Difference: method - {rows[0].baseline} in percentage points. Pairs of the same trial seed and test "
        "environment are averaged over trials within an environment, then over environments, each counting the same; "
        f"{sum(row.left_out for row in rows if row.dataset != ALL)} left out because one side lacks them. "
        "Interval: Student's t over environments, "
        "as if these were drawn at random. Coverage: how often such an interval holds the mean, simulated for as many "
        "environments, the lowest and highest of normal, heavy-tailed and skewed differences "
        "(benchmarks/interval_coverage.py). p: Wilcoxon's signed-rank test, two-sided, over the environments that "
        f"differ; fewer than {_FEWEST} cannot give p below {_LEVEL} and have none. "
        f"{correction if size > 1 else ''}{selection_line(selection)} {board.sweep_line}"
    )
    return Sheet(
        f"Comparison with {rows[0].baseline}, model selection method: {selection.name}",
        columns[:3],
        columns[3:],
        tuple(tuple(row[name] for name in columns) for row in table),
        note,
        prose=(_REMARK,),
    )


def _cells(row: Comparison) -> dict[str, str]:
    difference = row.difference
    p, corrected = (
        "-" if p is None else "<0.0001" if p < 0.0001 else f"{p:.2g}" for p in (difference.p, row.corrected)
    )
    return {
        "Dataset": row.dataset,
        "Method": row.method,
        "Baseline": row.baseline,
        "pairs": str(difference.n),
        "environments": str(difference.n_environments),
        "difference": "-" if difference.mean is None else f"{difference.mean:+.2f}",
        "95 % interval": "{:+.2f} to {:+.2f}".format(*difference.interval) if difference.interval else "-",
        "coverage": "{:.0f} to {:.0f} %".format(*difference.coverage) if difference.coverage else "-",
        "p": p,
        _CORRECTED: corrected,
        _REMARK: "; ".join(difference.remarks),
    }


def comparison_rows(board: Board, selection: SelectionMethod, rows: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A row for each comparison: differences in percentage points, coverage in %, None where the table has "-"."""
    size = sum(row.difference.p is not None for row in rows)
    unknown = (None, None)
    return [
        {
            "selection": selection.key,
            "dataset": row.dataset,
            "method": row.method,
            "baseline": row.baseline,
            "n": row.difference.n,
            "n_environments": row.difference.n_environments,
            "left_out": row.left_out,
            "mean_difference": row.difference.mean,
            **dict(zip(("low", "high"), row.difference.interval or unknown, strict=True)),
            **dict(zip(("coverage_low", "coverage_high"), row.difference.coverage or unknown, strict=True)),
            "p": row.difference.p,
            "p_benjamini_hochberg": row.corrected,
            "corrected_over": size,
            "remark": "; ".join(row.difference.remarks),
            "interval": "95 %, Student's t over test environments",
            "test": "Wilcoxon signed-rank, two-sided, over test environments",
            "selection_splits": selection.splits,
            "versions": versions(board.runs),
        }
        for row in rows
    ]
