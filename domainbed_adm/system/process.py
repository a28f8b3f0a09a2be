"""This process: the CPUs that it may use, and being told to end, where SIGTERM and SIGHUP do what Ctrl-C does."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

#: Environment variable with the number of loading processes that a run which another process started may have.
WORKERS_VARIABLE = "DOMAINBED_ADM_WORKERS"
#: What is pressed or sent to end a run.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def cpu_count() -> int:
    """Number of CPUs that this process may use: those of its affinity where the system has one, else all.

    In a job of Slurm never more than the job has on this node, as not every Slurm sets the affinity.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return min(count, max(1, int(given))) if given.isdecimal() else count


@contextlib.contextmanager
def held_back(*numbers: signal.Signals) -> Iterator[None]:
    """While open, these signals wait; they come at the end. Processes started within never hear them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """While open, SIGTERM and SIGHUP raise KeyboardInterrupt, so that files are closed and children ended.

    One that the parent has ignored stays ignored: under ``nohup`` a run outlives the logout.
    """

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out in ``folder``, with ``+`` where files differ from it; None outside a checkout."""

    def git(*command: str) -> str:
        words = ["git", "-C", str(folder), *command]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if not (folder / ".git").exists():
            return None
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
