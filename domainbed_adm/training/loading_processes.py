"""Batches of the run's tasks, loaded in this process or in others; whatever happens to those is one line.

A single loader serves training and evaluation, so one number of workers is the run's whole budget, and they live from
start to end. They end with the process that started them, however that ends.
"""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.queues import Queue
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from domainbed_adm.errors import LoadingError, UserError, one_line
from domainbed_adm.system.process import ENDING, held_back
from domainbed_adm.training.batches import Batch, Task, TaskDataset

_TOO_MANY_FILES = "too many open files: raise the limit (ulimit -n 4096), or give --workers 0"


def open_stream(tasks: TaskDataset, schedule: Iterable[Task], workers: int, pin_memory: bool) -> Iterator[Batch]:
    """Yield the batches of the schedule's tasks in order, loaded by ``workers`` processes, or in this one for 0.

    Raises:
        UserError: a sample cannot be loaded, the message names it; or there is no shared memory to hand batches over,
            or too few open files are allowed.
        LoadingError: a loading process was killed.
    """
    # Where fewer files may be open, torch's own threads and processes fail, each with a traceback.
    if workers and resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 32 + 16 * workers:
        raise UserError(_TOO_MANY_FILES)
    try:
        loader = DataLoader(
            _Shared(tasks) if workers else tasks,
            batch_size=None,
            sampler=schedule,
            num_workers=workers,
            pin_memory=pin_memory,
            generator=torch.Generator(),  # the loader's own base seed must not draw from the global generator
            multiprocessing_context=_process_starter() if workers else None,
            worker_init_fn=_begin_worker,
        )
        with held_back(*ENDING):  # a worker whose parent is gone before it is up says so in a traceback
            batches = iter(loader)
    except OSError as error:
        raise UserError(_refused(error)) from error
    return _checked(batches, workers)


class _Shared(Dataset["Batch | str"]):
    """In a worker: batches in shared memory, or why there is none, since an exception would arrive as a traceback."""

    def __init__(self, tasks: TaskDataset) -> None:
        self.tasks = tasks

    def __getitem__(self, task: Task) -> Batch | str:
        tensors: list[Any] = []  # torch states no types for sharing them
        try:
            batch = self.tasks[task]
            tensors = list(batch.tensors)
            for tensor in tensors:
                if tensor.numel():
                    tensor.share_memory_()
            return batch
        except UserError as error:
            return str(error)
        except (RuntimeError, OSError) as error:
            if not tensors:
                raise
            return _refused(error, sum(tensor.nbytes for tensor in tensors))


def _refused(error: RuntimeError | OSError, n_bytes: int = 0) -> str:
    """What to do where the system has no more memory, for a batch of so many bytes, or files to share."""
    if getattr(error, "errno", None) == errno.EMFILE or "Too many open files" in str(error):
        return _TOO_MANY_FILES
    if "AF_UNIX" in str(error):
        return "the path of TMPDIR is too long for a socket: set a shorter one, or give --workers 0"
    if not n_bytes or not any(sign in str(error) for sign in ("No space left", "Cannot allocate")):
        return f"cannot start processes that load data ({one_line(error)}): give --workers 0"
    disk = shutil.disk_usage("/dev/shm")
    return (
        f"a batch of {n_bytes / 2**20:.0f} MiB does not fit into the shared memory, {disk.free / 2**20:.0f} of "
        f"{disk.total / 2**20:.0f} MiB of /dev/shm are free: give --workers 0, a lower hparam batch_size, or more of "
        "it (docker run --shm-size=2g)"
    )


def _checked(batches: Iterator[Batch | str], workers: int) -> Iterator[Batch]:
    while True:
        try:
            batch = next(batches, None)
        except (RuntimeError, OSError, EOFError) as error:
            if not workers or str(error).startswith("Caught "):  # by a worker, of the code that loads a sample
                raise
            if "Too many open files" in str(error):
                raise UserError(_TOO_MANY_FILES) from error
            raise LoadingError(
                "a process that loads data was killed, perhaps for want of memory: another try may do; else give "
                "--workers 0, or a lower hparam batch_size"
            ) from error
        if batch is None:
            return
        if isinstance(batch, str):
            raise UserError(batch)
        yield batch


def _begin_worker(_: int) -> None:
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    sys.excepthook = _silent_when_run_is_gone
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _silent_when_run_is_gone(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The thread that hands over files tells here that the run has hung up, as it does when it is interrupted."""
    if not issubclass(kind, (ConnectionError, EOFError)):
        sys.__excepthook__(kind, error, trace)


def _end_worker(error: Exception, _: object) -> None:
    """A batch could not be sent: by default it is dropped, and the run would wait for it for ever."""
    print(f"a process that loads data cannot hand over a batch: {error}", file=sys.stderr, flush=True)
    os._exit(1)


def _end_with_parent() -> None:
    """A worker's own parent is the server that forked it, which lives as long as its workers do."""
    run = multiprocessing.parent_process()
    if run is not None:
        run.join()
        os._exit(1)


def _process_starter() -> Any:
    """Workers come from a clean server process: a fork of this one, whose threads run, could deadlock."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    resource_tracker.ensure_running()  # first: its start lets Ctrl-C through
    with held_back(signal.SIGINT):  # for good: the terminal sends it to all, and this process ends its workers
        forkserver.ensure_running()
    return context
