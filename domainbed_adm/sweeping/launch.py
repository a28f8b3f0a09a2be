"""Run the jobs of a sweep until each is done or has failed for good, beside other launchers on the same folder.

Who runs a job is settled by the lock of its folder, which ``train`` holds. Jobs that other processes hold are left
alone; at the end they are waited for, and taken over where their process ended before they did.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from domainbed_adm import records, run_files
from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.jobs import DONE, FAILED, RUNNING, Job, with_states
from domainbed_adm.sweeping.pool import Outcome
from domainbed_adm.system.console import printable, warn

#: Seconds until the next look at jobs that other processes run: at first, and at most, as each look doubles it.
POLL, LONGEST_POLL = 1.0, 60.0


class Launch:
    """One launch of a sweep's jobs by a launcher that may run so many commands (``slots``) at a time.

    A job that failed is tried again in this launch as often as ``retries`` says; one that failed in an earlier launch
    counts as not tried yet.
    """

    def __init__(self, jobs: Sequence[Job], launcher: Callable[..., list[int]], slots: int, retries: int) -> None:
        self._jobs, self._launcher, self._slots, self._retries = jobs, launcher, slots, retries
        self._attempts = {job.name: _attempts(job) for job, state in with_states(jobs) if state in {FAILED, RUNNING}}
        self._tries: Counter[str] = Counter()
        self._over: set[str] = set()
        self._given_up: set[str] = set()
        #: Seconds that those jobs took which this launch has run to their end, by name.
        self.seconds: dict[str, float] = {}

    def run(self) -> int:
        """Run; return 1 where a job has failed, else 0."""
        pending, wait, announced = self._jobs, POLL, False
        while True:
            unsettled = [(job, state) for job, state in with_states(pending) if not self._is_settled(job, state)]
            pending, ready = [job for job, _ in unsettled], [job for job, state in unsettled if state != RUNNING]
            if not pending:
                return self._report()
            if ready and self._run(ready):
                wait = POLL
                continue
            if not announced:
                announced = True
                print(f"waiting for {len(pending)} jobs that other processes run", flush=True)
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_POLL)

    def _is_settled(self, job: Job, state: str) -> bool:
        """Whether it is done, or has failed for good, or in another launcher, which may try it again."""
        if job.name in self._over or state == DONE:
            return True
        return state == FAILED and _attempts(job) > self._attempts.get(job.name, 0)

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
            state = ready[index].state
            return state == RUNNING or self._is_settled(ready[index], state)

        commands, labels = [job.command for job in ready], [job.label for job in ready]
        codes = self._launcher(commands, labels=labels, jobs=self._slots, skip=skip, on_end=on_end)
        for index, code in enumerate(codes):
            if index not in told:
                self._end(ready[index], Outcome(code, _errors(ready[index]), 0.0))
        return any(code != ExitCode.LOCKED for code in codes)

    def _end(self, job: Job, outcome: Outcome) -> str | None:
        """Note how a job's attempt ended; return why it failed, and the file that says more."""
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
        return ExitCode.RETRY if failed else ExitCode.DONE


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
