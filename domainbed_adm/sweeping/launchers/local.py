"""Launchers that run commands on this machine: ``local``, ``multi_gpu``; and ``dummy``, which prints them.

With ``reuse_processes`` training commands run in one process of each slot, one after another, each in a fork of it (see
``worker``). ``tell_skipped`` says whether what is skipped has a progress line.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping.pool import SKIPPED, Outcome, Pool
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.system.process import WORKERS_VARIABLE, cpu_count

#: What an exit code is called in progress lines; any other is a failure.
_WORDS = {0: "done  ", ExitCode.LOCKED: "runs elsewhere:"}


def local(commands: Sequence[str], jobs: int = 1, **options: Any) -> list[int]:
    """Run on this machine, ``jobs`` processes at a time."""
    return _run([{}] * jobs, commands, **options)


def multi_gpu(commands: Sequence[str], jobs: int = 1, jobs_per_gpu: int = 1, **options: Any) -> list[int]:
    """Run on this machine, ``jobs_per_gpu`` processes on each GPU, whatever ``jobs`` is; each sees its GPU alone."""
    return _run([{"CUDA_VISIBLE_DEVICES": name} for name in gpus() * jobs_per_gpu], commands, **options)


def dummy(commands: Sequence[str], **options: Any) -> list[int]:
    """Run nothing; print each command."""
    for command in commands:
        print(f"Dummy launcher: {command}")
    return [0] * len(commands)


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
        tool = shutil.which("nvidia-smi")
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout if tool else ""
        names = [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
        where = "nvidia-smi -L lists none"
    if not names:
        raise UserError(f"--command_launcher multi_gpu found no GPU: {where}; use --command_launcher local")
    return names


def _run(
    slots: list[dict[str, str]],
    commands: Sequence[str],
    labels: Sequence[str] = (),
    skip: Callable[[int], bool] = lambda index: False,
    on_end: Callable[[int, Outcome], str | None] = lambda index, outcome: None,
    reuse_processes: bool = False,
    tell_skipped: bool = True,
) -> list[int]:
    """Run in these slots, each with its share of the CPUs for loading processes; show progress."""
    if WORKERS_VARIABLE not in os.environ:
        slots = [{**slot, WORKERS_VARIABLE: str(cpu_count() // len(slots))} for slot in slots]
    on_terminal, width, done = Console(stderr=True).is_terminal, len(str(len(commands))), 0
    with ProgressBar("jobs", len(commands)) as bar:

        def report(index: int, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            why, label = on_end(index, outcome), (labels or commands)[index]
            line = f"{_WORDS.get(outcome.code, 'failed')} {label} ({outcome.seconds:.1f} s)"
            line += f": {why}" if why else ""
            bar.advance(1, line)
            if not on_terminal and (tell_skipped or outcome != SKIPPED):
                print(f"[{done:{width}}/{len(commands)}] {line}", flush=True)

        return [outcome.code for outcome in Pool(slots, reuse_processes).run(commands, report, skip)]
