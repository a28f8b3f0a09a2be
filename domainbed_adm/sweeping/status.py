"""How far a sweep is: jobs by method and state, what failed and why, and when it may end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from domainbed_adm import records, run_files
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.recorded_run import trouble
from domainbed_adm.sweeping.jobs import DONE, FAILED, NOT_LAUNCHED, RUNNING, STATES, Job
from domainbed_adm.sweeping.launch import failure_line
from domainbed_adm.system.console import printable
from domainbed_adm.system.tables import show

#: Seconds.
_CENTURY = 100 * 365.25 * 86400


def show_status(jobs: Sequence[Job]) -> None:
    """Print a table of the jobs by method and state, each failed job with its reason, the sums, and an ETA."""
    states = [job.state for job in jobs]
    counts: dict[str, Counter[str]] = {}
    for job, state in zip(jobs, states, strict=True):
        counts.setdefault(job.train_args["algorithm"], Counter())[state] += 1
    rows = [[name, *(str(count[state]) for state in STATES), str(count.total())] for name, count in counts.items()]
    show(("algorithm", *STATES, "jobs"), rows)
    for job, state in zip(jobs, states, strict=True):
        if state == FAILED:
            print(f"failed: {printable(failure_line(job))}")
    progress = list(map(_progress, jobs, states))
    for job, of in zip(jobs, progress, strict=True):
        if of.trouble:
            print(f"not to be trusted: {job.label} ({job.output_dir.name}): {printable(of.trouble)}")
    print(summary(states))
    line = eta(progress)
    if line:
        print(line)


def summary(states: Sequence[str]) -> str:
    """The number of jobs, in all and in each state."""
    count = Counter(states)
    return f"{len(states)} jobs: {', '.join(f'{count[state]} {state}' for state in STATES)}"


@dataclass(frozen=True)
class Progress:
    """How far one job is.

    Attributes:
        algorithm: its method.
        dataset: its data.
        state: one of ``STATES``.
        steps_left: how many it has still to train.
        step_times: those it measured, in seconds.
        trouble: why a job that is done is not to be trusted (``recorded_run.trouble``); None where nothing is seen.
    """

    algorithm: str
    dataset: str
    state: str
    steps_left: int
    step_times: list[float]
    trouble: str | None = None


def _progress(job: Job, state: str) -> Progress:
    path = job.output_dir / run_files.RESULTS
    runs = records.read_runs(path) if state != NOT_LAUNCHED and path.is_file() else []
    steps_done = max((run.last_step + 1 for run in runs), default=0)
    left = 0 if state == DONE else max(0, job.n_steps - steps_done)
    times = [seconds for run in runs for seconds in run.column("step_time").tolist() if seconds >= 0]
    dataset = job.train_args["dataset"]
    classes = get_card(dataset).num_classes
    seen = next(filter(None, (trouble(run, classes) for run in runs)), None) if state == DONE else None
    return Progress(job.train_args["algorithm"], dataset, state, left, times, seen)


def eta(jobs: Iterable[Progress]) -> str | None:
    """When the sweep may end, as a sentence; None where nothing was measured, or nothing is left.

    A job's steps left, times the mean step time of its algorithm on its dataset (of the dataset's other algorithms
    where it has none), over the number of jobs that run now (one where none does); never below the longest job's.
    """
    jobs = list(jobs)
    times: defaultdict[tuple[str, ...], list[float]] = defaultdict(list)
    for job in jobs:
        times[job.algorithm, job.dataset] += job.step_times
        times[(job.dataset,)] += job.step_times
    seconds, unmeasured = [], 0
    for job in jobs:
        measured = times[job.algorithm, job.dataset] or times[(job.dataset,)]
        if measured and job.steps_left:
            seconds.append(job.steps_left * (sum(measured) / len(measured)))
        else:
            unmeasured += job.steps_left > 0
    if not any(seconds):
        return None
    running = sum(job.state == RUNNING for job in jobs)
    longest = max(sum(seconds) / max(1, running), *seconds)
    how = f"{running} job{'s' * (running > 1)} at a time, as now" if running else "one job at a time (none runs now)"
    without = f", and the {unmeasured} jobs on datasets without a measured step" if unmeasured else ""
    return f"ETA: {duration(longest)} at {how}; an estimate from step times, without evaluation{without}"


def duration(seconds: float) -> str:
    """In two units at most: "40 s", "12 min", "3 h 20 min", "2 d 5 h"; infinity is "over 100 years", too."""
    if not seconds < _CENTURY:
        return "over 100 years"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
