"""Command launchers: functions of a list of command strings that return the exit codes, in the same order.

To add one, for a cluster say, write such a function and put it into ``LAUNCHERS``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypedDict

from rich.console import Console

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping.processes import Outcome, Pool
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.system.machine import WORKERS_VARIABLE, cpu_count

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Options(TypedDict, total=False):
    """What a launcher is told beside the commands.

    Attributes:
        labels: name them in progress lines.
        jobs: how many may run at a time.
        skip: to be asked with its index right before a command starts; where it says yes, another process has the job,
            and the command's exit code is 75. A launcher that cannot ask may run all.
        on_end: to be told how each ended as it does; returns what there is to say of it in progress lines, or None. Of
            what a launcher cannot tell so, its exit codes are taken.
    """

    labels: Sequence[str]
    jobs: int
    skip: Callable[[int], bool]
    on_end: Callable[[int, Outcome], str | None]


class Launcher(Protocol):
    """What a launcher is."""

    def __call__(self, commands: Sequence[str], **options: Unpack[Options]) -> list[int]:
        """Run these commands, shell-quoted; what a job's name or folder holds is data."""
        ...


def local(commands: Sequence[str], **options: Unpack[Options]) -> list[int]:
    """Run on this machine, ``jobs`` processes at a time.

    Raises:
        UserError: ``jobs`` is below 1.
    """
    jobs = options.get("jobs", 1)
    if jobs < 1:
        raise UserError(f"--jobs must be at least 1, not {jobs}")
    return _run([{}] * jobs, commands, options)


def multi_gpu(commands: Sequence[str], **options: Unpack[Options]) -> list[int]:
    """Run on this machine, one process on each GPU, whatever ``jobs`` is.

    Raises:
        UserError: no GPU is found.
    """
    return _run([{"CUDA_VISIBLE_DEVICES": name} for name in gpus()], commands, options)


def dummy(commands: Sequence[str], **options: Unpack[Options]) -> list[int]:
    """Run nothing; print each command."""
    for command in commands:
        print(f"Dummy launcher: {command}")
    return [0] * len(commands)


def _ignore(index: int, outcome: Outcome) -> None:
    pass


#: What an exit code is called in progress lines; any other is a failure.
_WORDS = {0: "done  ", ExitCode.LOCKED: "runs elsewhere:"}

#: Launchers by the name that ``--command_launcher`` takes.
LAUNCHERS: dict[str, Launcher] = {"local": local, "multi_gpu": multi_gpu, "dummy": dummy}


def gpus() -> list[str]:
    """GPUs to use: those in ``CUDA_VISIBLE_DEVICES``, or all that ``nvidia-smi`` lists where it is not set.

    Raises:
        UserError: there is none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip() not in {"", "-1"}]
        where = f"CUDA_VISIBLE_DEVICES is {visible!r}"
    else:
        names = [str(i) for i in range(_listed_gpus())]
        where = "nvidia-smi -L lists none"
    if not names:
        raise UserError(f"--command_launcher multi_gpu found no GPU: {where}; use --command_launcher local")
    return names


def _listed_gpus() -> int:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def _run(slots: list[dict[str, str]], commands: Sequence[str], options: Options) -> list[int]:
    """Run in these slots, each with its share of the CPUs for loading processes; show progress."""
    if WORKERS_VARIABLE not in os.environ:
        slots = [{**slot, WORKERS_VARIABLE: str(cpu_count() // len(slots))} for slot in slots]
    labels, on_end = options.get("labels", commands), options.get("on_end", _ignore)
    on_terminal = Console(stderr=True).is_terminal
    done = 0
    with ProgressBar("jobs", len(commands)) as bar:

        def report(index: int, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            why = on_end(index, outcome)
            line = f"{_WORDS.get(outcome.code, 'failed')} {labels[index]} ({outcome.seconds:.1f} s)"
            line += f": {why}" if why else ""
            bar.advance(1, line)
            if not on_terminal:
                width = len(str(len(commands)))
                print(f"[{done:{width}}/{len(commands)}] {line}", flush=True)

        outcomes = Pool(slots).run(commands, report, options.get("skip", lambda index: False))
    return [outcome.code for outcome in outcomes]
