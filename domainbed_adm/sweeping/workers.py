"""Start workers elsewhere, by a launcher that takes them, and follow the jobs that they end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm.run_args import words
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.jobs import DONE, FAILED, Job, with_states
from domainbed_adm.sweeping.launchers import Start
from domainbed_adm.sweeping.status import summary
from domainbed_adm.system.console import printable

_WORDS = {DONE: "done  ", FAILED: "failed"}


def worker_command(folder: Path, place: str | None = None, retries: int = 1, reuse: bool = False) -> str:
    """The shell command of a worker of the plan in ``folder``; without a ``place`` it is the same for all."""
    flags = {"output_dir": folder.absolute(), "place": place, "retries": retries, "reuse_processes": reuse}
    return shlex.join([sys.executable, "-m", "domainbed_adm.scripts.sweep", "work", *words(flags)])


def start_workers(
    launcher: Start, folder: Path, jobs: Sequence[Job], count: int, retries: int, reuse: bool = False
) -> int:
    """Start so many workers; return 0 where the launcher only handed them over, or all jobs are done by now.

    Else 1 where a job has failed, or the workers have ended and left jobs.
    """
    if not count:
        return ExitCode.DONE
    places = [f"{k}/{count}" for k in range(1, count + 1)]
    follower = Follower(jobs)
    commands = [worker_command(folder, place, retries, reuse) for place in places]
    labels = [f"worker {place}" for place in places]
    codes = launcher(commands, labels=labels, jobs=count, folder=folder, follow=follower.look)
    if codes is None:
        print("the workers are handed over: sweep status tells how far they are")
        return ExitCode.DONE
    follower.look()
    now = with_states(jobs)
    failed = [job for job, state in now if state == FAILED]
    if all(state == DONE for _, state in now):
        return ExitCode.DONE
    print(f"the workers have ended. {summary(now)}", file=sys.stderr)
    for line in failures.failure_lines((job.label, job.output_dir) for job in failed):
        print(f"  {line}", file=sys.stderr)
    return ExitCode.RETRY


class Follower:
    """Tells of jobs as they end, whoever runs them: by looks at the sweep's folder, each at unsettled jobs alone."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._total = len(jobs)
        self._open = {job.name: (job, state) for job, state in with_states(jobs) if state != DONE}

    def look(self) -> int:
        """Print a line for each job that is done or has failed since the last look; return how many are not done."""
        for job, state in with_states([job for job, _ in self._open.values()]):
            before = self._open[job.name][1]
            self._open[job.name] = job, state
            if state == DONE:
                del self._open[job.name]
            if state in _WORDS and state != before:
                done = self._total - len(self._open)
                failure = failures.read(job.output_dir) if state == FAILED else None
                why = f": {failure.reason} ({failures.told_in(job.output_dir)})" if failure else ""
                line = f"{_WORDS[state]} {job.label}{printable(why)}"
                print(f"[{done:{len(str(self._total))}}/{self._total}] {line}", flush=True)
        return len(self._open)
