"""Train one method on one dataset, with DomainBed's flags and files."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from domainbed_adm.cli import run
from domainbed_adm.run_args import RunArgs, add_flags
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.console import Parser
from domainbed_adm.system.disk import LockedError
from domainbed_adm.training.start import start

EXAMPLES = """\
  domainbed-adm train --dataset RotatedDigits --algorithm SAM_SSPL_ADM --test_envs 0 --output_dir results/one
  domainbed-adm train --dataset PACS --data_dir ~/data --algorithm SAM_SSPL_ADM --test_envs 3 \\
      --hparams '{"resnet18": true, "rho": 0.1}' --output_dir results/sketch
  domainbed-adm train --dataset RotatedDigits --algorithm FSAM --devices 2 --output_dir results/two_devices
  domainbed-adm train --dataset RotatedDigits --algorithm SAM --logger csv wandb --output_dir results/logged
  domainbed-adm train --dataset MyPhotos --data_dir ~/data --hparams '{"image_size": 64}' --steps 500
  domainbed-adm train --domainbed DomainBed --algorithm CORAL --dataset RotatedDigits --output_dir results/coral"""


def build_parser() -> Parser:
    """DomainBed's flags, and ours, as ``RunArgs`` describes them."""
    parser = Parser(
        "domainbed-adm train",
        description="Train one method on one dataset with some environments held out, and evaluate on all. The same\n"
        "command again goes on where an interrupted run was, and ends as if it had never stopped.",
        examples=EXAMPLES,
    )
    add_flags(parser)
    return parser


def parse(argv: Sequence[str], raising: bool = False) -> RunArgs:
    """The flags given, over the defaults; ``raising``: a mistake is a UserError, no end of the process."""
    parser = build_parser()
    parser.raising = raising
    flags = vars(parser.parse_args(argv))
    return RunArgs(**{**flags, "test_envs": tuple(flags["test_envs"])})


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code, 75 where another process trains in the folder."""
    try:
        start(parse(argv))
    except LockedError as error:
        print(f"domainbed-adm: error: {error}", file=sys.stderr)
        return ExitCode.LOCKED
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
