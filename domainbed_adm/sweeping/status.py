"""How far a sweep is: jobs by method and state, what failed and why, and when it may end."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from domainbed_adm import records, run_files
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.recorded_run import Run, trouble
from domainbed_adm.sweeping.failures import failure_lines
from domainbed_adm.sweeping.jobs import DONE, FAILED, NOT_LAUNCHED, RUNNING, STATES, Job, with_states
from domainbed_adm.system.console import printable, show

#: Of so many jobs that are done, of each method and dataset, all records are read, for the ETA; of others the ends.
_TIMED = 20


class Progress(NamedTuple):
    """How far one job is.

    ``start`` is the seconds until its first record (start-up, a step, an evaluation), None where that was not timed;
    ``steps`` is how many its later records are of, and ``seconds`` how long those took, evaluation included.
    """

    algorithm: str
    dataset: str
    state: str
    steps_left: int
    start: float | None = None
    steps: int = 0
    seconds: float = 0.0


def show_status(jobs: Sequence[Job]) -> None:
    """Print a table of the jobs by method and state, what failed and why, the sums, and an ETA."""
    counts: dict[str, Counter[str]] = {}
    failed, untrusted, progress = [], [], []
    timed: Counter[tuple[str, str]] = Counter()
    now = with_states(jobs)
    for job, state in now:
        algorithm, dataset = job.train_args["algorithm"], job.train_args["dataset"]
        counts.setdefault(algorithm, Counter())[state] += 1
        path = job.output_dir / run_files.RESULTS
        read = records.read_runs if state != DONE or timed[dataset, algorithm] < _TIMED else records.read_ends
        runs = read(path) if state != NOT_LAUNCHED and path.is_file() else []
        left = 0 if state == DONE else job.n_steps - max((run.last_step + 1 for run in runs), default=0)
        times = _times(runs[0]) if runs and read is records.read_runs else ()
        timed[dataset, algorithm] += state == DONE and bool(times)
        progress.append(Progress(algorithm, dataset, state, max(0, left), *times))
        if state == FAILED:
            failed.append((job.label, job.output_dir))
        seen = [trouble(run, get_card(dataset).num_classes) for run in runs] if state == DONE else []
        untrusted += [f"{job.label} ({job.name}): {reason}" for reason in seen if reason]
    rows = [[name, *(str(count[state]) for state in STATES), str(count.total())] for name, count in counts.items()]
    show(("algorithm", *STATES, "jobs"), rows)
    for line in failure_lines(failed):
        print(f"failed: {line}")
    for line in untrusted:
        print(f"not to be trusted: {printable(line)}")
    print(summary(now))
    if when := eta(progress):
        print(when)


def summary(now: Sequence[tuple[Job, str]]) -> str:
    """The number of jobs, in all and in each state."""
    count = Counter(state for _, state in now)
    return f"{len(now)} jobs: {', '.join(f'{count[state]} {state}' for state in STATES)}"


def _times(run: Run) -> tuple[float | None, int, float]:
    """``start``, ``steps`` and ``seconds``. Records of an older version have ``step_time`` alone, without the start."""
    steps = np.diff(run.steps, prepend=-1)
    with np.errstate(over="ignore"):
        for seconds, first in ((run.column("wall_time"), 1), (run.column("step_time") * steps, 0)):
            timed = (steps > 0) & (seconds >= 0) & (seconds < math.inf)
            start = float(seconds[0]) if first and timed[0] else None
            timed[:first] = False
            if timed.any():
                return start, int(steps[timed].sum()), float(seconds[timed].sum())
    return None, 0, 0.0


def eta(jobs: Iterable[Progress]) -> str | None:
    """When the sweep may end, as a sentence; None where no step was timed, or nothing is left.

    A job takes the seconds a step of its algorithm on its dataset (of the dataset's other algorithms where it has none)
    times its steps left and, where it does not run now, the start-up. They add up, over the number of jobs that run now
    (one where none does); never below the longest job's. Both are means over what was read, evaluation included.
    """
    jobs = list(jobs)
    groups: defaultdict[tuple[str, ...], list[Progress]] = defaultdict(list)
    for job in jobs:
        if job.steps:
            groups[job.dataset, job.algorithm].append(job)
            groups[(job.dataset,)].append(job)
    costs = {}
    for key, timed in groups.items():
        starts = [job.start for job in timed if job.start is not None]
        start = sum(starts) / len(starts) if starts else 0.0
        costs[key] = start, sum(job.seconds for job in timed) / sum(job.steps for job in timed)
    unfinished, seconds = [job for job in jobs if job.steps_left], []
    for job in unfinished:
        if cost := costs.get((job.dataset, job.algorithm)) or costs.get((job.dataset,)):
            start, step = cost
            seconds.append(step * job.steps_left + (start if job.state != RUNNING else 0))
    if not any(seconds):
        return None
    running = sum(job.state == RUNNING for job in jobs)
    longest = max(sum(seconds) / max(1, running), *seconds)
    how = f"{running} job{'s' * (running > 1)} at a time, as now" if running else "one job at a time (none runs now)"
    untimed = len(unfinished) - len(seconds)
    without = f", and the {untimed} jobs on datasets without a timed step" if untimed else ""
    return f"ETA: {duration(longest)} at {how}; an estimate from what was recorded so far{without}"


def duration(seconds: float) -> str:
    """In two units at most: "40 s", "12 min", "3 h 20 min", "2 d 5 h"; infinity is "over 100 years", too."""
    if not seconds < 100 * 365.25 * 86400:
        return "over 100 years"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
