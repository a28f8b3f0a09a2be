"""Jobs on a real Ray whose workers, nodes and launches are killed, again and again, in a random order.

Jobs are stand-ins that write a line for each step and go on where they were broken off: a step that is lost or made
twice shows.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.ray.local_ray import LocalRay, why_not
from tests.ray.test_ray import launch, logs, running, steps

STEPS = 40
#: What happens every two seconds or so; the first is rare.
EVENTS = ("launch killed", "launch interrupted", "worker killed", "job killed", "node lost")


def disturb(ray: LocalRay, folder: Path, launch_: int, event: str, chance: random.Random) -> bool:
    """Let it happen; False where there was nothing to kill."""
    jobs = running(folder)
    with contextlib.suppress(ProcessLookupError):
        if event == "node lost":
            ray.remove_node()
            time.sleep(chance.uniform(0, 3))
            ray.add_node()
        elif not jobs:
            return False
        elif event.startswith("launch"):
            os.kill(launch_, signal.SIGKILL if event.endswith("killed") else signal.SIGINT)
        else:
            _, job, worker, _ = chance.choice(jobs)
            os.kill(int(worker if event == "worker killed" else job), signal.SIGKILL)
        return True
    return False


def torture(n_jobs: int, seed: int = 0) -> int:
    """Print what happened and the faults; return how many faults."""
    if reason := why_not():
        print(f"ray: skipped, {reason}")
        return 0
    chance, happened, found = random.Random(seed), Counter[str](), list[str]()
    with LocalRay() as ray, tempfile.TemporaryDirectory() as name:
        folder, flags, code = Path(name), ("--n_trials", str(n_jobs), "--retries", "9"), 130
        while code:
            launching = launch(ray, folder, STEPS, *flags, quiet=True)
            for event in chance.choices(EVENTS, (1, 2, 4, 4, 3), k=10**4):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    launching.wait(chance.uniform(1, 3))
                    break
                happened[event] += disturb(ray, folder, launching.pid, event, chance)
            code = launching.wait()
            if code not in {0, 130, -signal.SIGKILL, -signal.SIGINT}:  # the last, as it was still loading Python
                found.append(f"a launch ended with exit code {code}")
                break
        wrong = [one for one in steps(folder) if one != list(range(1, STEPS + 1))]
        found += [f"a job has made these steps: {one}" for one in wrong]
        if len(steps(folder)) != n_jobs:
            found.append(f"{len(steps(folder))} of {n_jobs} jobs have run")
        starts = sum(line.startswith("start") for log in logs(folder) for line in log)
    told = ", ".join(f"{event} {count} x" for event, count in sorted(happened.items()))
    print(f"ray: {n_jobs} jobs, begun {starts} times ({told}), {len(found)} faults", flush=True)
    for fault in found:
        print(f"  {fault}")
    return len(found)
