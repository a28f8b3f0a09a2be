"""The launcher ``ray``: each job is a task of a Ray cluster, and a command on the node where Ray puts it.

The nodes share the sweep's disk, and have this environment at the same path. The process that launches keeps so many
tasks in flight as fit the cluster, so that a sweep of 67,200 jobs is never 67,200 tasks. A task whose node or worker is
lost is run again by Ray, and goes on from the job's last checkpoint. Whatever ends a task, a worker or the launch, its
command hears SIGTERM.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from domainbed_adm.errors import UserError, one_line
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping.launchers.progress import progress
from domainbed_adm.sweeping.pool import GRACE, NOT_STARTED, SKIPPED, Outcome, Slot, end
from domainbed_adm.system.process import WORKERS_VARIABLE, cpu_count, terminate_as_interrupt

#: How often Ray runs a job again whose node or worker it has lost, before the job counts as failed.
LOST_RETRIES = 10
#: Seconds: to wait for Ray's address to answer; between looks at the nodes; between a task's looks at its command.
_ANSWER, _LOOK, _POLL = 5.0, 5.0, 0.1
#: What begins a connection of HTTP/2 (RFC 9113, 3.4), with empty settings, and the type of the frame that answers.
_HELLO, _SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"\4"
#: Variables of this process that commands get on their nodes. Of all others they have the node's.
_SENT = ("PYTHONPATH", "OMP_NUM_THREADS", WORKERS_VARIABLE)
#: What runs a command: it hears SIGTERM when the worker that has started it dies, and begins in the launch's folder.
_START = """
import ctypes, os, signal, sys
parent, folder, *words = sys.argv[1:]
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
if os.getppid() != int(parent):
    sys.exit(130)
try:
    os.chdir(folder)
    os.execvp(words[0], words)
except OSError as error:
    print(error, "on", os.uname().nodename, file=sys.stderr)
    sys.exit(127)
