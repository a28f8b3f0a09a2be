"""Run commands as child processes, a few at a time, and end them all when the sweep is interrupted."""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import NamedTuple, NoReturn

#: Seconds that a child has to end after SIGTERM.
GRACE = 10.0
#: Exit code of a command that was not started, or that could not be.
NOT_RUN = 127


class Outcome(NamedTuple):
    """How one command ended.

    Attributes:
        code: exit code, negative for a signal.
        last_line: of its standard error stream.
        seconds: how long it ran.
    """

    code: int
    last_line: str
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
        self._running: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, commands: Sequence[str], on_done: Callable[[int, Outcome], None]) -> list[Outcome]:
        """Run all commands; return their outcomes in the order of the commands.

        Args:
            commands: shell-quoted words; no shell runs them.
            on_done: called with (index, outcome) as each ends, by one thread at a time.

        Raises:
            KeyboardInterrupt: interrupted, or told to terminate; the children have ended.
        """
        reporting = threading.Lock()

        def work(index: int) -> Outcome:
            outcome = self._run_one(commands[index])
            with reporting:
                if not self._stopped:
                    on_done(index, outcome)
            return outcome

        with ThreadPoolExecutor(self._size) as threads, _terminate_as_interrupt():
            futures = [threads.submit(work, index) for index in range(len(commands))]
            try:
                return [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                self._end_all()
                raise

    def _run_one(self, command: str) -> Outcome:
        slot, start = self._slots.get(), time.monotonic()
        try:
            child = self._start(command, slot)
            if child is None:
                return Outcome(NOT_RUN, "not started", 0.0)
            last = ""
            with child:
                for line in child.stderr or ():
                    last = line.strip() or last
            with self._lock:
                self._running.discard(child)
            return Outcome(child.returncode, last, time.monotonic() - start)
        except OSError as error:
            return Outcome(NOT_RUN, str(error), time.monotonic() - start)
        finally:
            self._slots.put(slot)

    def _start(self, command: str, slot: Mapping[str, str]) -> subprocess.Popen[str] | None:
        with self._lock:
            if self._stopped:
                return None
            child = subprocess.Popen(
                shlex.split(command),
                env={**os.environ, **slot},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                start_new_session=True,
            )
            self._running.add(child)
            return child

    def _end_all(self) -> None:
        """End the running children and what they started: SIGTERM, then SIGKILL after the grace time."""
        with self._lock:
            self._stopped = True
            children = list(self._running)
        for child in children:
            _signal_group(child, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline and any(child.poll() is None for child in children):
            time.sleep(0.05)
        for child in children:
            _signal_group(child, signal.SIGKILL)


def _signal_group(child: subprocess.Popen[str], number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


@contextlib.contextmanager
def _terminate_as_interrupt() -> Iterator[None]:
    """While open, SIGTERM and SIGHUP raise KeyboardInterrupt, so that no child outlives the sweep."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
