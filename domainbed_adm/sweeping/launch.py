"""Run the jobs of a sweep until each is done or has failed for good, beside other launchers on the same folder.

Who runs a job is settled by the lock of its folder, which ``train`` holds. Jobs that other processes hold are left
alone; at the end they are waited for, and taken over where their process ended before they did.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm import run_files
from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.jobs import DONE, FAILED, RUNNING, Job
from domainbed_adm.sweeping.launchers import Launcher
from domainbed_adm.sweeping.processes import Outcome
from domainbed_adm.system.console import warn

#: Seconds between two looks at jobs that other processes run.
POLL = 1.0
#: Exit codes that a second attempt would end in as well: a mistake or a full disk, and a number that is not finite.
_FINAL = {ExitCode.USER_ERROR, ExitCode.NOT_FINITE}


class Launch:
    """One launch.

    Args:
        jobs: of the sweep.
        launcher: runs commands.
        slots: how many commands it may run at a time.
        retries: how often a job that failed is tried again in this launch; one that failed in an earlier launch counts
            as not tried yet.
    """

    def __init__(self, jobs: Sequence[Job], launcher: Launcher, slots: int, retries: int) -> None:
        self._jobs, self._launcher, self._slots, self._retries = jobs, launcher, slots, retries
        self._known = {job.output_dir: _attempts(job) for job in jobs}
        self._tries: Counter[Path] = Counter()
        self._over: set[Path] = set()
        self._given_up: set[Path] = set()

    def run(self) -> int:
        """Run; return 1 where a job has failed, else 0.

        Raises:
            KeyboardInterrupt: interrupted; the jobs have ended, and go on when launched again.
        """
        announced = False
        while pending := [job for job in self._jobs if not self._is_settled(job)]:
            ready = [job for job in pending if job.state != RUNNING]
            if ready:
                self._run(ready)
            elif not announced:
                announced = True
                print(f"waiting for {len(pending)} jobs that other processes run", flush=True)
            if not ready or any(job.state == RUNNING for job in ready):
                time.sleep(POLL)
        return self._report()

    def _is_settled(self, job: Job) -> bool:
        return job.output_dir in self._over or job.state == DONE or self._failed_elsewhere(job)

    def _failed_elsewhere(self, job: Job) -> bool:
        """Whether another launcher has tried it since this launch began, and may try it again."""
        return _attempts(job) > self._known[job.output_dir] and job.state == FAILED

    def _run(self, ready: list[Job]) -> None:
        again = sum(self._tries[job.output_dir] > 0 for job in ready)
        if again:
            print(f"trying {again} jobs again that failed", flush=True)
        told: set[int] = set()

        def on_end(index: int, outcome: Outcome) -> None:
            told.add(index)
            self._end(ready[index], outcome)

        codes = self._launcher(
            [job.command for job in ready],
            labels=[job.label for job in ready],
            jobs=self._slots,
            skip=lambda index: self._is_settled(ready[index]) or ready[index].state == RUNNING,
            on_end=on_end,
        )
        for index, code in enumerate(codes):
            if index not in told:
                self._end(ready[index], Outcome(code, _errors(ready[index]), 0.0))

    def _end(self, job: Job, outcome: Outcome) -> None:
        """Note how a job's attempt ended."""
        folder = job.output_dir
        if outcome.code == ExitCode.LOCKED:
            return
        if outcome.code == 0:
            self._over.add(folder)
            failures.clear(folder)
            return
        self._tries[folder] += 1
        self._known[folder] += 1
        ended = (outcome.code, outcome.stderr, self._known[folder], job.label)
        try:
            failures.write(folder, *ended)
        except (UserError, OSError) as error:
            warn(f"{job.label} failed ({failures.failure_of(*ended).reason}), and that cannot be noted: {error}")
        if outcome.code in _FINAL or self._tries[folder] > self._retries:
            self._over.add(folder)
            self._given_up.add(folder)  # also where failed.json could not be written

    def _report(self) -> int:
        failed = [
            job for job in self._jobs if job.state == FAILED or (job.output_dir in self._given_up and job.state != DONE)
        ]
        if failed:
            print(f"{len(failed)} of {len(self._jobs)} jobs failed:", file=sys.stderr)
        for job in failed:
            print(f"  {failure_line(job)}", file=sys.stderr)
        return int(bool(failed))


def failure_line(job: Job) -> str:
    """A failed job and why, in one line."""
    return f"{job.label}: {job.failure.reason if job.failure else 'unknown'} ({job.output_dir / run_files.FAILED})"


def _attempts(job: Job) -> int:
    failure = job.failure
    return failure.attempts if failure else 0


def _errors(job: Job) -> list[str]:
    """The last lines of a job's err.txt, for launchers that do not see its standard error."""
    path = job.output_dir / run_files.ERR
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-20:] if path.is_file() else []
