"""Flatness of two methods, paired run by run: reads what ``analyze hessian`` left in a sweep's runs, prints Markdown.

Pairs are runs of the same trial and test environment. The interval and p are those of ``collect_results --compare``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domainbed_adm.analysis.flatness import DomainFlatness, Flatness, load_flatness
from domainbed_adm.cli import run
from domainbed_adm.console import Parser
from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.comparison import paired_difference

EXAMPLES = "  python -m benchmarks.flatness results/flatness ERM SAM"

FIGURES = {
    "loss": lambda domain: domain.loss,
    "accuracy (%)": lambda domain: 100 * domain.accuracy,
    "largest eigenvalue": lambda domain: domain.eigenvalues[0],
    "trace": lambda domain: domain.trace,
    "rho-sharpness": lambda domain: domain.sharpness,
    "random rise": lambda domain: domain.random_rise,
}
ROLES = {"pooled": "source domains, pooled", "test": "test domain"}


def build_parser() -> Parser:
    """The flags."""
    parser = Parser("python -m benchmarks.flatness", description=__doc__, examples=EXAMPLES)
    parser.add_argument("sweep_dir", type=Path)
    parser.add_argument("methods", nargs=2, metavar="METHOD", help="the baseline, and what is compared with it")
    return parser


def main(argv: Sequence[str]) -> int:
    """Print one table for each role.

    Raises:
        UserError: a method has no measured run in common with the other.
    """
    args = build_parser().parse_args(argv)
    found = [one for one in load_flatness(args.sweep_dir) if one.algorithm in args.methods]
    runs = {(one.algorithm, one.trial_seed, *one.test_envs): one for one in found}
    places = sorted({key[1:] for key in runs if all((method, *key[1:]) in runs for method in args.methods)})
    if not places:
        raise UserError(f"no pair of runs of {' and '.join(args.methods)} in {args.sweep_dir}: analyze hessian first")
    print(f"{len(places)} pairs; {_how(found[0])}")
    for role, title in ROLES.items():
        print(f"\n| {title} | {' | '.join(args.methods)} | difference | 95 % interval | lower in | p |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name, figure in FIGURES.items():
            pair = [[figure(_domain(runs[(method, *place)], role)) for place in places] for method in args.methods]
            print(_row(name, *pair))
    return 0


def _domain(found: Flatness, role: str) -> DomainFlatness:
    return found.of(role)[0]


def _how(found: Flatness) -> str:
    size = "up to 256" if found.samples is None else str(found.samples)
    return f"{size} images of each domain, {found.dtype}, rho {found.rho}, {found.mode}"


def _row(name: str, baseline: list[float], method: list[float]) -> str:
    difference = paired_difference(method, baseline)
    interval = "-" if difference.interval is None else "{:+.3g} to {:+.3g}".format(*difference.interval)
    lower = sum(a < b for a, b in zip(method, baseline, strict=True))
    means = " | ".join(
        f"{np.mean(values):.3g} ± {np.std(values) / np.sqrt(len(values)):.2g}" for values in (baseline, method)
    )
    return f"| {name} | {means} | {difference.mean:+.3g} | {interval} | {lower} of {len(method)} | {difference.p:.2g} |"


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
