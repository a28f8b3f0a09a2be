"""``python -m domainbed_adm.sweeping.worker``: runs training commands one after another, each in a fork of itself.

A fork begins with torch imported and nothing else done: its random generators, threads, settings, signal handlers and
standard streams are those of a fresh process, and whatever ends it ends that one job. What jobs share beyond imports
lies in the system's file cache, such as the images of ``train --cache``.

The worker reads a job's words, the flags of ``train``, as one line of JSON; it answers a line with the job's process
id as it starts, and one with its exit code, negative for a signal, as it has ended. It ends where its input does.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import BinaryIO

from domainbed_adm.cli import run
from domainbed_adm.run_files import ExitCode
from domainbed_adm.scripts import train
from domainbed_adm.system.process import held_back

#: What training imports; none of it starts a thread or touches a GPU, so that a fork of the worker is safe.
_PRELOADED = ("domainbed_adm.training.loop", "domainbed_adm.training.resume", "domainbed_adm.training.setup")
#: torch loads the latter, for a second, as it makes an optimizer.
_LATER = ("domainbed_adm.datasets.in_memory", "torch._dynamo")


def serve(requests: BinaryIO, answers: BinaryIO) -> list[str] | None:
    """Run jobs until the requests end. Returns None there; in the fork of each job, at once, the job's words.

    SIGTERM goes on to the job, and the worker ends with it.
    """
    job, told = 0, False

    def end(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told = True
        if not job:
            sys.exit(ExitCode.INTERRUPTED)
        with contextlib.suppress(ProcessLookupError):  # it has ended just now
            os.kill(job, number)

    before = signal.signal(signal.SIGTERM, end)
    for line in requests:
        with held_back(signal.SIGTERM), warnings.catch_warnings():
            # Python warns of threads, which are those of numpy's BLAS: it ends them before a fork.
            warnings.simplefilter("ignore", DeprecationWarning)
            job = os.fork()
            if not job:
                signal.signal(signal.SIGTERM, before)
                os.setsid()  # a group of its own, with all that it starts
                return list(json.loads(line))
            answers.write(b"%d\n" % job)
        code = os.waitstatus_to_exitcode(os.waitpid(job, 0)[1])
        job = 0
        answers.write(b"%d\n" % code)
        if told:
            break
    return None


def main() -> int:
    """Be the worker and, in its forks, ``train``; returns the exit code of whichever it is."""
    for name in (*_PRELOADED, *_LATER):
        importlib.import_module(name)
    # not as standard streams: a job has none of them, as a process that a launcher starts
    with os.fdopen(os.dup(0), "rb") as requests, os.fdopen(os.dup(1), "wb", buffering=0) as answers:
        _to_null(0, 1)
        words = serve(requests, answers)
    return 0 if words is None else run(train.main, words)


def _to_null(*descriptors: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in descriptors:
        os.dup2(null, descriptor)
    os.close(null)


def words_of(command: Sequence[str]) -> list[str] | None:
    """The words of ``train`` in the words of a command, None where it runs something else."""
    train_ = [sys.executable, "-m", train.__name__]
    return list(command[3:]) if list(command[:3]) == train_ else None


if __name__ == "__main__":
    sys.exit(main())
