"""What is kept of a run beside its records: what it prints, and, where a flag asks for it, what its checkpoints show.

None of it changes the run. ``out.txt`` and ``err.txt`` have what is printed.
``tensorboard/`` has the figures of each record as scalars, and histograms of the traced difficulties. Its tags are
those of DomainBed's forks: ``te_<held-out environments>/summary/<figure>`` and ``.../all/env0_in_acc``; histograms are
``.../difficulty/<measure>``.
"""

from __future__ import annotations

import math
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from domainbed_adm.errors import LoadingError, NonFiniteError, UserError
from domainbed_adm.records import Record
from domainbed_adm.run_files import DIFFICULTY, ERR, OUT, TENSORBOARD
from domainbed_adm.system.console import warn
from domainbed_adm.system.disk import writing
from domainbed_adm.training.difficulty_trace import DifficultyTracer, choose_sample, load_trace
from domainbed_adm.training.setup import Setup

_LEFT_OUT = "and analyze difficulty and report leave it out"


def check_observers(run: Setup) -> None:
    """Refuse what cannot be had of ``run``; reads and writes no file.

    Raises:
        UserError: there are not so many images, or a library is missing.
    """
    if run.tensorboard and find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs tensorboard: pip install tensorboard")
    choose_sample(run)


def warn_of_trace(run: Setup, path: Path) -> None:
    """Say where the ``difficulty.npz`` of a finished run is not the trace that is asked for."""
    images, fault = choose_sample(run), ""
    try:
        if images and not path.exists():
            fault = "it was trained without --trace_difficulty"
        elif images:
            trace = load_trace(path)
            if trace.images != images:
                fault = f"{path} traces {len(trace.sample)} images, other ones than asked for"
            elif trace.step.tolist() != run.checkpoints_before(run.n_steps):
                fault = f"{path} lacks checkpoints, {_LEFT_OUT}"
    except UserError as error:
        fault = str(error)
    if fault:
        warn(f"{fault}; --restart redoes the run with the trace asked for")


@contextmanager
def observing(run: Setup, output_dir: Path, next_step: int) -> Iterator[Callable[[Record], None]]:
    """Within the block, a function to call with each record once it is written; a resumed run is traced further."""
    tracer, path = None, output_dir / DIFFICULTY
    if images := choose_sample(run):
        tracer = DifficultyTracer(run, path, images, next_step)
        if tracer.trace.step.tolist() != run.checkpoints_before(next_step):
            warn(f"{path} lacks checkpoints before step {next_step}, {_LEFT_OUT}; --restart traces all")
    elif path.exists():
        warn(f"{path} ends, as the run goes on without --trace_difficulty, {_LEFT_OUT}: give the flag to go on with it")
    with tensorboard_events(run, output_dir / TENSORBOARD, next_step) if run.tensorboard else nullcontext() as write:

        def observe(record: Record) -> None:
            scores = tracer.observe(record["step"]) if tracer else {}
            if write:
                write(record, scores)

        yield observe


@contextmanager
def tensorboard_events(
    run: Setup, folder: Path, next_step: int
) -> Iterator[Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], None]]:
    """Within the block, a function that adds a record's numbers, and a histogram of each measure's finite scores.

    TensorBoard then shows nothing that was written earlier for steps from ``next_step`` on. An error of the block goes
    before one of closing the file.
    """
    from torch.utils.tensorboard import SummaryWriter

    prefix = "te_" + "_".join(run.dataset.environments[env] for env in run.args["test_envs"])

    def write(record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
        with writing(folder):
            for name, value in record.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    group = "all" if name.endswith("_acc") else "summary"
                    events.add_scalar(f"{prefix}/{group}/{name}", value, record["step"])
            for name, values in scores.items():
                events.add_histogram(f"{prefix}/difficulty/{name}", values[np.isfinite(values)], record["step"])
            events.flush()

    with _no_traceback_of_the_writing_thread():
        with writing(folder):
            events: Any = SummaryWriter(str(folder), purge_step=next_step)
        try:
            yield write
        except BaseException:
            with suppress(Exception):
                events.close()
            raise
        with writing(folder):
            events.close()


@contextmanager
def _no_traceback_of_the_writing_thread() -> Iterator[None]:
    before = threading.excepthook  # what that thread meets is raised again by the next call to write

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


class _Tee:
    """Writes to a stream and at once to the end of a file, where what cannot be encoded, of a name say, is escaped."""

    def __init__(self, stream: TextIO, path: Path) -> None:
        self._stream, self._path = stream, path
        with writing(path):
            self._file = path.open("ab", buffering=0)

    def write(self, text: str) -> int:
        with writing(self._path):
            self.log(text)
        return self._stream.write(text)

    def log(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "backslashreplace"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close(self) -> None:
        self._file.close()


@contextmanager
def teed(output_dir: Path) -> Iterator[None]:
    """Within the block, what is printed also goes to out.txt and err.txt, an error to err.txt."""
    with (
        closing(_Tee(sys.stdout, output_dir / OUT)) as out,
        closing(_Tee(sys.stderr, output_dir / ERR)) as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            yield
        except BaseException as error:
            expected = isinstance(error, (UserError, NonFiniteError, LoadingError))
            told = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) if expected else ""
            with suppress(OSError):  # as far as there is room
                err.log(f"{told}\n" if told else traceback.format_exc())
            raise
