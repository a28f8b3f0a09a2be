"""``analyze``: what a run's model is like, from the files the run left."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.cli import run
from domainbed_adm.console import Parser

EXAMPLES = """\
  domainbed-adm analyze hessian results/one
  domainbed-adm analyze hessian results/smoke --algorithms ERM SAM --test_envs 0
  domainbed-adm analyze landscape results/smoke --algorithms ERM SAM --test_envs 0 --output landscape.png
  domainbed-adm analyze difficulty results/smoke --algorithms ERM SAM"""


def build_parser() -> Parser:
    """One subcommand for each analysis; each sets ``do``, the function that does it."""
    parser = Parser("domainbed-adm analyze", description="Look at finished runs.", examples=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add_hessian(commands)
    add_landscape(commands)
    add_difficulty(commands)
    return parser


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """The runs to analyse; ``analysis.runs.find_runs`` takes the parsed flags as its filters."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run, or of a sweep")
    parser.add_argument("--algorithms", nargs="+", metavar="NAME", help="only runs of these")
    parser.add_argument("--dataset", metavar="NAME", help="only runs on this one")
    parser.add_argument("--test_envs", type=int, nargs="+", metavar="N", help="only runs that held out just these")
    parser.add_argument("--trial_seed", type=int, metavar="N", help="only runs of this trial")


def add_hessian(commands: Any) -> None:
    """``hessian``: eigenvalues, trace and sharpness."""
    parser = commands.add_parser("hessian", help="curvature and sharpness of the loss at a checkpoint")
    add_run_flags(parser)
    parser.set_defaults(do=_hessian)


def add_landscape(commands: Any) -> None:
    """``landscape``: the loss along random directions."""
    parser = commands.add_parser("landscape", help="the loss around a checkpoint, along random directions")
    add_run_flags(parser)
    parser.set_defaults(do=_landscape)


def add_difficulty(commands: Any) -> None:
    """``difficulty``: what ``train --trace_difficulty`` kept, drawn and counted."""
    parser = commands.add_parser(
        "difficulty",
        help="each difficulty over training: its distribution, and how well it tells samples apart",
        description="Draw what train --trace_difficulty kept: the distribution of Loss, GDM and ADM over training, a\n"
        "column for each method; below, how well each still tells samples apart, and how much of ADM's order its\n"
        "linear estimator keeps. Runs of one method are put together. Prints the first and the last checkpoint.",
        examples="  domainbed-adm analyze difficulty results/smoke --algorithms ERM SAM\n"
        "  domainbed-adm analyze difficulty results/smoke --test_envs 0 --json > difficulty.json",
    )
    add_run_flags(parser)
    parser.add_argument("--output", type=Path, help="figure, .svg, .png or .pdf (default: RUN/difficulty.svg)")
    parser.add_argument("--json", action="store_true", help="print every checkpoint's figures as a JSON list")
    parser.set_defaults(do=_difficulty)


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code."""
    args = build_parser().parse_args(argv)
    code: int = args.do(args)
    return code


def _hessian(args: argparse.Namespace) -> int:
    raise NotImplementedError


def _difficulty(args: argparse.Namespace) -> int:
    from domainbed_adm.analysis.difficulty import analyze_difficulty

    analyze_difficulty(find_runs(args.runs, args), args.output or args.runs[0] / "difficulty.svg", args.json)
    return 0


def _landscape(args: argparse.Namespace) -> int:
    raise NotImplementedError


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
