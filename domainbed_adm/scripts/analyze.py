"""``analyze``: what a run's model is like, from the files the run left."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.system.console import Parser

if TYPE_CHECKING:
    from domainbed_adm.analysis.subject import Settings

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


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Which model of each run, and which sample of its data."""
    add = parser.add_argument
    add(
        "--checkpoint",
        default="model.pkl",
        metavar="FILE",
        help="in each run (default model.pkl; model_step<step>.pkl)",
    )
    add("--data_dir", help="folder that holds the datasets (default: where it was in training)")
    add(
        "--samples",
        type=int,
        metavar="N",
        help="images of each environment (default 256, or all where there are fewer)",
    )
    add(
        "--batch_size",
        type=int,
        metavar="N",
        help="images of each domain in a mini-batch (default: the run's; at least 64 where no BatchNorm minds)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of the sample and all random vectors (default 0)")
    add("--double", action="store_true", help="compute in float64")


def add_hessian(commands: Any) -> None:
    """``hessian``: eigenvalues, trace and sharpness."""
    parser = commands.add_parser(
        "hessian",
        help="curvature and sharpness of the loss at a checkpoint",
        description="Largest eigenvalues (Lanczos) and trace (Hutchinson) of the Hessian of the loss, and the rise of\n"
        "the loss by one SAM step and by random steps of the same length: for each source domain, all of them pooled,\n"
        "and each test domain, on in-splits without augmentation. The loss is the one training sees, without\n"
        "dropout: BatchNorm normalises by the statistics of each mini-batch, and where frozen by the stored ones. (A\n"
        "mini-batch of one domain is not what training saw: with BatchNorm in training mode look at pooled.) Keeps\n"
        "hessian.json in each run's folder and prints all as a table. Nothing of the run is changed.",
        examples="  domainbed-adm analyze hessian results/one\n"
        "  domainbed-adm analyze hessian results/smoke --algorithms ERM SAM --output flatness.png\n"
        "  domainbed-adm analyze hessian results/one --checkpoint model_step100.pkl --double --json",
    )
    add_run_flags(parser)
    add_model_flags(parser)
    add = parser.add_argument
    add("--eigenvalues", type=int, default=5, metavar="N", help="how many (default 5)")
    add("--tolerance", type=float, default=1e-3, metavar="X", help="of eigenvalues; below 1e-5 --double (default 1e-3)")
    add("--max_restarts", type=int, default=100, metavar="N", help="of Lanczos (default 100)")
    add("--trace_tolerance", type=float, default=0.05, metavar="X", help="standard error to stop at (default 0.05)")
    add("--max_vectors", type=int, default=100, metavar="N", help="for the trace (default 100)")
    add("--directions", type=int, default=10, metavar="N", help="of the random steps, each both ways (default 10)")
    add(
        "--rho",
        type=float,
        metavar="X",
        help="length of a step (default: the runs' hparam rho; 0.05 where they differ)",
    )
    add("--output", type=Path, help="figure to draw, .svg, .png or .pdf (default: none)")
    add("--json", action="store_true", help="print what the files hold as a JSON list")
    parser.set_defaults(do=_hessian)


def add_landscape(commands: Any) -> None:
    """``landscape``: the loss along random directions."""
    parser = commands.add_parser(
        "landscape",
        help="the loss around a checkpoint, along random directions",
        description="The loss of all source domains and of the test domain along one and over two random directions,\n"
        "normalised by filter (Li et al., NeurIPS 2018), the same for all runs. The loss is that of analyze hessian.\n"
        "Keeps landscape.npz in each run's folder, and draws all. Nothing of the run is changed.",
        examples="  domainbed-adm analyze landscape results/one\n"
        "  domainbed-adm analyze landscape results/smoke --algorithms ERM SAM --test_envs 0 --output landscape.png",
    )
    add_run_flags(parser)
    add_model_flags(parser)
    add = parser.add_argument
    add("--points", type=int, default=41, metavar="N", help="along one direction, odd (default 41)")
    add("--plane_points", type=int, default=15, metavar="N", help="along each of two, odd (default 15)")
    add("--radius", type=float, default=1.0, metavar="X", help="how far, in lengths of the filters (default 1)")
    add("--output", type=Path, help="figure, .svg, .png or .pdf (default: landscape.svg in the first RUN)")
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


def _settings(args: argparse.Namespace) -> Settings:
    """The flags of :func:`add_model_flags`.

    Raises:
        UserError: one is out of its range.
    """
    _check_at_least(args, 1, "samples", "batch_size")
    _check_at_least(args, 0, "seed")
    from domainbed_adm.analysis.subject import Settings

    return Settings(args.checkpoint, args.data_dir, args.samples, args.batch_size, args.seed, args.double)


def _hessian(args: argparse.Namespace) -> int:
    _check_at_least(args, 1, "eigenvalues", "max_restarts")
    _check_at_least(args, 2, "max_vectors", "directions")
    _check_positive(args, "tolerance", "trace_tolerance", "rho")
    settings, runs = _settings(args), find_runs(args.runs, args)
    from domainbed_adm.analysis.commands import analyze_hessian
    from domainbed_adm.analysis.hessian_measuring import Effort

    effort = Effort(**{name: getattr(args, name) for name in Effort.__dataclass_fields__})
    analyze_hessian(runs, settings, effort, args.rho, args.output, args.json)
    return 0


def _landscape(args: argparse.Namespace) -> int:
    _check_at_least(args, 3, "points", "plane_points")
    _check_positive(args, "radius")
    for name in ("points", "plane_points"):
        if getattr(args, name) % 2 == 0:
            raise UserError(f"--{name} must be odd, so that the model itself is one of them, not {getattr(args, name)}")
    settings, runs = _settings(args), find_runs(args.runs, args)
    from domainbed_adm.analysis.commands import analyze_landscape
    from domainbed_adm.analysis.landscape_measuring import Grid

    grid = Grid(args.points, args.plane_points, args.radius)
    analyze_landscape(runs, settings, grid, args.output or args.runs[0] / "landscape.svg")
    return 0


def _check_at_least(args: argparse.Namespace, least: int, *names: str) -> None:
    """Check flags; None is a default.

    Raises:
        UserError: one is smaller.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, not {value}")


def _check_positive(args: argparse.Namespace, *names: str) -> None:
    """Check flags; None is a default.

    Raises:
        UserError: one is not above 0, or not finite.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} must be in (0, inf), not {value}")


def _difficulty(args: argparse.Namespace) -> int:
    from domainbed_adm.analysis.difficulty import analyze_difficulty

    analyze_difficulty(find_runs(args.runs, args), args.output or args.runs[0] / "difficulty.svg", args.json)
    return 0


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
