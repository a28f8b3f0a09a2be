"""``sweep work``: one worker of a sweep, which takes free jobs until none is left or its time is up."""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError
from domainbed_adm.registry import load_checkout
from domainbed_adm.run_files import PLAN, ExitCode
from domainbed_adm.sweeping import limits
from domainbed_adm.sweeping.flags import (
    add_shared_flags,
    described_sweep,
    is_described,
    job_flags,
    launcher_of,
    parsed,
)
from domainbed_adm.sweeping.jobs import Job, Sweep, check_sweep
from domainbed_adm.sweeping.launch import Launch
from domainbed_adm.sweeping.plan import add_to_plan, planned_jobs, planned_sweeps
from domainbed_adm.system.console import Parser
from domainbed_adm.system.process import terminate_as_interrupt
from domainbed_adm.system.seeding import seed_hash

#: Launchers that run jobs on the worker's own machine.
_HERE = ("local", "multi_gpu")

EXAMPLES = """\
  domainbed-adm sweep launch --sweep paper_dg --data_dir data --output_dir results/paper --plan_only
  domainbed-adm sweep work results/paper --time_limit 3h

exit codes:
  0    nothing is left to take; others may be running jobs still
  75   time or --max_jobs is up, and jobs are left that nobody runs: start it again
  130  told to end by SIGTERM or Ctrl-C; its job has ended, and the next worker goes on from its last checkpoint
  1    a job of this worker failed (sweep status says why)
  2    a mistake in a flag, or data that are not there: nothing has run

any scheduler runs workers, in any number, on machines that share the folder's disk; kill and start them as you like:
  HyperQueue   hq submit --array 1-8 --cpus 2 --resource gpus/nvidia=1 domainbed-adm sweep work results/paper
  Slurm        srun --ntasks 8 domainbed-adm sweep work results/paper --time_limit 4:00:00
  ssh          for host in a b c; do ssh $host domainbed-adm sweep work $PWD/results/paper & done; wait"""


class _TimeIsUp(KeyboardInterrupt):
    """The limit is near: running jobs are told to end."""


def build_parser() -> Parser:
    """The flags: where the sweep is, how long to work, how to run jobs here, and what is run where no plan says it."""
    parser = Parser(
        "domainbed-adm sweep work",
        description="Take the next free job of the sweep's plan, until none is left or time is short, and end; jobs\n"
        " that other workers run are not waited for. The plan is what sweep launch wrote into the folder. Where flags\n"
        "describe a sweep, as for launch, it is that sweep, and is planned where the folder has no plan.",
        examples=EXAMPLES,
    )
    add = parser.add_argument
    about = "of this worker: 3h, 90m, 4:00:00, 1-12:00:00. A running job is told to end 30 s before (or at 9/10 of it)"
    add("--time_limit", metavar="TIME", help=about)
    add("--max_jobs", type=int, metavar="N", help="start so many jobs at most")
    about = "where in the plan to begin, as the k-th of N workers (default: by host and process, which does as well)"
    add("--place", metavar="K/N", help=about)
    add_shared_flags(parser, _HERE)
    return parser


def main(argv: Sequence[str]) -> int:
    """Work; returns the exit code.

    Raises:
        UserError: a flag is wrong, or there is no plan, or another one; nothing has run.
        KeyboardInterrupt: told to end; its text says how to go on.
    """
    start = time.monotonic()
    args = parsed(build_parser(), argv)
    limit = None if args.time_limit is None else limits.seconds(args.time_limit)
    if args.max_jobs is not None and args.max_jobs < 1:
        raise UserError(f"--max_jobs must be at least 1, not {args.max_jobs}")
    if args.command_launcher not in _HERE:
        raise UserError(f"sweep work runs jobs by {' or '.join(_HERE)}, not {args.command_launcher}")
    launcher = partial(launcher_of(args), tell_skipped=False)
    place, folder = _place(args.place), expanded(args.output_dir)
    try:
        with terminate_as_interrupt():
            jobs = _jobs(args, folder, is_described(argv))
            first = int(place * len(jobs))
            working = None if limit is None else limits.working_time(limit)
            launch = Launch(
                jobs[first:] + jobs[:first],
                launcher,
                args.jobs,
                args.retries,
                most=args.max_jobs or float("inf"),
                until=start + (working or float("inf")),
                plan=folder / PLAN,
            )
            with _Alarm(None if working is None else start + working - time.monotonic()):
                code = launch.work()
    except _TimeIsUp:
        code = ExitCode.MORE_TO_DO
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the next worker goes on from the last checkpoint") from None
    print(f"{len(launch.seconds)} jobs done by this worker" + (", and more to do" * (code == ExitCode.MORE_TO_DO)))
    return code


def _jobs(args: argparse.Namespace, folder: Path, described: bool) -> list[Job]:
    """The jobs to take from, of the plan in the folder, which is written where it is described and there is none.

    Raises:
        UserError: there is no plan, or not this one, or its data are not there.
    """
    planned = planned_sweeps(folder)
    if not described:
        if not planned:
            raise UserError(f"{folder} has no {PLAN}: write it by sweep launch --plan_only, or give the launch's flags")
        jobs = planned_jobs(folder)
        if args.domainbed:
            jobs = [replace(job, flags={**job.flags, "domainbed": args.domainbed}) for job in jobs]
        for checkout in {job.flags["domainbed"] for job in jobs if "domainbed" in job.flags}:
            load_checkout(checkout)
        for sweep in planned:
            check_sweep(sweep, needs_data=True)  # else every job would fail, one by one
        return jobs
    sweep = described_sweep(args, needs_data=True)
    if planned and sweep not in planned:
        raise UserError(
            f"{folder / PLAN} plans another sweep ({_difference(planned[-1], sweep)}): give another --output_dir, or "
            "extend the plan by sweep launch --plan_only"
        )
    if not planned:
        add_to_plan(folder, sweep, job_flags(args))
    return planned_jobs(folder, sweep)


def _difference(theirs: Sweep, ours: Sweep) -> str:
    names = [name for name, value in vars(ours).items() if value != vars(theirs)[name]]
    there, here = (vars(sweep)[names[0]] for sweep in (theirs, ours))
    more = f", and {len(names) - 1} flags more" if names[1:] else ""
    return " ".join(f"--{names[0]} {_short(there)} there, {_short(here)} here{more}".split())


def _short(value: object) -> str:
    text = " ".join(value) if isinstance(value, list) else str(value)
    return text if len(text) < 80 else f"{text[:77]}..."


def _place(text: str | None) -> float:
    """Where to begin, as a share of the plan in [0, 1).

    Raises:
        UserError: it is not k/N.
    """
    if text is None:
        return seed_hash(socket.gethostname(), os.getpid()) / 2**31
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
    if not found or not int(found[2]) or int(found[1]) > int(found[2]):
        raise UserError(f"--place must be k/N with k from 0 or 1 to N, such as 3/8, not {text!r}")
    return int(found[1]) % int(found[2]) / int(found[2])


class _Alarm:
    """Within the block, that the time is up is raised; never without a limit, or in another thread than the main."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds if threading.current_thread() is threading.main_thread() else None

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._before = signal.signal(signal.SIGALRM, _raise)
            signal.setitimer(signal.ITIMER_REAL, max(self._seconds, 1e-3))

    def __exit__(self, *error: object) -> None:
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, self._before)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    raise _TimeIsUp
