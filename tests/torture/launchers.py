"""Launchers side by side on one folder, and killed in the middle: each job is trained once, and all are done."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm import records, run_files
from domainbed_adm.sweeping.jobs import DONE, Job, Sweep

STEPS = 4
#: Whether processes are reused, and what is killed in the middle.
KILLED = [
    *((reuse, what) for reuse in (False, True) for what in (["launcher"], ["jobs"], ["launcher", "jobs"])),
    (True, ["workers"]),
    (True, ["launcher", "workers", "jobs"]),
]
#: A folder whose name a shell would run.
EVIL = 'it\'s; $(touch owned) "here" & `touch owned`'


def start(sweep: Sweep, folder: Path, processes: int, reuse: bool = False) -> subprocess.Popen[str]:
    """A launcher, in its own process; with ``reuse``, one that runs jobs in forks of its workers."""
    command = [sys.executable, "-m", "domainbed_adm.scripts.sweep", "launch", "--datasets", "Debug28"]
    command += ["--algorithms", *sweep.algorithms, "--n_trials", str(sweep.n_trials), "--n_hparams", "1"]
    command += ["--single_test_envs", "--steps", str(STEPS), "--hparams", str(sweep.hparams)]
    command += ["--data_dir", str(sweep.data_dir)]
    command += ["--output_dir", str(folder), "--jobs", str(processes), "--skip_confirmation"]
    command += ["--reuse_processes"] if reuse else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    output = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.PIPE, text=True)


def make(n_jobs: int, root: Path) -> Sweep:
    """A sweep of at least so many jobs, three to a trial."""
    data_dir = root / EVIL
    data_dir.mkdir(exist_ok=True)
    trials, hparams = -(-n_jobs // 3), '{"cnn_width": 8, "batch_size": 3}'
    return Sweep(["Debug28"], ["ERM"], 0, 1, trials, STEPS, hparams, single_test_envs=True, data_dir=str(data_dir))


def starts(job: Job) -> int:
    """How often a process began to train it."""
    path = job.output_dir / "out.txt"
    return path.read_text().count("device: ") if path.exists() else 0


def faults(jobs: list[Job], killed: int) -> list[str]:
    """What is not as it must be, with so many of the jobs' processes killed."""
    found = [f"{job.label}: {job.state}" for job in jobs if job.state != DONE]
    for job in jobs:
        path = job.output_dir / run_files.RESULTS
        steps = [step for run in records.read_runs(path) for step in run.steps.tolist()] if path.exists() else []
        if steps != [0, STEPS - 1]:
            found.append(f"{job.label}: records of steps {steps}")
    total = sum(map(starts, jobs))
    if not len(jobs) <= total <= len(jobs) + killed:
        found.append(f"{len(jobs)} jobs were started {total} times, {killed} of them killed")
    if Path("owned").exists():
        found.append("a shell has run a name")
    return found


def children(*pids: int) -> list[int]:
    """Processes that these processes have started and that run."""
    files = [path for pid in pids for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for path in files for child in path.read_text().split()]


def wait_for_start(jobs: list[Job], count: int) -> None:
    """Wait until so many jobs have begun."""
    end = time.monotonic() + 300
    while sum(starts(job) > 0 for job in jobs) < count:
        assert time.monotonic() < end, "the launcher starts nothing"
        time.sleep(0.05)


def side_by_side(n_jobs: int) -> tuple[int, list[str]]:
    """Two launchers on one folder; returns the number of jobs, and faults."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sweep, folder = make(n_jobs, root), root / EVIL / "out"
        jobs = sweep.jobs(folder)
        both = [start(sweep, folder, 1, reuse) for reuse in (False, True)]
        ended = [(launcher.communicate()[1], launcher.returncode) for launcher in both]
        found = [f"exit code {code}: {errors}" for errors, code in ended if code]
        return len(jobs), found + faults(jobs, 0)


def killed(n_jobs: int, what: Sequence[str], reuse: bool, chance: random.Random) -> tuple[int, list[str]]:
    """``what`` of launcher, workers and jobs is killed in the middle, and the launcher started again where it was."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        sweep, folder = make(n_jobs, root), root / "out"
        jobs = sweep.jobs(folder)
        first = start(sweep, folder, 2, reuse)
        wait_for_start(jobs, chance.randrange(1, max(2, len(jobs) // 2)))
        time.sleep(chance.uniform(0, 1))
        below = children(first.pid)
        running = {"workers": below, "jobs": children(*below) if reuse else below}
        if "launcher" in what:
            first.kill()
        doomed = [pid for kind in what if kind in running for pid in running[kind]]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself
                os.kill(pid, signal.SIGKILL)
        if "launcher" in what:
            first.communicate()
            first = start(sweep, folder, 2, reuse)
        errors = first.communicate()[1]
        found = [f"exit code {first.returncode}: {errors}"] if first.returncode else []
        return len(jobs), found + faults(jobs, len(running["jobs"]) if doomed else 0)


def torture(n_jobs: int, seed: int = 0) -> int:
    """All of it; prints the figures and returns the number of faults."""
    chance = random.Random(seed)
    cases = [("two launchers", side_by_side(n_jobs))]
    for reuse, what in KILLED:
        title = f"{' and '.join(what)} killed{', processes reused' if reuse else ''}"
        cases.append((title, killed(max(6, n_jobs // 3), what, reuse, chance)))
    for title, (count, found) in cases:
        print(f"launchers: {title}: {count} jobs, {len(found)} faults", flush=True)
        for fault in found:
            print(f"  {fault}")
    return sum(len(found) for _, (_, found) in cases)
