"""Train one method on one dataset, with DomainBed's flags and files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.console import Parser
from domainbed_adm.system.lock import LockedError, run_lock_if_any
from domainbed_adm.system.signals import terminate_as_interrupt

EXAMPLES = """\
  domainbed-adm train --dataset RotatedDigits --algorithm SAM_SSPL_ADM --test_envs 0 --output_dir results/one
  domainbed-adm train --dataset PACS --data_dir ~/data --algorithm SAM_SSPL_ADM --test_envs 3 \\
      --hparams '{"resnet18": true, "rho": 0.1}' --output_dir results/sketch
  domainbed-adm train --dataset MyPhotos --data_dir ~/data --hparams '{"image_size": 64}' --steps 500"""


def build_parser() -> Parser:
    """DomainBed's flags, and ours."""
    parser = Parser(
        "domainbed-adm train",
        description="Train one method on one dataset with some environments held out, and evaluate on all. The same\n"
        "command again goes on where an interrupted run was, and ends as if it had never stopped.",
        examples=EXAMPLES,
    )
    parser.add_argument("--data_dir", help="folder that holds the datasets; not needed for digits")
    parser.add_argument("--dataset", default="RotatedDigits", help="a known name, or a folder in data_dir")
    parser.add_argument("--algorithm", default="ERM", help="see domainbed-adm list algorithms (default ERM)")
    parser.add_argument(
        "--task", default="domain_generalization", choices=["domain_generalization", "domain_adaptation"]
    )
    parser.add_argument("--hparams", help="JSON object of hparams; see domainbed-adm list hparams")
    parser.add_argument("--hparams_seed", type=int, default=0, help="random hparams; 0 means the defaults")
    parser.add_argument("--trial_seed", type=int, default=0, help="seeds the splits and random hparams")
    parser.add_argument("--seed", type=int, default=0, help="seeds everything else")
    parser.add_argument("--steps", type=int, help="default: the dataset's")
    parser.add_argument("--checkpoint_freq", type=int, help="evaluate every so many steps; default: the dataset's")
    parser.add_argument("--test_envs", type=int, nargs="+", default=[0], help="environments held out (default 0)")
    parser.add_argument("--output_dir", default="train_output")
    parser.add_argument("--holdout_fraction", type=float, default=0.2, help="share of each out-split (default 0.2)")
    parser.add_argument("--uda_holdout_fraction", type=float, default=0.0, help="unlabeled share of test environments")
    parser.add_argument("--skip_model_save", action="store_true")
    parser.add_argument("--save_model_every_checkpoint", action="store_true")
    parser.add_argument("--workers", type=int, help="loading processes in all, at most one per CPU (default: fitting)")
    parser.add_argument(
        "--checkpoint_every",
        type=int,
        help="save the run every so many steps, to go on from (default: each evaluation)",
    )
    parser.add_argument("--restart", action="store_true", help="begin anew where output_dir holds a run")
    parser.add_argument(
        "--trace_difficulty",
        type=int,
        nargs="?",
        const=True,
        metavar="IMAGES",
        help="score so many training images (256 where no number is given) with every difficulty at each evaluation, "
        "into difficulty.npz; training does not change",
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write scalars, and histograms of the traced difficulties, to output_dir/tensorboard",
    )
    return parser


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code, 75 where another process trains in the folder."""
    args = build_parser().parse_args(argv)
    try:
        with terminate_as_interrupt(), run_lock_if_any(Path(args.output_dir)):
            _train(args)
    except LockedError as error:
        print(f"domainbed-adm: error: {error}", file=sys.stderr)
        return ExitCode.LOCKED
    return ExitCode.DONE


def _train(args: argparse.Namespace) -> None:
    from domainbed_adm.training.loop import train  # after parsing and locking: --help loads no torch
    from domainbed_adm.training.observers import Watch
    from domainbed_adm.training.setup import set_up

    restart, watch = args.restart, Watch(args.trace_difficulty, args.tensorboard)
    del args.restart, args.trace_difficulty, args.tensorboard  # how to start and what to show, not what the run is
    train(set_up(args), Path(args.output_dir), restart, watch)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
