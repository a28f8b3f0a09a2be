"""Workers in a real Slurm that preempts them, again and again, ends them at their time limit, and loses a node.

Jobs are stand-ins that write a line for each step and go on where they were broken off: a step that is lost or made
twice shows.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from domainbed_adm.sweeping.jobs import DONE, Job
from domainbed_adm.sweeping.launchers import slurm_array
from domainbed_adm.sweeping.plan import planned_jobs
from tests.slurm.local_slurm import LocalSlurm, local_slurm, missing
from tests.slurm.test_launch import jobs_run, launch

STEPS = 30
#: A job: its folder is $0. Told to end it does so between two steps, with 130.
JOB = f"""mkdir -p "$0"; told=; trap "told=1" TERM; touch "$0/steps"; n=$(wc -l < "$0/steps")
while [ $n -lt {STEPS} ]; do sleep @seconds@; n=$((n + 1)); echo $n >> "$0/steps"; [ -z "$told" ] || exit 130; done
touch "$0/done" """


def faults(jobs: list[Job]) -> list[str]:
    """What is not as it must be."""
    found = [f"{job.label}: {job.state}" for job in jobs if job.state != DONE]
    for job in jobs:
        path = job.output_dir / "steps"
        steps = [int(line) for line in path.read_text().split()] if path.exists() else []
        if steps != list(range(1, STEPS + 1)):
            found.append(f"{job.label}: steps {steps}")
    return found


def lives(folder: Path) -> int:
    """How many lives the tasks had beside their first."""
    files = (folder / "slurm").glob("*.out")
    return sum(
        ", life " in line and ", life 0," not in line for file in files for line in file.read_text().splitlines()
    )


def run(
    slurm: LocalSlurm, trials: int, workers: int, options: str, seconds: float, disturb: Callable[[], None]
) -> tuple[int, int, list[str]]:
    """A sweep of 6 jobs a trial to its end, disturbed while it lives: number of jobs, lives after the first, faults."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        for variable in ("SLURM_CONF", "PATH"):
            patch.setenv(variable, slurm.environment[variable])
        folder = Path(name)
        jobs_run(patch, JOB.replace("@seconds@", str(seconds)))
        assert launch(folder, workers, "--slurm", options, trials=trials) == 0
        array, jobs, end = slurm_array.submitted(folder), planned_jobs(folder), time.monotonic() + 600
        assert array
        disturb()
        with contextlib.suppress(AssertionError):  # faults tell what is not done
            slurm.hasten(str(array.id), lambda: not slurm_array.tasks(folder), end - time.monotonic(), "its end")
        found = faults(jobs)
        slurm.cancel_all()
        return len(jobs), lives(folder), found


def preempt(slurm: LocalSlurm, rounds: int, chance: random.Random) -> None:
    """Take both nodes from everybody, so many times."""
    for _ in range(rounds):
        time.sleep(chance.uniform(0.5, 4))
        words = ("-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "true")
        [urgent] = slurm.ask("sbatch", "--parsable", *words)
        ended = lambda urgent=urgent: not slurm.tasks(urgent)  # noqa: E731 - of this round
        slurm.hasten("", ended, 60, "the urgent job ends")
        running = lambda: any(" RUNNING" in task for task in slurm.tasks())  # noqa: E731
        with contextlib.suppress(AssertionError):  # all are done
            slurm.hasten("", running, 20, "workers come back")


def lose_node(slurm: LocalSlurm, whole: bool) -> None:
    """Kill a slurmd and, where it is the whole node, all that runs there; it comes back when its tasks have gone."""
    time.sleep(3)
    slurm.daemons["n1"].kill()
    slurm.daemons["n1"].wait()
    mine, here = f"SLURM_CONF={slurm.environment['SLURM_CONF']}".encode(), b"SLURMD_NODENAME=n1"
    for path in Path("/proc").glob("[0-9]*/environ") if whole else ():
        with contextlib.suppress(OSError):
            if {mine, here} <= set(path.read_bytes().split(b"\0")):
                os.kill(int(path.parent.name), signal.SIGKILL)
    gone = lambda: not any(" RUNNING n1" in task for task in slurm.tasks())  # noqa: E731
    slurm.hasten("", gone, 60, "the node is given up")
    slurm.start_node("n1")


def torture(rounds: int, seed: int = 0) -> int:
    """All of it; prints the figures and returns the number of faults."""
    if why := missing():
        print(f"slurm: skipped: {why}")
        return 0
    chance, total = random.Random(seed), 0
    with local_slurm() as slurm:
        cases: dict[str, Callable[[], tuple[int, int, list[str]]]] = {
            f"preempted {rounds} times": lambda: run(
                slurm, 4 + rounds // 2, 4, "partition=low", 0.1, lambda: preempt(slurm, rounds, chance)
            ),
            "a time limit": lambda: run(slurm, 1, 4, "time=1,signal=TERM@45", 0.6, lambda: None),
            "a slurmd killed": lambda: run(slurm, 4, 4, "partition=main", 0.2, lambda: lose_node(slurm, False)),
            "a node lost": lambda: run(slurm, 4, 4, "partition=main", 0.2, lambda: lose_node(slurm, True)),
        }
        for title, case in cases.items():
            count, again, found = case()
            print(f"slurm: {title}: {count} jobs, {again} lives after the first, {len(found)} faults", flush=True)
            for fault in found:
                print(f"  {fault}")
            total += len(found)
    return total
