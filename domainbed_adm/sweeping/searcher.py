"""A searcher: takes trials of a study and trains their jobs, so many at a time, until none is left.

Any number of them may work on one study, on several machines too. A trial's jobs are trained one after another.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import FAILED, PRUNED, RESULTS, ExitCode
from domainbed_adm.sweeping import failures, study
from domainbed_adm.sweeping.jobs import DONE, RUNNING, Job
from domainbed_adm.sweeping.pool import INTERRUPTIONS, Slot, end
from domainbed_adm.sweeping.search import Search, curve, in_words, objective, recorded
from domainbed_adm.sweeping.study import Study, Trial
from domainbed_adm.system.console import ProgressBar, printable
from domainbed_adm.system.disk import replacing
from domainbed_adm.system.process import WORKERS_VARIABLE, cpu_count, terminate_as_interrupt

#: Seconds between two looks at runs of this searcher, and at what others have left.
LOOK, LOOK_AT_OTHERS = 0.2, 2.0


@dataclass
class _Running:
    """A trial that this searcher runs: the jobs of it that are not over, the first of them in ``slot``."""

    trial: Trial
    jobs: list[Job]
    slot: Slot
    todo: list[Job] = field(default_factory=list)
    ended: Future[int] | None = None
    tries: int = 0
    failed: bool = False
    pruned: bool = False
    seen: int = 0  # bytes of its records
    start: float = field(default_factory=time.monotonic)


class Searcher:
    """Runs trials of ``study``, ``slots`` at a time; ``flags`` of ``train`` say how each job is run.

    A job that failed is tried again as often as ``retries`` says. Its trial then fails; where a number was not finite,
    it has the value of what it recorded instead, as ``collect_results`` would count it, so that the sampler learns.
    """

    def __init__(
        self, folder: Path, study_: Study, slots: int, retries: int, flags: dict[str, Any], reuse: bool
    ) -> None:
        self._folder, self._study, self._retries, self._flags = folder, study_, retries, flags
        self._search: Search = study_.search
        self._counts = self._search.sweep.environment_counts()
        self._free = [Slot({WORKERS_VARIABLE: str(cpu_count() // slots)}, reuse) for _ in range(slots)]
        self._running: list[_Running] = []
        self._failures = 0

    def run(self, n_trials: int, wait_for_others: bool = True) -> int:
        """Run until ``n_trials`` are over, or none is left to take; return how many failed here.

        Raises:
            UserError: the first trial cannot run.
            KeyboardInterrupt: interrupted, or told to terminate; trials are left for who comes next.
        """
        slots = list(self._free)
        try:
            with ThreadPoolExecutor(len(slots)) as threads, terminate_as_interrupt():
                try:
                    self._work(n_trials, wait_for_others, threads)
                except BaseException:
                    end([one.slot for one in self._running if one.ended and not one.ended.done()])
                    raise
        finally:
            for one in self._running:
                self._study.let_go(one.trial)
            for slot in slots:
                slot.close()
        return self._failures

    def _work(self, n_trials: int, wait_for_others: bool, threads: ThreadPoolExecutor) -> None:
        over, announced = self._over(), False
        with ProgressBar("trials", n_trials, over) as bar:
            while True:
                while self._free and (trial := self._study.take(n_trials)):
                    jobs = self._search.sweep_of(*trial[:2]).jobs(self._folder, self._flags, self._counts)
                    self._running.append(_Running(trial, jobs, self._free.pop(), list(jobs)))
                if not self._running:
                    others = sum(trial.state == study.RUNNING for trial in self._study.trials())
                    if not (others and wait_for_others):
                        return
                    if not announced:
                        print(f"waiting for {others} trials that other searchers run", flush=True)
                        announced = True
                    time.sleep(LOOK_AT_OTHERS)
                for one in list(self._running):
                    if told := self._look(one, threads):
                        before, over = over, self._over()
                        bar.advance(over - before)
                        print(f"[{over}/{n_trials}] {told}", flush=True)
                futures = [one.ended for one in self._running if one.ended]
                if futures:
                    wait(futures, timeout=LOOK, return_when=FIRST_COMPLETED)
                elif self._running:
                    time.sleep(LOOK)

    def _over(self) -> int:
        return sum(trial.state in {study.COMPLETE, study.PRUNED, study.FAIL} for trial in self._study.trials())

    def _look(self, one: _Running, threads: ThreadPoolExecutor) -> str:
        """See how far a trial is, and go on with it; what there is to say where it is over, else ""."""
        if one.ended and one.ended.done():
            code, one.ended = one.ended.result(), None
            self._judge(one, code)
        if one.ended:
            if self._search.prune and not one.pruned and self._is_hopeless(one):
                one.pruned = True
                one.slot.child.terminate()
            return ""
        if one.todo and not (one.pruned or one.failed):
            job = one.todo[0]
            state = job.state
            if state == DONE:
                one.todo.pop(0)
                one.tries = 0
                return self._look(one, threads)
            if self._search.prune and self._is_hopeless(one):  # at the end of a job, or as another searcher left it
                one.pruned = True
            elif state != RUNNING:  # a run that outlived its searcher is waited for
                one.slot.start(shlex.split(job.command))
                one.ended = threads.submit(one.slot.wait)
                return ""
            else:
                return ""
        return self._finish(one)

    def _judge(self, one: _Running, code: int) -> None:
        """A job's process has ended.

        Raises:
            UserError: with a mistake, as no trial has succeeded yet.
        """
        job = one.todo[0]
        if code == ExitCode.DONE:
            (job.output_dir / FAILED).unlink(missing_ok=True)
        if one.pruned:
            one.slot.child.wait()  # a process that serves several jobs ends with one that is told to
        if code in {ExitCode.DONE, ExitCode.LOCKED} or one.pruned:
            return
        one.tries += 1
        if code in INTERRUPTIONS:  # this searcher will hear it too, or only the job was told: no failure
            one.failed = one.tries > self._retries
            return
        lines = one.slot.last_lines()
        earlier = failures.read(job.output_dir)
        failures.write(job.output_dir, code, lines, (earlier.attempts if earlier else 0) + 1, job.label)
        if code == ExitCode.NOT_FINITE:
            one.todo.pop(0)
            one.tries = 0
        elif code == ExitCode.USER_ERROR and not any(trial.value is not None for trial in self._study.trials()):
            raise UserError(f"trial {one.trial.number} cannot run: {failures.failure_of(code, lines, 1).exception}")
        elif code == ExitCode.USER_ERROR or one.tries > self._retries:
            one.failed = True

    def _is_hopeless(self, one: _Running) -> bool:
        files = [job.output_dir / RESULTS for job in one.jobs]
        size = sum(path.stat().st_size for path in files if path.exists())
        if size == one.seen:
            return False
        one.seen = size
        return self._study.should_stop(one.trial, curve(list(self._recorded(one.jobs))))

    def _finish(self, one: _Running) -> str:
        """Tell the study what came of a trial; a line for people."""
        if one.pruned:
            state, value = study.PRUNED, None
            last = one.todo[0].output_dir if one.todo else one.jobs[-1].output_dir
            if last.is_dir():
                with replacing(last / PRUNED) as file:
                    file.write(json.dumps({"trial": one.trial.number, "pruner": "median"}).encode() + b"\n")
        elif one.failed:
            state, value = study.FAIL, None
            self._failures += 1
        else:
            state, value = study.COMPLETE, objective([recorded(job) for job in one.jobs])
            if self._search.prune:
                self._is_hopeless(one)  # for its curve, by which others are judged
        self._study.finish(one.trial, state, value)
        self._running.remove(one)
        self._free.append(one.slot)
        words = {study.PRUNED: "stopped early", study.FAIL: "failed"}
        told = f"{100 * value:.2f} %" if value is not None else words[state]
        if one.failed and (failure := failures.read(one.todo[0].output_dir)):
            told += f" ({failure.reason}; {failures.told_in(one.todo[0].output_dir)})"
        return printable(
            f"trial {one.trial.number}: {told} ({time.monotonic() - one.start:.0f} s)  {in_words(one.trial.values)}"
        )

    @staticmethod
    def _recorded(jobs: list[Job]) -> Iterator[Any]:
        """The runs of those jobs that have begun, in order."""
        for job in jobs:
            run = recorded(job)
            if run is None:
                return
            yield run
