"""Workers of a sweep as the tasks of one Slurm array. What lives is what squeue says; accounting is never asked.

Each task runs a worker that takes jobs from the sweep's folder, whose locks are the queue. Told to end (SIGTERM: it is
preempted, or its time limit is near), the worker ends its run at the last checkpoint with exit code 130, and the task
puts itself back into Slurm's queue; its next life goes on. After ``scancel`` it does not.

The array's name holds a hash of the folder's path, by which squeue finds it. The folder's ``slurm/array.json`` tells
what was submitted last, and ``slurm/<array>_<task>.out`` what the tasks said.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from domainbed_adm.errors import UserError, did_you_mean
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping.launchers import slurm_options
from domainbed_adm.system.console import printable
from domainbed_adm.system.disk import replacing, run_lock

#: Folder, in that of a sweep, of what the tasks say, and the file there that tells what was submitted.
LOGS, ARRAY = "slurm", "array.json"
#: Seconds that a command of Slurm may take, that tasks may take to end, and between looks at them.
_PATIENCE, _ENDING, _POLL = 60, 120, 0.5
#: What Slurm's commands say, among much else, where they are installed and belong to no cluster.
_NO_CLUSTER = ("Could not establish a configuration source", "failed to fetch config")
#: Exit codes of a worker that could work.
_WORKED = {ExitCode.DONE, ExitCode.RETRY, ExitCode.INTERRUPTED, ExitCode.MORE_TO_DO}
#: What squeue calls a task that ends or, put back into the queue, has not come there yet.
COMPLETING, PENDING = "COMPLETING", "PENDING"
#: A task. 143 is a worker that was told to end before it could listen. squeue says RUNNING, or SIGNALING, of a task
#: that Slurm wants back (preemption, time limit), COMPLETING of one that a user has cancelled. SLURM_JOB_ID would not
#: do as a task's name: that of an array's last task is the whole array's.
SCRIPT = """\
#!/bin/bash
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@60
trap : TERM  # it is for the worker; this script decides what comes next
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK  # since 22.05 srun does not ask for it
echo "task $task, life ${SLURM_RESTART_COUNT:-0}, on $SLURMD_NODENAME"
case $SLURM_ARRAY_TASK_ID in
@cases@
esac
srun --quiet --nodes=1 --ntasks=1 "$@"
code=$?
if [ $code = 130 ] || [ $code = 143 ]; then
    for attempt in 1 2 3 4 5; do
        state=$(squeue --noheader --array --jobs="$task" --format=%T) || { sleep 1; continue; }
        case $state in
        RUNNING | SIGNALING) scontrol requeue "$task" && echo "task $task: back into the queue" && break ;;
        *) break ;;
        esac
        sleep 1
    done
fi
echo "task $task: exit code $code ${state:+($state)}"
exit $code
"""


@dataclass(frozen=True)
class Array:
    """What was submitted: the array's id on its cluster, how many tasks, when (ISO 8601)."""

    id: int
    cluster: str
    tasks: int
    submitted: str


@dataclass(frozen=True)
class Task:
    """One of an array's tasks, as squeue tells it; ``node`` is "" and ``reason`` says why where it waits."""

    array: int
    index: str
    state: str
    node: str
    reason: str


def tasks(folder: Path) -> list[Task]:
    """The tasks, of every array, that wait or run for the sweep in ``folder``.

    Raises:
        UserError: squeue is not here or does not answer.
    """
    options = ["--noheader", "--array", f"--name={_name(folder)}", "--format=%F|%K|%T|%N|%r"]
    rows = [line.split("|", 4) for line in _ask("squeue", *options).splitlines()]
    return [Task(int(row[0]), *row[1:]) for row in rows if len(row) == 5 and row[0].isdigit()]


def settled_tasks(folder: Path) -> list[Task]:
    """As :func:`tasks`, once those about to end have ended or are back in the queue; after two minutes in any case."""
    end, told = time.monotonic() + _ENDING, False
    while True:
        now = tasks(folder)
        if not now or any(task.state != COMPLETING for task in now) or time.monotonic() > end:
            return now
        if not told:
            print(f"waiting for {described(now)}", flush=True)
        told = True
        time.sleep(_POLL)


def described(now: Sequence[Task]) -> str:
    """In words: "array 17: 2 running on n1, n2; 1 pending (Resources)"."""
    arrays, parts = sorted({task.array for task in now}), []
    for state in dict.fromkeys(task.state for task in sorted(now, key=lambda task: task.state == PENDING)):
        these = [task for task in now if task.state == state]
        nodes = Counter(task.node for task in these if task.node)
        on = ", ".join(node + f" x {count}" * (count > 1) for node, count in sorted(nodes.items()))
        why = ", ".join(sorted({task.reason for task in these} - {"None"}))
        parts.append(f"{len(these)} {state.lower()}" + f" on {on}" * bool(on) + f" ({why})" * bool(why and not on))
    return printable(f"array {', '.join(map(str, arrays))}: {'; '.join(parts)}")


def submitted(folder: Path) -> Array | None:
    """What was submitted last for the sweep in ``folder``, None where nothing was, or that cannot be read."""
    try:
        return msgspec.json.decode((folder / LOGS / ARRAY).read_bytes(), type=Array)
    except (OSError, ValueError):
        return None


