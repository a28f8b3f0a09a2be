"""Run the jobs of a sweep that are free: until each is done or has failed for good, or until this worker's time is up.

The sweep's folder is the queue. Who starts a job is settled by a claim, and who trains it by the lock of its folder,
which ``train`` holds. Jobs that other processes have are left alone. ``sweep launch`` waits for them at the end, and
takes over those whose process ended before they did; ``sweep work`` ends.
"""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import overload

from domainbed_adm import records, run_files
from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.claims import Claims
from domainbed_adm.sweeping.jobs import DONE, FAILED, RUNNING, Job, with_states
from domainbed_adm.sweeping.pool import INTERRUPTIONS, Outcome
from domainbed_adm.system.console import printable, warn

#: Seconds until the next look at jobs that other processes run: at first, and at most, as each look doubles it.
POLL, LONGEST_POLL = 1.0, 60.0


class Launch:
    """One launch of a sweep's jobs by a launcher that may run so many commands (``slots``) at a time; or a worker.

    A job that failed is tried again in this launch as often as ``retries`` says; one that failed in an earlier launch
    counts as not tried yet. One that was told to end, by someone else than this launch, has not failed: it is left as
    it is.

    Args:
        jobs: in the order to take them.
        launcher: see ``launchers``.
        slots: how many commands it may run at a time.
        retries: of a job that fails.
        most: how many jobs to start at most, each try counted.
        until: ``time.monotonic()`` from which no job is started.
        plan: the file that the last launch wrote: what has failed since then has been tried, by another worker.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        launcher: Callable[..., Sequence[int] | None],
        slots: int,
        retries: int,
        *,
        most: float = math.inf,
        until: float = math.inf,
        plan: Path | None = None,
    ) -> None:
        self._jobs, self._launcher, self._slots, self._retries = jobs, launcher, slots, retries
        self._claims = {folder: Claims(folder) for folder in {job.sweep_dir for job in jobs}}
        self._most, self._until, self._started, self._starting = most, until, 0, threading.Lock()
        self._attempts: dict[str, int] = {}
        self._tries: Counter[str] = Counter()
        self._over: set[str] = set()
        self._given_up: set[str] = set()
        self._interrupted: set[str] = set()
        self._handed_over = False
        #: Whether a job was free that this launch did not start, as its time or its number of jobs was up.
        self.left = False
        #: Seconds that those jobs took which this launch has run to their end, by name.
        self.seconds: dict[str, float] = {}
        written = plan.stat().st_mtime if plan and plan.exists() else math.inf
        self._now = with_states(jobs)  # the first look serves the first round as well
        for job, state in self._now:
            if state in {FAILED, RUNNING}:
                self._attempts[job.name] = _attempts(job)
            if state == FAILED and _failed_at(job) > written:
                self._over.add(job.name)

    def run(self) -> int:
        """Run, and wait for what others run; return 1 where a job has failed, 130 where one was told to end, else 0.

        Of a launcher that has handed its commands over to a scheduler, nothing more is known: it returns 0.
        """
        wait, announced = POLL, False
        while True:
            pending = self._pending()
            ready = [job for job, state in pending if state != RUNNING]
            if not pending:
                return self._report()
            if ready and self._run(ready):
                wait = POLL
                continue
            if self._handed_over:
                print(f"{len(ready)} jobs are handed over: sweep status tells how far they are")
                return ExitCode.DONE
            if not announced:
                announced = True
                print(f"waiting for {len(pending)} jobs that other processes run", flush=True)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_POLL)

    def work(self) -> int:
        """Run what is free, wait for nobody; return 75 where free jobs are left, else as ``run``, of its own jobs."""
        while (ready := [job for job, state in self._pending() if state != RUNNING]) and self._run(ready):
            pass
        if self.left:
            return ExitCode.MORE_TO_DO
        if self._interrupted:
            return ExitCode.INTERRUPTED
        return ExitCode.RETRY if self._given_up else ExitCode.DONE

    def _pending(self) -> list[tuple[Job, str]]:
        """Jobs that are not settled, and their states now."""
        now = self._now or with_states([job for job in self._jobs if job.name not in self._over])
        self._now = []
        pending = []
        for job, state in now:
            if self._is_settled(job, state):
                self._over.add(job.name)
            else:
                pending.append((job, state))
        return pending

    def _is_settled(self, job: Job, state: str) -> bool:
        """Whether it is done, or has failed for good, or in another launcher, which may try it again."""
        if job.name in self._over or state == DONE:
            return True
        return state == FAILED and _attempts(job) > self._attempts.get(job.name, 0)

    def _is_free(self, job: Job) -> bool:
        """Claim it; False where another process has it, or it is settled by now."""
        claims = self._claims[job.sweep_dir]
        if os.path.exists(f"{job.sweep_dir}/{job.name}/{run_files.DONE}"):  # noqa: PTH110 - of the most jobs, and faster
            self._over.add(job.name)
            return False
        if not claims.take(job.name):
            return False
        state = job.state  # asked after the claim: whoever had it before has left it in this state
        settled = self._is_settled(job, state)
        if settled:
            self._over.add(job.name)
        if state == RUNNING or settled:
            claims.drop(job.name)
            return False
        return True

    def _takes(self, job: Job) -> bool:
        """Claim a job to start it now; False where it is not free, or this launch starts no more."""
        with self._starting:
            if self.left or not self._is_free(job):
                return False
            if self._started < self._most and time.monotonic() < self._until:
                self._started += 1
                return True
            self.left = True
            self._claims[job.sweep_dir].drop(job.name)
            return False

    def _run(self, ready: list[Job]) -> bool:
        """Run these jobs; False where other processes have begun them all."""
        again = sum(self._tries[job.name] > 0 for job in ready)
        if again:
            print(f"trying {again} jobs again that failed", flush=True)
        told: set[int] = set()

        def on_end(index: int, outcome: Outcome) -> str | None:
            told.add(index)
            return self._end(ready[index], outcome)

        def skip(index: int) -> bool:
            return not self._takes(ready[index])

        commands, labels = _Each(ready, lambda job: job.command), _Each(ready, lambda job: job.label)
        try:
            codes = self._launcher(commands, labels=labels, jobs=self._slots, skip=skip, on_end=on_end)
        finally:
            for claims in self._claims.values():
                claims.close()
        self._handed_over = codes is None and len(told) < len(ready)
        for index, code in enumerate(codes or ()):
            if index not in told:
                self._end(ready[index], Outcome(code, _errors(ready[index]), 0.0))
        return not self._handed_over and any(code != ExitCode.LOCKED for code in codes or ())

    def _end(self, job: Job, outcome: Outcome) -> str | None:
        """Note how a job's attempt ended; return why it failed, and the file that says more."""
        try:
            return self._note(job, outcome)
        finally:  # not before: who claims it next finds how it ended
            self._claims[job.sweep_dir].drop(job.name)

    def _note(self, job: Job, outcome: Outcome) -> str | None:
        if outcome.code in INTERRUPTIONS:
            self._over.add(job.name)
            self._interrupted.add(job.name)
            return None
        if outcome.code == ExitCode.DONE:
            self._over.add(job.name)
            self.seconds[job.name] = outcome.seconds
            (job.output_dir / run_files.FAILED).unlink(missing_ok=True)
        if outcome.code in {ExitCode.DONE, ExitCode.LOCKED}:
            return None
        self._tries[job.name] += 1
        self._attempts[job.name] = attempts = self._attempts.get(job.name, 0) + 1
        # a mistake, a full disk, a number that is not finite: another attempt would end so, too
        final = outcome.code in {ExitCode.USER_ERROR, ExitCode.NOT_FINITE}
        if final or self._tries[job.name] > self._retries:
            self._over.add(job.name)
            self._given_up.add(job.name)  # also where failed.json cannot be written
        ended = (outcome.code, outcome.stderr, attempts, job.label)
        reason = printable(failures.failure_of(*ended).reason)
        try:
            failures.write(job.output_dir, *ended)
        except (UserError, OSError) as error:
            warn(f"{job.label} failed ({reason}), and that cannot be noted: {error}")
            return reason
        return f"{reason} ({printable(str(failures.told_in(job.output_dir)))})"

    def taken(self) -> str:
        """One line for people: seconds and GPU memory of the jobs that this launch has run to their end."""
        took = [(job, self.seconds[job.name]) for job in self._jobs if job.name in self.seconds]
        if not took:
            return "no job was run to its end"
        gb = {job.label: max(_memory(job), default=0.0) for job, _ in took}
        most, seconds = max(gb, key=gb.__getitem__), [time_ for _, time_ in took]
        return (
            f"{len(took)} jobs took {sum(seconds) / len(took):.1f} s each ({min(seconds):.1f} to {max(seconds):.1f}), "
            f"and at most {gb[most]:.2f} GiB of GPU memory ({most})"
        )

    def _report(self) -> int:
        now = with_states(self._jobs)
        failed = [job for job, state in now if state == FAILED or (job.name in self._given_up and state != DONE)]
        if failed:
            print(f"{len(failed)} of {len(self._jobs)} jobs failed:", file=sys.stderr)
        for line in failures.failure_lines((job.label, job.output_dir) for job in failed):
            print(f"  {line}", file=sys.stderr)
        interrupted = sum(state != DONE and job.name in self._interrupted for job, state in now)
        if interrupted:
            print(f"{interrupted} jobs were told to end: the same launch goes on", file=sys.stderr)
        return ExitCode.RETRY if failed else ExitCode.INTERRUPTED if interrupted else ExitCode.DONE


