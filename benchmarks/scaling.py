"""``python -m benchmarks.scaling``: workers side by side on one folder, and a plan of 67,200 jobs.

Jobs sleep, or end at once; nothing trains. ``scaling.md`` says what came out.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from domainbed_adm.cli import main as command
from domainbed_adm.run_files import DONE, ExitCode
from domainbed_adm.scripts import sweep_work
from domainbed_adm.scripts.sweep import parse
from domainbed_adm.sweeping.flags import described_sweep
from domainbed_adm.sweeping.jobs import Job, Sweep
from domainbed_adm.sweeping.launchers import local
from domainbed_adm.sweeping.plan import add_to_plan
from domainbed_adm.sweeping.pool import Outcome

WORKERS = (1, 2, 4, 8)
_SLEEP = 'mkdir -p "$0" && echo x >> "$0/starts" && sleep {seconds} && touch "$0/done"'


#: 28 methods, four datasets of four environments, ten ways to hold out, 20 hparams, 3 trials.
FULL = ["--datasets", "PACS", "VLCS", "OfficeHome", "TerraIncognita"]


def full_sweep() -> Sweep:
    """67,200 jobs."""
    return described_sweep(parse(["launch", "--output_dir", "none", *FULL]), needs_data=False)


def worker(kind: str, words: Sequence[str]) -> int:
    """``sweep work`` in this process: its jobs sleep so many seconds, or are taken and done without a process."""
    if kind == "take":
        local.local = _take
        sweep_work.check_sweep = lambda sweep, needs_data: None  # the data are not there
    shell = _SLEEP.format(seconds=kind)
    Job.command = property(lambda job: shlex.join(["sh", "-c", shell, str(job.output_dir)]))  # type: ignore[assignment]
    return command(["sweep", "work", *words])


def _take(
    commands: Sequence[str], skip: Callable[[int], bool], on_end: Callable[[int, Outcome], Any], **told: Any
) -> list[int]:
    codes, seconds, taken = [], 0.0, 0
    for index in range(len(commands)):
        start = time.thread_time()
        free = not skip(index)
        seconds += time.thread_time() - start
        if free:
            taken += 1
            folder = Path(shlex.split(commands[index])[-1])
            folder.mkdir()  # there already: another worker has it
            (folder / DONE).touch()
            on_end(index, Outcome(0, [], 0.0))
        codes.append(0 if free else int(ExitCode.LOCKED))
    if taken:
        print(json.dumps({"taken": taken, "looked": len(commands), "seconds": seconds}), flush=True)
    return codes


def timed(words: Sequence[str]) -> tuple[float, float, float, list[str]]:
    """A process: seconds, CPU seconds, peak memory in MiB, and what it printed."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen([sys.executable, *words], stdout=out, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        lines = out.read().splitlines()
    assert process.returncode in {ExitCode.DONE, ExitCode.MORE_TO_DO}, lines
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, lines


def workers(kind: str, folder: Path, count: int) -> tuple[float, list[dict[str, Any]]]:
    """So many side by side; seconds until the last has ended, and what each told of its taking."""
    base = [sys.executable, "-m", "benchmarks.scaling", "--worker", kind, str(folder)]
    start = time.perf_counter()
    all_ = [
        subprocess.Popen([*base, "--place", f"{k}/{count}"], stdout=subprocess.PIPE, text=True) for k in range(count)
    ]
    told = [one.communicate()[0].splitlines() for one in all_]
    assert not any(one.returncode for one in all_), told
    seconds = time.perf_counter() - start
    return seconds, [json.loads(line) for lines in told for line in lines if line.startswith("{")]


