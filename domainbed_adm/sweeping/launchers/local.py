"""Launchers that run commands on this machine: ``local``, ``multi_gpu``; and ``dummy``, which prints them.

With ``reuse_processes`` training commands run in one process of each slot, one after another, each in a fork of it (see
``worker``). How they show progress is in ``progress``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from domainbed_adm.errors import UserError
from domainbed_adm.sweeping.launchers.progress import progress
from domainbed_adm.sweeping.pool import Pool
from domainbed_adm.system.process import WORKERS_VARIABLE, cpu_count


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
    skip: Callable[[int], bool] = lambda index: False,
    reuse_processes: bool = False,
    **shown: Any,
) -> list[int]:
    """Run in these slots, each with its share of the CPUs for loading processes; show progress."""
    if WORKERS_VARIABLE not in os.environ:
        slots = [{**slot, WORKERS_VARIABLE: str(cpu_count() // len(slots))} for slot in slots]
    with progress(commands, **shown) as report:
        return [outcome.code for outcome in Pool(slots, reuse_processes).run(commands, report, skip)]
