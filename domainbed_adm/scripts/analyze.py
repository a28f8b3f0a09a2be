"""``analyze``: what a run's model is like, from the files the run left."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from domainbed_adm.analysis.runs import HessianSettings, LandscapeSettings, Settings, find_runs, with_checkpoint
from domainbed_adm.cli import run
from domainbed_adm.datasets.environment_names import number_or_name
from domainbed_adm.errors import UserError
from domainbed_adm.registry import load_checkout
from domainbed_adm.run_args import add_flags
from domainbed_adm.system.console import Parser

Kind = TypeVar("Kind", Settings, HessianSettings, LandscapeSettings)
#: Ranges of the flags.
_LEAST = {"samples": 1, "batch_size": 1, "seed": 0, "threads": 1, "eigenvalues": 1, "max_restarts": 1, "max_vectors": 2}
_LEAST |= {"directions": 2, "points": 3, "plane_points": 3, "thumbnails": 0, "thumbnail_size": 8}
_POSITIVE = ("tolerance", "trace_tolerance", "rho", "radius")
_ODD = ("points", "plane_points")
EXAMPLES = """\
  domainbed-adm analyze hessian results/one
  domainbed-adm analyze hessian results/smoke --algorithms ERM SAM --test_envs 0
  domainbed-adm analyze landscape results/smoke --algorithms ERM SAM --test_envs 0 --output landscape.png
  domainbed-adm analyze difficulty results/smoke --algorithms ERM SAM
  domainbed-adm analyze predictions results/smoke --trial_seed 0"""


def build_parser() -> Parser:
    """One subcommand for each analysis."""
    parser = Parser("domainbed-adm analyze", description="Look at finished runs.", examples=EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    _add_hessian(commands)
    _add_landscape(commands)
    _add_difficulty(commands)
    _add_predictions(commands)
    for command in commands.choices.values():
        add = command.add_argument
        add("runs", nargs="+", type=Path, metavar="RUN", help="output_dir of a run, or of a sweep")
        add("--algorithms", nargs="+", metavar="NAME", help="only runs of these")
        add("--dataset", metavar="NAME", help="only runs on this one")
        about = "only runs that held out just these, by number or name"
        add("--test_envs", type=number_or_name, nargs="+", metavar="ENV", help=about)
        add("--trial_seed", type=int, metavar="N", help="only runs of this trial")
    return parser


def _add_model_flags(parser: Parser) -> None:
    """Which model of each run, and which sample of its data."""
    add, checkpoint = parser.add_argument, "in each run (default model.pkl; model_step<step>.pkl)"
    add("--checkpoint", default=Settings.checkpoint, metavar="FILE", help=checkpoint)
    add("--data_dir", help="folder that holds the datasets (default: where it was in training)")
    samples = (
        "images of each environment (default 48, or all where there are fewer; more give less noise, at their cost)"
    )
    add("--samples", type=int, metavar="N", help=samples)
    batch = "images of each domain in a mini-batch (default: the run's; at least 64 where no BatchNorm minds)"
    add("--batch_size", type=int, metavar="N", help=batch)
    _add_numbers(
        parser,
        Settings,
        seed="of the sample and all random vectors",
        threads="CPU threads; more pay off for large networks on idle cores, and lose on busy ones",
    )
    add("--double", action="store_true", help="compute in float64")
    add_flags(parser, ("domainbed",))


def _add_numbers(parser: Parser, kind: type, **helps: str) -> None:
    """A flag for each of these settings, with its default."""
    for name, text in helps.items():
        default = getattr(kind, name)
        metavar = "N" if isinstance(default, int) else "X"
        text = f"{text} (default {default:g})"
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar=metavar, help=text)


def _add_hessian(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "hessian",
        help="curvature and sharpness of the loss at a checkpoint",
        description="Largest eigenvalues (Lanczos) and trace (Hutchinson) of the Hessian of the loss, and the rise of\n"
        "the loss by one SAM step and by random steps of the same length: for each source domain, all of them pooled,\n"
        "and each test domain, on in-splits without augmentation. The loss is the one training sees, without\n"
        "dropout: BatchNorm normalises by the statistics of each mini-batch, and where frozen by the stored ones. (A\n"
        "mini-batch of one domain is not what training saw: with BatchNorm in training mode look at pooled.) Keeps\n"
        "hessian.json in each run's folder and prints all as a table. Nothing of the run is changed.\n"
        "Says first what it costs. The defaults are coarse, so that it ends (103 s on one core for a run of default\n"
        "hparams on RotatedDigits, 48 images of each domain). Against all 239 images and finer tolerances, on two\n"
        "domains of one ERM run: eigenvalues 8 and 26 % higher, traces 14 % lower and 8 % higher, SAM steps 36 and 1\n"
        "% higher. Finer and slower: --samples N (all images there are), --eigenvalues 5 --tolerance 0.001\n"
        "--max_restarts 100 --trace_tolerance 0.05 --max_vectors 100.",
        examples="  domainbed-adm analyze hessian results/one\n"
        "  domainbed-adm analyze hessian results/smoke --algorithms ERM SAM --output flatness.png\n"
        "  domainbed-adm analyze hessian results/one --checkpoint model_step100.pkl --double --json",
    )
    _add_model_flags(parser)
    _add_numbers(
        parser,
        HessianSettings,
        eigenvalues="how many",
        tolerance="of eigenvalues; below 1e-5 --double",
        max_restarts="of Lanczos",
        trace_tolerance="standard error to aim at, relative to the trace",
        max_vectors="for the trace",
        directions="of the random steps, each both ways",
    )
    add, rho = parser.add_argument, "length of a step (default: the runs' hparam rho; 0.05 where they differ)"
    add("--rho", type=float, metavar="X", help=rho)
    add("--output", type=Path, help="figure to draw, .svg, .png or .pdf (default: none)")
    add("--json", action="store_true", help="print what the files hold as a JSON list")


def _add_landscape(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "landscape",
        help="the loss around a checkpoint, along random directions",
        description="The loss of all source domains and of the test domain along one and over two random directions,\n"
        "normalised by filter (Li et al., NeurIPS 2018), the same for all runs. The loss is that of analyze hessian.\n"
        "Keeps landscape.npz in each run's folder, and draws all. Nothing of the run is changed.",
        examples="  domainbed-adm analyze landscape results/one\n"
        "  domainbed-adm analyze landscape results/smoke --algorithms ERM SAM --test_envs 0 --output landscape.png",
    )
    _add_model_flags(parser)
    _add_numbers(
        parser,
        LandscapeSettings,
        points="along one direction, odd",
        plane_points="along each of two, odd",
        radius="how far, in lengths of the filters",
    )
    output = "figure, .svg, .png or .pdf (default: landscape.svg in the first RUN)"
    parser.add_argument("--output", type=Path, help=output)


def _add_difficulty(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "difficulty",
        help="each difficulty over training: its distribution, and how well it tells samples apart",
        description="Draw what train --trace_difficulty kept: the distribution of each difficulty over training, a\n"
        "column for each method; below, how well each still tells samples apart, and how much of ADM's order its\n"
        "linear estimator keeps. Runs of one method are put together. Prints the first and the last checkpoint.",
        examples="  domainbed-adm analyze difficulty results/smoke --algorithms ERM SAM\n"
        "  domainbed-adm analyze difficulty results/smoke --test_envs 0 --json > difficulty.json",
    )
    parser.add_argument("--output", type=Path, help="figure, .svg, .png or .pdf (default: RUN/difficulty.svg)")
    parser.add_argument("--json", action="store_true", help="print every checkpoint's figures as a JSON list")


def _add_predictions(commands: Any) -> None:
    parser: Parser = commands.add_parser(
        "predictions",
        help="what each model says of each image held out, and how hard each image is",
        description="Classify every image of the environments that each run held out with its model.pkl, in\n"
        "evaluation mode, and score each by every difficulty. Keeps predictions.npz in each run's folder, with\n"
        "thumbnails of the easiest and hardest images, from which `report` shows confusions, accuracy by class and\n"
        "by difficulty, and those images: they then are in the page for whoever reads it. What is there already is\n"
        "not made again. Costs about 6 forward passes of each image. Nothing of the run is changed.",
        examples="  domainbed-adm analyze predictions results/one\n"
        "  domainbed-adm analyze predictions results/smoke --algorithms ERM SAM --trial_seed 0\n"
        "  domainbed-adm analyze predictions results/smoke --thumbnails 0",
    )
    add = parser.add_argument
    add("--data_dir", help="folder that holds the datasets (default: where it was in training)")
    add("--thumbnails", type=int, default=8, metavar="N", help="easiest and hardest images to keep (default 8 of each)")
    add("--thumbnail_size", type=int, default=48, metavar="N", help="their longest side in pixels (default 48)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads of one pass (default 1)")
    add("--again", action="store_true", help="make also what is there already")
    add_flags(parser, ("domainbed",))


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code.

    Raises:
        UserError: a number is out of its range, or what the analysis raises.
    """
    args = build_parser().parse_args(argv)
    if getattr(args, "domainbed", None):
        load_checkout(args.domainbed)
    for name, value in vars(args).items():
        if name in _LEAST and value is not None and value < _LEAST[name]:
            raise UserError(f"--{name} must be at least {_LEAST[name]}, not {value}")
        if name in _POSITIVE and value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} must be in (0, inf), not {value}")
        if name in _ODD and value % 2 == 0:
            raise UserError(f"--{name} must be odd, so that the model itself is one of them, not {value}")
    runs = find_runs(args.runs, args)
    if args.command == "predictions":
        from domainbed_adm.analysis.evaluation import EvaluationSettings
        from domainbed_adm.analysis.predictions import analyze_predictions

        settings = EvaluationSettings(data_dir=args.data_dir, threads=args.threads, again=args.again)
        analyze_predictions(with_checkpoint(runs), settings, args.thumbnails, args.thumbnail_size)
        return 0
    from domainbed_adm.analysis import commands

    if args.command == "hessian":
        commands.analyze_hessian(runs, _taken(Settings, args), _taken(HessianSettings, args), args.output, args.json)
        return 0
    output = args.output or args.runs[0] / f"{args.command}.svg"
    if args.command == "landscape":
        commands.analyze_landscape(runs, _taken(Settings, args), _taken(LandscapeSettings, args), output)
    else:
        commands.analyze_difficulty(runs, output, args.json)
    return 0


def _taken(kind: type[Kind], args: argparse.Namespace) -> Kind:
    """The settings of this kind, each from the flag of its name."""
    return kind(**{name: getattr(args, name) for name in kind.__dataclass_fields__})


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
