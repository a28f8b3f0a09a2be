"""Train one method on one dataset, with DomainBed's flags and files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.cli import run
from domainbed_adm.run_args import RunArgs, add_flags
from domainbed_adm.run_files import CHECKPOINT, ExitCode
from domainbed_adm.system.console import Parser
from domainbed_adm.system.disk import LockedError, run_lock
from domainbed_adm.system.process import terminate_as_interrupt

EXAMPLES = """\
  domainbed-adm train --dataset RotatedDigits --algorithm SAM_SSPL_ADM --test_envs 0 --output_dir results/one
  domainbed-adm train --dataset PACS --data_dir ~/data --algorithm SAM_SSPL_ADM --test_envs 3 \\
      --hparams '{"resnet18": true, "rho": 0.1}' --output_dir results/sketch
  domainbed-adm train --dataset RotatedDigits --algorithm FSAM --devices 2 --output_dir results/two_devices
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


def parse(argv: Sequence[str]) -> RunArgs:
    """The flags given, over the defaults."""
    flags = vars(build_parser().parse_args(argv))
    return RunArgs(**{**flags, "test_envs": tuple(flags["test_envs"])})


def main(argv: Sequence[str]) -> int:
    """Run with these flags; returns the exit code, 75 where another process trains in the folder.

    Raises:
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    args = parse(argv)
    folder = Path(args.output_dir)
    try:
        with terminate_as_interrupt(), run_lock(folder, needed=False):
            try:
                _train(args, folder)
            except KeyboardInterrupt:
                from domainbed_adm.training.resume import saved_step

                kept = (folder / CHECKPOINT).exists()
                begins = f"goes on from step {saved_step(folder / CHECKPOINT)}" if kept else "begins again"
                raise KeyboardInterrupt(f"the same command {begins}") from None
    except LockedError as error:
        print(f"domainbed-adm: error: {error}", file=sys.stderr)
        return ExitCode.LOCKED
    return ExitCode.DONE


def _train(args: RunArgs, folder: Path) -> None:
    # imported after parsing: --help loads no torch, nor does a process that only watches those that train
    if args.devices > 1:
        from domainbed_adm.training.supervision import train_on_devices

        train_on_devices(args)
    else:
        from domainbed_adm.training.loop import train
        from domainbed_adm.training.setup import set_up

        train(set_up(args), folder, args.restart)


if __name__ == "__main__":
    sys.exit(run(main, sys.argv[1:]))
