"""How often a 95 % interval of the mean over few test environments holds it: Student's and the bootstrap's, simulated.

``python -m benchmarks.interval_coverage`` draws differences of n environments from three distributions of known mean,
counts how often each interval holds it, and writes ``domainbed_adm/leaderboard/interval_coverage.yaml``, which
``collect_results --compare`` prints beside its intervals. The bootstrap's rows say why it is not used.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from domainbed_adm.leaderboard.comparison import COVERAGE_FILE

#: Distributions of a difference, each of mean 0; skewness of the last 2, kurtosis of the second infinite.
DISTRIBUTIONS: dict[str, Callable[[np.random.Generator, tuple[int, int]], np.ndarray]] = {
    "normal": lambda random, shape: random.normal(size=shape),
    "heavy_tailed": lambda random, shape: random.standard_t(3, size=shape),
    "skewed": lambda random, shape: random.exponential(size=shape) - 1,
}
ENVIRONMENTS = (*range(2, 25), 32, 48)
DRAWS, BOOTSTRAP_DRAWS, RESAMPLES = 100_000, 4_000, 1_999
_HEAD = """\
# How often a 95 % interval of the mean over n environments holds it, in %, by the distribution of their differences:
# normal; Student's t with 3 degrees of freedom; exponential. Written by benchmarks/interval_coverage.py.
# Monte Carlo standard error: student 0.1, bootstrap (BCa, of which it is the reason not to use it) 0.6.
"""


def student_coverage(n: int, distribution: str, draws: int, seed: int = 0) -> float:
    """Share of draws, in %, in which Student's interval over ``n`` environments holds the mean."""
    x = DISTRIBUTIONS[distribution](np.random.default_rng([seed, n]), (draws, n))
    half = stats.t.ppf(0.975, n - 1) * x.std(axis=1, ddof=1) / np.sqrt(n)
    return float(100 * np.mean(np.abs(x.mean(axis=1)) <= half))


def bootstrap_coverage(n: int, distribution: str, draws: int, seed: int = 0) -> float:
    """The same of the bias-corrected and accelerated bootstrap (Efron, J. Am. Stat. Assoc. 1987)."""
    random, held = np.random.default_rng([seed, n]), 0
    for _ in range(0, draws, 100):
        x = DISTRIBUTIONS[distribution](random, (100, n))
        result = stats.bootstrap((x,), np.mean, axis=1, n_resamples=RESAMPLES, method="BCa", rng=random)
        held += int(np.sum((result.confidence_interval.low <= 0) & (result.confidence_interval.high >= 0)))
    return 100 * held / draws


def main() -> None:
    """Simulate, and write the file."""
    lines = []
    for name, coverage, draws, first in (
        ("student", student_coverage, DRAWS, 2),
        ("bootstrap", bootstrap_coverage, BOOTSTRAP_DRAWS, 4),
    ):
        lines.append(f"{name}:")
        for n in (n for n in ENVIRONMENTS if n >= first):
            shares = ", ".join(f"{each}: {coverage(n, each, draws):.1f}" for each in DISTRIBUTIONS)
            lines.append(f"  {n}: {{{shares}}}")
            print(name, lines[-1])
    COVERAGE_FILE.write_text(_HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