"""


def check(ray_address: str = "auto", gpus_per_job: float | None = None) -> None:
    """Connect, and find a node that can run a job.

    Raises:
        UserError: Ray is not installed or does not answer, or no node can.
    """
    _gpus(_connected(ray_address), gpus_per_job)


def launch(
    commands: Sequence[str],
    jobs: int = sys.maxsize,
    ray_address: str = "auto",
    gpus_per_job: float | None = None,
    labels: Sequence[str] = (),
    skip: Callable[[int], bool] = lambda index: False,
    on_end: Callable[[int, Outcome], str | None] = lambda index, outcome: None,
) -> list[int]:
    """Run each command as a task with one CPU and ``gpus_per_job`` GPUs: as many at a time as fit, at most ``jobs``."""
    ray = _connected(ray_address)
    gpus = _gpus(ray, gpus_per_job)
    # max_calls: what holds the GPU is the command, so that its worker may serve again; by default Ray starts another
    run = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=LOST_RETRIES, max_calls=0)(run_command)
    sent = {name: os.environ[name] for name in _SENT if name in os.environ}
    here = str(Path.cwd())
    outcomes, flying, indices = [NOT_STARTED] * len(commands), dict[Any, int](), iter(range(len(commands)))
    with progress(commands, labels, on_end) as report, terminate_as_interrupt():

        def ended(index: int, outcome: Outcome) -> None:
            outcomes[index] = outcome
            report(index, outcome)

        try:
            left = True
            while left or flying:
                room = min(jobs, sum(_fits(node, gpus) for node in _nodes(ray)))
                while left and len(flying) < room:
                    index = next(indices, None)
                    left = index is not None
                    if index is None:
                        break
                    if skip(index):
                        ended(index, SKIPPED)
                    else:
                        flying[run.remote(shlex.split(commands[index]), here, sent, gpus, jobs)] = index
                if flying:
                    for task in ray.wait(list(flying), timeout=_LOOK)[0]:
                        ended(flying.pop(task), _outcome(ray, task))
                elif left:  # all nodes are gone
                    time.sleep(_LOOK)
        except BaseException:
            _cancel(ray, list(flying))
            raise
    return [outcome.code for outcome in outcomes]


def run_command(
    words: Sequence[str], folder: str, sent: Mapping[str, str], gpus: float, jobs: int
) -> tuple[int, list[str], float]:
    """The task: run a command, and return its outcome. Told to end, it ends the command by SIGTERM, and waits for it.

    It polls: Ray cancels a task by a KeyboardInterrupt, which comes between two lines of Python, not into a wait.
    """
    ray: Any = importlib.import_module("ray")
    own = ray.get_runtime_context().get_node_id()
    beside = max([1, *(min(jobs, _fits(node, gpus)) for node in _nodes(ray) if node["NodeID"] == own)])
    slot = Slot({WORKERS_VARIABLE: str(cpu_count() // beside), **sent}, reuse=False)
    start = time.monotonic()
    with _told_to_end() as told:
        slot.start([sys.executable, "-S", "-c", _START, str(os.getpid()), folder, *words])
        try:
            while slot.child.poll() is None and not told.wait(_POLL):
                pass
        finally:  # also where Ray ends this process, by SIGTERM
            if slot.child.poll() is None:
                end([slot])
        outcome = slot.wait(), slot.last_lines(), time.monotonic() - start
    slot.close()
    return outcome


@contextlib.contextmanager
def _told_to_end() -> Iterator[threading.Event]:
    """Yield what is set when Ray cancels the task. An exception instead could come before the command is known."""
    told = threading.Event()

    def tell(number: int, frame: FrameType | None) -> None:
        told.set()

    before = signal.signal(signal.SIGINT, tell)
    try:
        yield told
    finally:
        signal.signal(signal.SIGINT, before)


def _outcome(ray: Any, task: Any) -> Outcome:
    try:
        return Outcome(*ray.get(task))
    except ray.exceptions.TaskCancelledError:  # by someone else than this launch
        return Outcome(ExitCode.INTERRUPTED, [], 0.0)
    except ray.exceptions.RayTaskError as error:  # such as of a node that lacks this package
        return Outcome(ExitCode.NOT_RUN, [one_line(error.cause)], 0.0)
    except ray.exceptions.RayError as error:
        return Outcome(ExitCode.RETRY, [f"Ray has lost it {LOST_RETRIES + 1} times: {one_line(error)}"], 0.0)


def _cancel(ray: Any, tasks: list[Any]) -> None:
    """End tasks, and wait until their commands have ended; being interrupted once more ends the wait."""
    with contextlib.suppress(KeyboardInterrupt, ray.exceptions.RayError):
        for task in tasks:
            ray.cancel(task)
        if tasks:
            ray.wait(tasks, num_returns=len(tasks), timeout=GRACE + _LOOK)


def _connected(address: str) -> Any:
    """The module ``ray``, connected for as long as this process lives.

    Raises:
        UserError: it is not installed, or nothing answers.
    """
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError as error:
        raise UserError("--command_launcher ray needs Ray: pip install 'domainbed-adm[ray]'") from error
    if ray.is_initialized():
        return ray
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    if address != "auto":
        _check_answers(address)
    heard = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
    except Exception as error:
        where = "this machine has none that runs" if address == "auto" else f"{address} does not let this in"
        raise UserError(
            f"no Ray to launch on: {where} ({one_line(error)}); start one (ray start --head), or name one by "
            "--ray_address HOST:PORT"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, heard)  # Ray's own would end this process with another exit code
    return ray


def _check_answers(address: str) -> None:
    """Ray itself would try for minutes, and might abort the process.

    Raises:
        UserError: nothing listens there, or it does not speak HTTP/2, as Ray's gRPC does.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--ray_address must be auto, HOST:PORT or ray://HOST:PORT, not {address!r}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _ANSWER) as connection:
            connection.sendall(_HELLO)
            answer = connection.recv(4)
    except (OSError, OverflowError) as error:
        raise UserError(f"no Ray answers at {address}: {one_line(error)}") from error
    if answer[3:] != _SETTINGS and os.environ.get("RAY_USE_TLS", "0") == "0":
        raise UserError(
            f"what answers at {address} is no Ray: its port is 6379, or 10001 of ray://, unless told otherwise"
        )


def _nodes(ray: Any) -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _fits(node: Mapping[str, Any], gpus: float) -> int:
    """How many jobs fit a node at a time. Ray gives fractions of one GPU, or whole ones."""
    has, slots = node["Resources"], int(node["Resources"].get("CPU", 0))
    if not gpus:
        return slots
    there = int(has.get("GPU", 0))
    return min(slots, there * int(1 / gpus + 1e-6) if gpus <= 1 else there // int(gpus))


def _gpus(ray: Any, asked: float | None) -> float:
    """GPUs a job: where it is not said, 1 where the nodes have any.

    Raises:
        UserError: no node can run a job.
    """
    nodes = _nodes(ray)
    most = max([0, *(int(node["Resources"].get("GPU", 0)) for node in nodes)])
    gpus = min(1.0, most) if asked is None else asked
    if gpus > 1 and gpus != int(gpus):
        raise UserError(f"--gpus_per_job must be a fraction of one GPU or a whole number, not {gpus:g}")
    if gpus > most:
        raise UserError(f"--gpus_per_job {gpus:g}: no node of this Ray has more than {most} GPUs")
    if not any(_fits(node, gpus) for node in nodes):
        raise UserError(f"no node of this Ray has a CPU for a job{' beside its GPUs' if gpus else ''}")
    return gpus