class _Each(Sequence[str]):
    """A text of each job, made when it is asked for: those of 67,200 jobs at once take 50 MB."""

    def __init__(self, jobs: Sequence[Job], text: Callable[[Job], str]) -> None:
        self._jobs, self._text = jobs, text

    def __len__(self) -> int:
        return len(self._jobs)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(job) for job in self._jobs[index]]
        return self._text(self._jobs[index])


def _failed_at(job: Job) -> float:
    """When the system wrote ``failed.json``, by the clock of the disk, which machines that share it share as well."""
    try:
        return (job.output_dir / run_files.FAILED).stat().st_mtime
    except OSError:
        return -math.inf


def _attempts(job: Job) -> int:
    failure = failures.read(job.output_dir)
    return failure.attempts if failure else 0


def _memory(job: Job) -> list[float]:
    """Peaks of memory, in GiB, that the job's records have."""
    runs = records.read_runs(job.output_dir / run_files.RESULTS)
    return [value for run in runs for value in run.column("mem_gb").tolist() if value == value]


def _errors(job: Job) -> list[str]:
    """The last lines of a job's err.txt, for launchers that do not see its standard error."""
    path = job.output_dir / run_files.ERR
    return path.read_text(encoding="utf-8", errors="replace").splitlines()[-20:] if path.is_file() else []
