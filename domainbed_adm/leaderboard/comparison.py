"""Is one method better than another? Paired differences by test environment: mean, interval, Wilcoxon's test.

Trials that hold out the same environment are not independent, so they are averaged first. With d_e the mean difference
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

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import yaml

COVERAGE_FILE = Path(__file__).with_name("interval_coverage.yaml")
LEVEL = 0.05
#: Accuracies are fractions of images: differences nearer than this are equal but for rounding.
_DECIMALS = 9
_MOST_TIES_EXACT = 13


@dataclass(frozen=True)
class PairedDifference:
    """The comparison of two methods over pairs of runs.

    Attributes:
        n: number of pairs.
        n_environments: number of environments that the pairs are of.
        mean: over environments, in percentage points; None without a pair.
        interval: low and high end; None where ``remarks`` say why.
        p: in (0, 1]; None where so few environments differ that no outcome could bring it to 0.05.
        remarks: why something is missing.
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
    """Compare ``method`` with ``baseline``.

    Args:
        method: accuracies in %, one for each pair.
        baseline: those of the baseline, in the same order.
        environments: the test environment of each pair; of several datasets, with the dataset.

    Raises:
        ValueError: the three have different lengths.
    """
    if not len(method) == len(baseline) == len(environments):
        raise ValueError(
            f"pairs need as many of each: {len(method)} of the method, {len(baseline)} of the baseline, "
            f"{len(environments)} environments"
        )
    if not len(method):
        return PairedDifference(0, remarks=("no common pair",))
    by_environment: dict[Hashable, list[float]] = {}
    for difference, environment in zip(np.subtract(method, baseline), environments, strict=True):
        by_environment.setdefault(environment, []).append(difference)
    means = np.round([np.mean(differences) for differences in by_environment.values()], _DECIMALS)
    interval, no_interval = _student_interval(means)
    p, no_p = _wilcoxon(means[means != 0])
    remarks = tuple(filter(None, (no_interval, no_p)))
    return PairedDifference(len(method), len(means), float(means.mean()), interval, p, remarks)


def smallest_p(count: int) -> float:
    """The smallest two-sided p that Wilcoxon's test can give for ``count`` differences other than zero: 2^(1 - n)."""
    return min(1.0, 2.0 ** (1 - count))


def simulated_coverage(environments: int) -> tuple[float, float]:
    """Lowest and highest coverage in % of the 95 % interval over the simulated distributions.

    Args:
        environments: how many, at least 2; beyond the table, its row for the next fewer counts.
    """
    rows = _coverage_rows()
    values = rows[max(n for n in rows if n <= environments)].values()
    return min(values), max(values)


@cache
def _coverage_rows() -> dict[int, dict[str, float]]:
    rows: dict[int, dict[str, float]] = yaml.safe_load(COVERAGE_FILE.read_text(encoding="utf-8"))["student"]
    return rows


def _student_interval(means: np.ndarray) -> tuple[tuple[float, float] | None, str]:
    """The interval, or why there is none."""
    n = len(means)
    if n == 1:
        return None, "a single test environment: no interval"
    if np.ptp(means) == 0:
        return None, "all environments differ by the same: no interval"
    from scipy.special import stdtrit

    half = stdtrit(n - 1, 1 - LEVEL / 2) * means.std(ddof=1) / np.sqrt(n)
    return (float(means.mean() - half), float(means.mean() + half)), ""


def _wilcoxon(differences: np.ndarray) -> tuple[float | None, str]:
    """The p of differences other than zero, or why there is none."""
    n = len(differences)
    if n == 0:
        return None, "no environment differs: no p"
    if smallest_p(n) > LEVEL:
        return None, f"n too small for p: the smallest possible is {smallest_p(n):.2g} at {n}"
    from scipy import stats

    ranks = stats.rankdata(np.abs(differences))
    if len(set(ranks)) == n:
        return float(stats.wilcoxon(differences).pvalue), ""
    if n > _MOST_TIES_EXACT:
        return float(stats.wilcoxon(differences, method="asymptotic").pvalue), ""
    signs = (ranks * np.sign(differences),)  # every way to sign the ranks
    return float(stats.permutation_test(signs, np.sum, permutation_type="samples", n_resamples=np.inf).pvalue), ""


def benjamini_hochberg(p_values: Sequence[float | None]) -> list[float | None]:
    """The corrected p of each; None, where there is no p, stays None and counts as no comparison."""
    from scipy import stats

    known = [p for p in p_values if p is not None]
    corrected = iter(stats.false_discovery_control(known, method="bh") if known else [])
    return [None if p is None else float(next(corrected)) for p in p_values]
