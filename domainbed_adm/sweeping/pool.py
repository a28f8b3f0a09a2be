"""Child processes of a launch: so many commands at a time, each in a slot with environment variables of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import IO, NamedTuple

from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping import worker
from domainbed_adm.system.process import ENDING, terminate_as_interrupt

#: Seconds that a child has to end after SIGTERM, and what it has left behind to end by itself.
GRACE, LEFTOVERS_GRACE = 10.0, 2.0
#: Exit codes of a command that was told to end; negative where it had no time yet to hear it.
INTERRUPTIONS = {ExitCode.INTERRUPTED, *(-number for number in ENDING)}


class Outcome(NamedTuple):
    """How one command ended: exit code (negative for a signal), last lines of standard error, how long it ran."""

    code: int
    stderr: list[str]
    seconds: float


#: Of a command that was not started: as its launcher was told to end, or as another process has the job.
NOT_STARTED, SKIPPED = Outcome(ExitCode.NOT_RUN, ["not started"], 0.0), Outcome(ExitCode.LOCKED, [], 0.0)


class Pool:
    """Runs commands as child processes in slots, one at a time in each, with the slot's environment variables.

    With ``reuse`` each slot keeps a worker, which runs those commands that train; another takes the place of one that
    has ended.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]], reuse: bool = False) -> None:
        self._slots = [Slot(slot, reuse) for slot in slots]  # those that are free
        self._size = len(slots)
        self._running: set[Slot] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self, commands: Sequence[str], on_done: Callable[[int, Outcome], None], skip: Callable[[int], bool]
    ) -> list[Outcome]:
        """Run all commands, no shell between; return their outcomes in the order of the commands.

        ``on_done`` is called by one thread at a time, and not after an interruption. Interrupted, or told to terminate,
        it raises once the children have ended.
        """
        reporting, taking, indices = threading.Lock(), threading.Lock(), iter(range(len(commands)))
        outcomes = [NOT_STARTED] * len(commands)

        def work() -> None:
            while not self._stopped:
                with taking:
                    index = next(indices, None)
                if index is None:
                    return
                outcomes[index] = outcome = SKIPPED if skip(index) else self._run_one(commands[index])
                with reporting:
                    if not self._stopped:
                        on_done(index, outcome)

        try:
            with ThreadPoolExecutor(self._size) as threads, terminate_as_interrupt():
                try:  # from here on, as a child may run before the last thread is started
                    each = [threads.submit(work) for _ in range(min(self._size, len(commands)))]
                    for ended in as_completed(each):
                        ended.result()
                except BaseException:
                    self._end_all()
                    raise
        finally:
            for slot in self._slots:
                slot.close()
        return outcomes

    def _run_one(self, command: str) -> Outcome:
        slot, start = self._slots.pop(0), time.monotonic()  # no more commands run at a time than there are slots
        try:
            with self._lock:
                if self._stopped:
                    return NOT_STARTED
                slot.start(shlex.split(command))
                self._running.add(slot)
            code = slot.wait()
            with self._lock:
                self._running.discard(slot)
            return Outcome(code, slot.last_lines(), time.monotonic() - start)
        except OSError as error:
            return Outcome(ExitCode.NOT_RUN, [str(error)], time.monotonic() - start)
        finally:
            self._slots.append(slot)

    def _end_all(self) -> None:
        with self._lock:
            self._stopped = True
            running = list(self._running)
        end(running)


class Slot:
    """Runs one command at a time: in a process of its own or, with ``reuse``, in a worker that stays.

    Attributes:
        child: the process that runs the command, or the worker, which passes SIGTERM on to the job and ends with it.
    """

    child: subprocess.Popen[bytes]

    def __init__(self, environment: Mapping[str, str], reuse: bool) -> None:
        self._environment, self._reuse = environment, reuse
        self._worker: subprocess.Popen[bytes] | None = None
        self._job: int | None = None  # process id, where the worker has told it
        self._in_worker = False
        self._stderr: IO[bytes] | None = None

    def start(self, command: Sequence[str]) -> None:
        """Start a command; returns at once."""
        if self._stderr is None:
            # A file, no pipe: a child that outlives this process goes on writing. All children of the slot share it.
            self._stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._stderr.seek(0)
        self._stderr.truncate()
        self._job, words = None, worker.words_of(command) if self._reuse else None
        self._in_worker = words is not None
        if words is None:
            self.child = self._process(command, subprocess.DEVNULL)
            return
        if self._worker is None or self._worker.poll() is not None:
            self._end_worker()
            self._worker = self._process([sys.executable, "-m", worker.__name__], subprocess.PIPE)
        self.child = self._worker
        _there(self.child.stdin).write(json.dumps(words).encode() + b"\n")

    def _process(self, command: Sequence[str], streams: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            env={**os.environ, **self._environment},
            stdin=streams,
            stdout=streams,
            stderr=self._stderr,
            bufsize=0,
            start_new_session=True,
        )

    def wait(self) -> int:
        """Wait for the command's end, and end what it has left behind; returns the exit code, negative for a signal."""
        if not self._in_worker:
            code = self.child.wait()
            _end_group(self.child.pid)
            return code
        answers = _there(self.child.stdout)
        if told := answers.readline():
            self._job = int(told)
        told = answers.readline()
        if not told:  # the worker was killed, and with it what it ran
            self.kill()
        code = int(told) if told else self.child.wait()
        if self._job:
            _end_group(self._job)
        return code

    def kill(self) -> None:
        """SIGKILL to the child and to all that it has started."""
        for group in (self.child.pid, self._job):
            if group:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(group, signal.SIGKILL)

    def last_lines(self) -> list[str]:
        """What the command last wrote to its standard error."""
        stderr = _there(self._stderr)
        stderr.seek(max(0, stderr.seek(0, os.SEEK_END) - 20_000))
        return stderr.read().decode(errors="replace").splitlines()[-20:]

    def close(self) -> None:
        """End the worker, which has no job, and let go of the files."""
        self._end_worker()
        if self._stderr:
            self._stderr.close()
            self._stderr = None

    def _end_worker(self) -> None:
        if self._worker:
            with self._worker:
                _there(self._worker.stdin).close()
            self._worker = None


def end(slots: Sequence[Slot]) -> None:
    """SIGTERM to what runs in these slots and, after the grace time, SIGKILL, to what they started as well.

    Being interrupted once more ends the grace time.
    """
    for slot in slots:
        slot.child.terminate()  # it alone: it ends its own processes
    deadline = time.monotonic() + GRACE
    with contextlib.suppress(KeyboardInterrupt):
        while time.monotonic() < deadline and any(slot.child.poll() is None for slot in slots):
            time.sleep(0.05)
    for slot in slots:
        slot.kill()


def _there(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


def _end_group(group: int) -> None:
    """End what a child has left behind, such as the loading processes of one that was killed."""
    deadline = time.monotonic() + LEFTOVERS_GRACE
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < deadline:  # most end by themselves
            os.killpg(group, 0)
            time.sleep(0.02)
        os.killpg(group, signal.SIGKILL)
