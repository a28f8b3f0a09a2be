"""Command launchers: functions of a list of command strings that return the exit codes, in the same order.

To add one, for a cluster say, write such a function and put it into ``LAUNCHERS``. The commands are shell-quoted words;
what a job's name or folder holds is data. Beside them a launcher is told, by keyword:

- ``labels``: names for progress lines.
- ``jobs``: how many may run at a time.
- ``skip``: to be asked with a command's index right before it starts; where it says yes, another process has the job,
  and the command's exit code is 75. A launcher that cannot ask may run all.
- ``on_end``: to be told the index and the :class:`Outcome` of each as it ends; returns what there is to say of it in
  progress lines, or None. Of what a launcher cannot tell so, its exit codes are taken.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from rich.console import Console

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.console import ProgressBar
from domainbed_adm.system.process import WORKERS_VARIABLE, cpu_count, terminate_as_interrupt

#: Seconds that a child has to end after SIGTERM, and what it has left behind to end by itself.
GRACE, LEFTOVERS_GRACE = 10.0, 2.0
#: What an exit code is called in progress lines; any other is a failure.
_WORDS = {0: "done  ", ExitCode.LOCKED: "runs elsewhere:"}


class Outcome(NamedTuple):
    """How one command ended: exit code (negative for a signal), last lines of standard error, how long it ran."""

    code: int
    stderr: list[str]
    seconds: float


def local(commands: Sequence[str], jobs: int = 1, **options: Any) -> list[int]:
    """Run on this machine, ``jobs`` processes at a time."""
    return _run([{}] * jobs, commands, **options)


def multi_gpu(commands: Sequence[str], jobs: int = 1, **options: Any) -> list[int]:
    """Run on this machine, one process on each GPU, whatever ``jobs`` is."""
    return _run([{"CUDA_VISIBLE_DEVICES": name} for name in gpus()], commands, **options)


def dummy(commands: Sequence[str], **options: Any) -> list[int]:
    """Run nothing; print each command."""
    for command in commands:
        print(f"Dummy launcher: {command}")
    return [0] * len(commands)


#: Launchers by the name that ``--command_launcher`` takes.
LAUNCHERS: dict[str, Callable[..., list[int]]] = {"local": local, "multi_gpu": multi_gpu, "dummy": dummy}


def gpus() -> list[str]:
    """GPUs to use: those in ``CUDA_VISIBLE_DEVICES``, or all that ``nvidia-smi`` lists where it is not set.

    Raises:
        UserError: there is none.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip() not in {"", "-1"}]
        where = f"CUDA_VISIBLE_DEVICES is {visible!r}"
    else:
        tool = shutil.which("nvidia-smi")
        listed = subprocess.run([tool, "-L"], capture_output=True, text=True, check=False).stdout if tool else ""
        names = [str(i) for i in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]
        where = "nvidia-smi -L lists none"
    if not names:
        raise UserError(f"--command_launcher multi_gpu found no GPU: {where}; use --command_launcher local")
    return names


def _run(
    slots: list[dict[str, str]],
    commands: Sequence[str],
    labels: Sequence[str] = (),
    skip: Callable[[int], bool] = lambda index: False,
    on_end: Callable[[int, Outcome], str | None] = lambda index, outcome: None,
) -> list[int]:
    """Run in these slots, each with its share of the CPUs for loading processes; show progress."""
    if WORKERS_VARIABLE not in os.environ:
        slots = [{**slot, WORKERS_VARIABLE: str(cpu_count() // len(slots))} for slot in slots]
    on_terminal, width, done = Console(stderr=True).is_terminal, len(str(len(commands))), 0
    with ProgressBar("jobs", len(commands)) as bar:

        def report(index: int, outcome: Outcome) -> None:
            nonlocal done
            done += 1
            why, label = on_end(index, outcome), (labels or commands)[index]
            line = f"{_WORDS.get(outcome.code, 'failed')} {label} ({outcome.seconds:.1f} s)"
            line += f": {why}" if why else ""
            bar.advance(1, line)
            if not on_terminal:
                print(f"[{done:{width}}/{len(commands)}] {line}", flush=True)

        return [outcome.code for outcome in Pool(slots).run(commands, report, skip)]


class Pool:
    """Runs commands as child processes in slots, one at a time in each, with the slot's environment variables."""

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self._slots = list(slots)  # those that are free
        self._size = len(slots)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self, commands: Sequence[str], on_done: Callable[[int, Outcome], None], skip: Callable[[int], bool]
    ) -> list[Outcome]:
        """Run all commands, no shell between; return their outcomes in the order of the commands.

        ``on_done`` is called by one thread at a time, and not after an interruption. Interrupted, or told to terminate,
        it raises once the children have ended.
        """
        reporting = threading.Lock()

        def work(index: int) -> Outcome:
            outcome = Outcome(ExitCode.LOCKED, [], 0.0) if skip(index) else self._run_one(commands[index])
            with reporting:
                if not self._stopped:
                    on_done(index, outcome)
            return outcome

        with ThreadPoolExecutor(self._size) as threads, terminate_as_interrupt():
            try:  # from here on, as a child may run before the last command is submitted
                return list(threads.map(work, range(len(commands))))
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self._end_all()
                raise

    def _run_one(self, command: str) -> Outcome:
        slot, start = self._slots.pop(0), time.monotonic()  # no more commands run at a time than there are slots
        try:
            # A file, no pipe: a child that outlives this process goes on writing.
            with tempfile.TemporaryFile() as stderr:
                with self._lock:
                    if self._stopped:
                        return Outcome(ExitCode.NOT_RUN, ["not started"], 0.0)
                    child = subprocess.Popen(
                        shlex.split(command),
                        env={**os.environ, **slot},
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=stderr,
                        start_new_session=True,
                    )
                    self._running.add(child)
                child.wait()
                _end_group(child.pid)
                with self._lock:
                    self._running.discard(child)
                stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 20_000))
                last_lines = stderr.read().decode(errors="replace").splitlines()[-20:]
                return Outcome(child.returncode, last_lines, time.monotonic() - start)
        except OSError as error:
            return Outcome(ExitCode.NOT_RUN, [str(error)], time.monotonic() - start)
        finally:
            self._slots.append(slot)

    def _end_all(self) -> None:
        """SIGTERM to the running children and, after the grace time, SIGKILL, to what they started as well.

        Being interrupted once more ends the grace time.
        """
        with self._lock:
            self._stopped = True
            children = list(self._running)
        for child in children:
            child.terminate()  # it alone: it ends its own processes
        deadline = time.monotonic() + GRACE
        with contextlib.suppress(KeyboardInterrupt):
            while time.monotonic() < deadline and any(child.poll() is None for child in children):
                time.sleep(0.05)
        for child in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)


def _end_group(group: int) -> None:
    """End what a child has left behind, such as the loading processes of one that was killed."""
    deadline = time.monotonic() + LEFTOVERS_GRACE
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:  # most end by themselves
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)