def side_by_side(seconds: float, each: int) -> list[dict[str, str]]:
    """As many sleeping jobs for each of N workers: their rate is N times one worker's, if nothing stands in the way."""
    rows: list[dict[str, str]] = []
    for count in WORKERS:
        with tempfile.TemporaryDirectory() as name:
            folder, n_jobs = Path(name), each * count
            sweep = Sweep(["RotatedDigits"], ["ERM"], n_hparams=n_jobs, n_trials=1, single_test_envs=True)
            add_to_plan(folder, replace(sweep, n_hparams=-(-n_jobs // 6)))
            jobs = replace(sweep, n_hparams=-(-n_jobs // 6)).jobs(folder)
            wall, _ = workers(str(seconds), folder, count)
            starts = [(job.output_dir / "starts").read_text().count("x") for job in jobs]
            assert starts == [1] * len(jobs), f"lost {starts.count(0)}, doubled {sum(n > 1 for n in starts)}"
        rate = len(jobs) / wall
        one = float(rows[0]["jobs a second"]) if rows else rate
        row = {"workers": str(count), "jobs": str(len(jobs)), "seconds": f"{wall:.1f}", "jobs a second": f"{rate:.4f}"}
        rows.append({**row, "times one worker": f"{rate / one:.2f}", "share of N": f"{rate / one / count:.3f}"})
        print(rows[-1], flush=True)
    return rows


def full_plan() -> list[dict[str, str]]:
    """How long the commands take on a plan of 67,200 jobs of which none has run; and taking all of it by 8 workers."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder, script = Path(name), ["-m", "domainbed_adm.scripts.sweep"]
        cases = {
            "launch --dry_run": [*script, "launch", *FULL, "--output_dir", str(folder), "--dry_run"],
            "launch --plan_only": [*script, "launch", *FULL, "--output_dir", str(folder), "--plan_only"],
            "status, none run": [*script, "status", str(folder)],
            "work, its first job": ["-m", "benchmarks.scaling", "--worker", "take", str(folder), "--max_jobs", "1"],
        }
        for what, words in cases.items():
            wall, cpu, memory, _ = timed(words)
            rows.append({"what": what, "seconds": f"{wall:.1f}", "CPU s": f"{cpu:.1f}", "peak MiB": f"{memory:.0f}"})
            print(rows[-1], flush=True)
        wall, told = workers("take", folder, max(WORKERS))
        done = sum((folder / job.name / DONE).exists() for job in full_sweep().jobs(folder))
        taken, looks = sum(one["taken"] for one in told), sum(one["looked"] for one in told)
        assert (done, taken) == (67200, 67200 - 1), (done, taken)
        each = sum(one["seconds"] for one in told) / taken
        rows.append({"what": f"8 workers take all, {looks} looks; a job", "seconds": f"{wall / taken:.6f}"})
        rows[-1] |= {
            "CPU s": f"{each:.6f}",
            "peak MiB": f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f}",
        }
        print(rows[-1], f"{wall:.1f} s in all", flush=True)
        wall, cpu, memory, _ = timed([*script, "status", str(folder)])
        rows.append({"what": "status, all done", "seconds": f"{wall:.1f}", "CPU s": f"{cpu:.1f}"})
        rows[-1]["peak MiB"] = f"{memory:.0f}"
        print(rows[-1], flush=True)
    return rows


def main() -> int:
    """Run both parts and store their tables; or be a worker of them."""
    if sys.argv[1:2] == ["--worker"]:
        return worker(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="that a job sleeps (default 2)")
    parser.add_argument("--each", type=int, default=18, help="jobs of each worker (default 18)")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    plan, side = full_plan(), side_by_side(args.seconds, args.each)
    import torch  # only now: a child counts the memory that its parent had as its own

    from benchmarks.tables import RESULTS, facts_of, write

    facts = facts_of(torch.device("cpu")) | {"cores": str(len(os.sched_getaffinity(0))), "load before": f"{load:.1f}"}
    facts["python"] = sys.version.split()[0]
    write("scaling plan", plan, facts, RESULTS)
    write("scaling workers", side, facts | {"sleep": f"{args.seconds} s"}, RESULTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