def check(options: Mapping[str, str], count: int = 1) -> str:
    """Check what can be known of an array of so many tasks before anything is made; returns the cluster's name.

    Raises:
        UserError: there is no Slurm here, it knows no such partition, or allows no such array.
    """
    config = dict(re.findall(r"^(\w+) += (.*)$", _ask("scontrol", "show", "config"), re.MULTILINE))
    most = config.get("MaxArraySize", "")
    if most.isdigit() and count > int(most):
        raise UserError(f"an array of {count} tasks is more than this Slurm allows ({most}, MaxArraySize)")
    there = _ask("sinfo", "--noheader", "--all", "--format=%R").split()
    for name in filter(None, options.get("partition", "").split(",")):
        if name not in there:
            near, known = did_you_mean(there, name), ", ".join(there)
            raise UserError(f"this Slurm has no partition {name!r}.{near} It has: {known}")
    return str(config.get("ClusterName", ""))


def submit(commands: Sequence[str], folder: Path | None, options: Mapping[str, str], cluster: str) -> Array | None:
    """Submit an array with a task for each command; None where tasks wait or run for ``folder`` already.

    Of several who submit for it at the same time, one does.

    Raises:
        UserError: sbatch refuses.
    """
    if folder is None:
        return _submit(commands, {"job-name": f"commands_{uuid.uuid4().hex[:12]}", **options}, cluster)
    logs = folder / LOGS
    with run_lock(logs, needed=False, patience=_PATIENCE + _ENDING):
        if settled_tasks(folder):
            return None
        output = str(logs.absolute()).replace("%", "%%") + "/%A_%a.out"
        array = _submit(commands, {"job-name": _name(folder), "output": output, **options}, cluster)
        with replacing(logs / ARRAY) as file:
            file.write(json.dumps(asdict(array)).encode() + b"\n")
    return array


def _submit(commands: Sequence[str], options: Mapping[str, str], cluster: str) -> Array:
    cases = "\n".join(f"{index}) set -- {command} ;;" for index, command in enumerate(commands))
    ours = {"parsable": "", "array": f"0-{len(commands) - 1}"}
    told = _ask("sbatch", *slurm_options.words({**ours, **options}), told=SCRIPT.replace("@cases@", cases))
    array_id = told.split(";")[0].strip()
    if not array_id.isdigit():
        raise UserError(f"sbatch gave no number of a job, but {told.strip()[:200]!r}")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Array(int(array_id), cluster, len(commands), now)


def cancel(folder: Path) -> list[Task]:
    """End all tasks for the sweep in ``folder``, for good; returns those that there were.

    Raises:
        UserError: Slurm is not here, does not answer or refuses, as where another user submitted them.
    """
    now = there = [task for task in settled_tasks(folder) if task.state != COMPLETING]
    while there:
        try:
            _ask("scancel", *sorted({str(task.array) for task in there}))
        except UserError:
            if any(task.state != COMPLETING for task in tasks(folder)):  # else they have ended by themselves
                raise
        there = settled_tasks(folder)  # one that was on its way back into the queue
    return now


def last_words(folder: Path) -> str:
    """The last line that a task of the array submitted last said, with its file, where it could not work; else ""."""
    array = submitted(folder)
    for path in sorted((folder / LOGS).glob(f"{array.id}_*.out")) if array else []:
        lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        ended = re.match(r"task \S+: exit code (\d+)", lines[-1]) if lines else None
        if ended and int(ended[1]) not in _WORKED:
            lines = [line for line in lines if not line.startswith("task ")]
            for others in (
                "srun: ",
                "slurmstepd",
            ):  # what the worker said itself is last of all, where it said anything
                lines = [line for line in lines if not line.startswith(others)] or lines
            said = lines or [ended[0]]
            return printable(f"{said[-1][:300]} ({path})")
    return ""


def _name(folder: Path) -> str:
    """A job's name, from the folder's path: what people recognize, and a hash."""
    path = os.path.realpath(folder)
    words = re.sub(r"[^\w.-]+", "_", Path(path).name, flags=re.ASCII)[:40]
    return f"sweep_{words}_{hashlib.md5(os.fsencode(path)).hexdigest()[:12]}"


def _ask(command: str, *arguments: str, told: str = "") -> str:
    """What a command of Slurm prints.

    Raises:
        UserError: it is not here, fails, or does not answer.
    """
    if shutil.which(command) is None:
        raise UserError(f"no {command} here: --command_launcher slurm needs a machine that can submit to Slurm")
    # what a user has set for looking at the queue must not hide a task
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("SQUEUE_", "SINFO_", "SCANCEL_"))}
    try:
        done = subprocess.run(
            [command, *arguments], input=told, env=ours, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{command} does not answer in {_PATIENCE} s: is Slurm well? See sinfo") from None
    if done.returncode:
        why = " ".join(line.removeprefix(f"{command}: error: ").strip() for line in done.stderr.splitlines())
        if any(sign in why for sign in _NO_CLUSTER):
            raise UserError(
                f"{command} finds no Slurm cluster: run this on a machine that can submit to one (see sinfo)"
            )
        raise UserError(f"{command}: {printable(why)[:400] or f'exit code {done.returncode}'}")
    return done.stdout
