"""The launcher ``slurm``, ``sweep cancel``, and what ``sweep status`` tells of a sweep's array."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from domainbed_adm.errors import UserError
from domainbed_adm.run_args import words
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping.launchers import slurm_array, slurm_options
from domainbed_adm.system.console import printable, warn
from domainbed_adm.system.process import terminate_as_interrupt

#: Seconds between looks at what is followed: at first, and at most, as it doubles while nothing happens.
POLL, LONGEST_POLL = 0.5, 15.0
#: Seconds after which is told again who works, where that has changed.
_SILENCE = 30.0


def check(slurm: str | None = None, slurm_file: str | None = None) -> None:
    """Whether there is a Slurm here, and the options are well-formed and name partitions that it has."""
    slurm_array.check(slurm_options.read_options(slurm, slurm_file))


def launch(
    commands: Sequence[str],
    folder: Path | None = None,
    follow: Callable[[], int] | None = None,
    slurm: str | None = None,
    slurm_file: str | None = None,
    wait: bool = False,
) -> list[int] | None:
    """Submit one array with a task for each command, and say so; nothing where one works on ``folder`` already.

    With ``wait`` it returns when no task is left or ``follow`` says that nothing is to be done any more.

    Raises:
        UserError: there is no Slurm here, or it refuses; nothing has been submitted.
        KeyboardInterrupt: told to end; the array goes on.
    """
    if not commands:
        return []
    options = slurm_options.read_options(slurm, slurm_file)
    array = slurm_array.submit(commands, folder, options, slurm_array.check(options, len(commands)))
    try:
        with terminate_as_interrupt():
            if array:
                where = f" on cluster {array.cluster}" * bool(array.cluster)
                print(f"Submitted array {array.id}{where}: {array.tasks} task{'s' * (array.tasks > 1)}")
            elif folder:
                there = slurm_array.described(slurm_array.tasks(folder))
                print(f"Nothing submitted, as workers are there already ({there})")
            if folder:
                end = shlex.join(["domainbed-adm", "sweep", "cancel", *words({"output_dir": folder})])
                print(f"What they say: {folder / slurm_array.LOGS}. To end them: {end}", flush=True)
            if not (wait and folder and follow):
                return None
            if _follow(folder, follow) and (why := slurm_array.last_words(folder)):
                warn(f"a worker could not work: {why}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the array goes on; the same launch follows it, sweep cancel ends it") from None
    return [ExitCode.DONE] * len(commands)


def _follow(folder: Path, follow: Callable[[], int]) -> int:
    """Follow until nothing is left to do, or nobody works any more; returns what is left."""
    wait, told, told_at, left = POLL, "", 0.0, -1
    while True:
        try:
            now = slurm_array.tasks(folder)  # before the jobs: what a worker did before it ended is seen below
            working = slurm_array.described(now) if now else ""
        except UserError as error:  # a controller may be away for a while
            warn(f"{error}; asking again")
            working = told or "unknown"
        if working and working != told and time.monotonic() - told_at > _SILENCE * bool(told):
            print(working, flush=True)
            told, told_at = working, time.monotonic()
        before, left = left, follow()
        if not left or not working:
            return left
        wait = POLL if left != before else min(2 * wait, LONGEST_POLL)
        time.sleep(wait)


def cancel(folder: Path) -> None:
    """End the sweep's tasks for good, each run at its last checkpoint, and say so."""
    now = slurm_array.cancel(folder)
    there = (
        f"Cancelled {slurm_array.described(now)}" if now else f"Nothing to cancel: no task waits or runs for {folder}"
    )
    print(printable(there))


def show_whereabouts(folder: Path) -> None:
    """Print what waits and runs, and where, of the array that was submitted for a sweep, if one was."""
    array = slurm_array.submitted(folder)
    if array is None:
        return
    try:
        now = slurm_array.tasks(folder)
        told = slurm_array.described(now) if now else f"array {array.id} has ended"
    except UserError as error:
        told = f"array {array.id} on cluster {array.cluster}, of which nothing can be told here: {error}"
    print(printable(f"Slurm: {told} (submitted {array.submitted})"))
