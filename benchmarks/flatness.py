"""Flatness of two methods, paired run by run: reads what ``analyze hessian`` left in a sweep's runs, prints Markdown.

Pairs are runs of the same test environments, trial and hparams seed. ± is std / sqrt(n), std with divisor n as in the
leaderboards; the interval and p are those of ``collect_results --compare``, over test environments. An eigenvalue that
did not converge counts as unknown.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, load_flatness
from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.comparison import paired_difference
from domainbed_adm.system.console import Parser

EXAMPLES = "  python -m benchmarks.flatness results/flatness ERM SAM"

#: Value of a domain; NaN where it is not known.
FIGURES: dict[str, Callable[[DomainFlatness], float]] = {
    "loss": lambda domain: domain.loss,
    "accuracy (%)": lambda domain: 100 * domain.accuracy,
    "largest eigenvalue": lambda domain: domain.largest_eigenvalue,
    "trace": lambda domain: domain.trace,
    "rho-sharpness": lambda domain: domain.sharpness,
    "mean rise at random directions": lambda domain: domain.random_rise,
}
ROLES = {"pooled": "source domains, pooled", "test": "test domain"}
#: What must be equal in all runs.
SETTINGS = ("dataset", "rho", "seed", "samples", "batch_size", "dtype")


def build_parser() -> Parser:
    """The flags."""
    parser = Parser("python -m benchmarks.flatness", description=__doc__, examples=EXAMPLES)
    parser.add_argument("sweep_dir", type=Path)
    parser.add_argument("methods", nargs=2, metavar="METHOD", help="the baseline, and what is compared with it")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print one table for each role.

    Raises:
        UserError: a method has no measured run in common with the other, or runs were measured differently.
    """
    args = build_parser().parse_args(argv)
    results = [run for run in load_flatness(args.sweep_dir) if run.algorithm in args.methods]
    baseline, method = (
        {(run.hparams_seed, run.trial_seed, *run.test_envs): run for run in results if run.algorithm == name}
        for name in args.methods
    )
    pairs = [(baseline[place], method[place]) for place in sorted(baseline.keys() & method.keys())]
    if not pairs:
        raise UserError(f"no pair of runs of {' and '.join(args.methods)} in {args.sweep_dir}: analyze hessian first")
    _check_alike(results)
    print(f"{len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'}; {_how(results[0])}")
    for role, title in ROLES.items():
        print(f"\n| {title} | {' | '.join(args.methods)} | difference | 95 % interval | lower in | p |")
        print(f"|{' --- |' * 7}")
        for name in FIGURES:
            print(_row(name, pairs, role))
    return 0


def _check_alike(results: Sequence[Flatness]) -> None:
    """Refuse runs whose numbers do not compare.

    Raises:
        UserError: the message names what differs.
    """
    values = {name: dict.fromkeys(str(getattr(run, name)) for run in results) for name in SETTINGS}
    unlike = [f"{name} {', '.join(several)}" for name, several in values.items() if len(several) > 1]
    if unlike:
        raise UserError(
            f"the runs were not measured alike: {'; '.join(unlike)}. Give the runs of one dataset, measured by analyze "
            "hessian with the same flags"
        )


def _value(flatness: Flatness, role: str, name: str) -> float | None:
    """Mean over the run's domains of this role; None where one is not known."""
    value = float(np.mean([FIGURES[name](domain) for domain in flatness.of(role)]))
    return None if math.isnan(value) else value


def _how(flatness: Flatness) -> str:
    size = "up to 256" if flatness.samples is None else str(flatness.samples)
    return f"{size} images of each domain, {flatness.dtype}, rho {flatness.rho}, {flatness.mode}"


def _row(name: str, pairs: Sequence[tuple[Flatness, Flatness]], role: str) -> str:
    """One line, of the pairs in which both values are known."""
    values = [(_value(a, role, name), _value(b, role, name), tuple(a.test_envs)) for a, b in pairs]
    known = [(a, b, environments) for a, b, environments in values if a is not None and b is not None]
    if len(known) < len(pairs):
        name += f" ({len(pairs) - len(known)} of {len(pairs)} pairs did not converge)"
    if not known:
        return f"| {name} |{' - |' * 6}"
    baseline, method, environments = zip(*known, strict=True)
    difference = paired_difference(method, baseline, environments)
    interval = " to ".join(f"{_short(end):+g}" for end in difference.interval) if difference.interval else "-"
    lower = sum(a < b for a, b in zip(method, baseline, strict=True))
    means = " | ".join(
        f"{_short(np.mean(side)):g} ± {_short(np.std(side) / np.sqrt(len(side)), 2):g}" for side in (baseline, method)
    )
    p = "-" if difference.p is None else f"{difference.p:.2g}"
    change = _short(difference.mean or 0.0)
    return f"| {name} | {means} | {change:+g} | {interval} | {lower} of {len(known)} | {p} |"


def _short(value: float, digits: int = 3) -> float:
    """Rounded to so many digits that count."""
    return float(f"{value:.{digits}g}")


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
