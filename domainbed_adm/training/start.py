"""Start a run: hold its folder, and train in this process, or in one for each device. Loads no torch until it does."""

from __future__ import annotations

from pathlib import Path

from domainbed_adm.run_args import RunArgs
from domainbed_adm.run_files import CHECKPOINT
from domainbed_adm.system.disk import run_lock
from domainbed_adm.system.process import terminate_as_interrupt


def start(args: RunArgs) -> None:
    """Train the run that these flags describe, to its end; one that was broken off goes on.

    Raises:
        LockedError: another process trains in the folder.
        UserError: as ``loop.train`` and ``setup.set_up`` raise it.
        NonFiniteError: a number is not finite.
        LoadingError: a process that loads data was killed.
        KeyboardInterrupt: interrupted; its text says how to go on.
    """
    folder = Path(args.output_dir)
    with terminate_as_interrupt(), run_lock(folder, needed=False):
        try:
            _train(args, folder)
        except KeyboardInterrupt:
            from domainbed_adm.training.resume import saved_step

            kept = (folder / CHECKPOINT).exists()
            begins = f"goes on from step {saved_step(folder / CHECKPOINT)}" if kept else "begins again"
            raise KeyboardInterrupt(f"the same command {begins}") from None


def _train(args: RunArgs, folder: Path) -> None:
    # imported late: a process that only watches those that train loads no torch
    if args.devices > 1:
        from domainbed_adm.training.supervision import train_on_devices

        train_on_devices(args)
    else:
        from domainbed_adm.training.loop import train
        from domainbed_adm.training.setup import set_up

        train(set_up(args), folder, args.restart)
