"""Run commands as child processes, a few at a time, and end them all when the sweep is interrupted."""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, NamedTuple

from domainbed_adm.run_files import ExitCode
from domainbed_adm.system.signals import terminate_as_interrupt

#: Seconds that a child has to end after SIGTERM.
GRACE = 10.0
#: Seconds that what a child has left behind has to end.
LEFTOVERS_GRACE = 2.0
#: How many last lines of a child's standard error are kept, and of at most so many bytes.
_LINES, _BYTES = 20, 20_000


class Outcome(NamedTuple):
    """How one command ended.

    Attributes:
        code: exit code, negative for a signal.
        stderr: the last lines of its standard error stream.
        seconds: how long it ran.
    """

    code: int
    stderr: list[str]
    seconds: float


class Pool:
    """Runs commands in slots, one at a time in each.

    Args:
        slots: the environment variables of each slot, on top of this process's own.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]]) -> None:
        self._slots: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for slot in slots:
            self._slots.put(slot)
        self._size = len(slots)
        self._running: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(
        self,
        commands: Sequence[str],
        on_done: Callable[[int, Outcome], None],
        skip: Callable[[int], bool] = lambda index: False,
    ) -> list[Outcome]:
        """Run all commands; return their outcomes in the order of the commands.

        Args:
            commands: shell-quoted words; no shell runs them.
            on_done: called with (index, outcome) as each ends, by one thread at a time; not after an interruption.
            skip: asked right before a start whether another process has the job; it is not run then, with code 75.

        Raises:
            KeyboardInterrupt: interrupted, or told to terminate; the children have ended.
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
                futures = [threads.submit(work, index) for index in range(len(commands))]
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self._end_all()
                raise

    def _run_one(self, command: str) -> Outcome:
        slot, start = self._slots.get(), time.monotonic()
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
                return Outcome(child.returncode, _last_lines(stderr), time.monotonic() - start)
        except OSError as error:
            return Outcome(ExitCode.NOT_RUN, [str(error)], time.monotonic() - start)
        finally:
            self._slots.put(slot)

    def _end_all(self) -> None:
        """End the running children: SIGTERM, then SIGKILL, to what they started as well, after the grace time.

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


def _last_lines(stream: IO[bytes]) -> list[str]:
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _BYTES))
    return stream.read().decode(errors="replace").splitlines()[-_LINES:]
