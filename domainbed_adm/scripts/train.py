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
  domainbed-adm train --config run.yaml --seed 1 --output_dir results/seed_1
  domainbed-adm train --domainbed DomainBed --algorithm CORAL --dataset RotatedDigits --output_dir results/coral"""


_ABOUT_CONFIG = (
    "a YAML file of these flags, a line each (steps: 500), hparams as a mapping; or the folder of a run, to repeat it. "
    "Flags that are given override it"
)


def build_parser() -> Parser:
    """DomainBed's flags, and ours, as ``RunArgs`` describes them."""
    parser = Parser(
        "domainbed-adm train",
        description="Train one method on one dataset with some environments held out, and evaluate on all. The same\n"
        "command again goes on where an interrupted run was, and ends as if it had never stopped.",
        examples=EXAMPLES,
    )
    parser.add_argument("--config", metavar="FILE", help=_ABOUT_CONFIG)
    add_flags(parser, negatable=True)
    return parser


def parse(argv: Sequence[str], raising: bool = False) -> RunArgs:
    """The flags given, over those of a config, over the defaults; ``raising``: a mistake is a UserError."""
    parser = build_parser()
    parser.raising = raising
    flags = vars(parser.parse_args(argv))
    if config := flags.pop("config"):
        from domainbed_adm.run_config import config_words

        words = config_words(config)
        for given, other in (("steps", "--epochs"), ("epochs", "--steps")):  # both say how long to train
            if flags[given] and other in words:
                del words[words.index(other) : words.index(other) + 2]
        flags = vars(parser.parse_args([*words, *argv]))
        del flags["config"]
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
