"""What is kept of a run beside its records: what it prints, and, where a flag asks for it, what its checkpoints show.

None of it changes the run. ``out.txt`` and ``err.txt`` have what is printed.
``loggers`` get the figures of each record, and ``difficulty.npz`` the traced difficulties.
"""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

from domainbed_adm.errors import LoadingError, NonFiniteError, UserError
from domainbed_adm.loggers import check_loggers
from domainbed_adm.loggers.watching import Watch, lacking, watched
from domainbed_adm.records import Record
from domainbed_adm.run_files import DIFFICULTY, ERR, OUT, RESULTS
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
    check_loggers(run.loggers)
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
    with watched(_watch(run, run.loggers, output_dir, next_step)) as log:
        yield lambda record: log(record, tracer.observe(record["step"]) if tracer else {})


def log_finished(run: Setup, output_dir: Path) -> None:
    """Tell the loggers of a finished run what they lack of it."""
    if names := lacking(run.loggers, output_dir):
        with watched(_watch(run, names, output_dir, run.n_steps)):
            pass


def _watch(run: Setup, names: list[str], output_dir: Path, next_step: int) -> Watch:
    kept = []
    if names and (path := output_dir / RESULTS).exists():
        for line in path.read_bytes().splitlines():
            with suppress(ValueError):  # a damaged line: readers have warned
                kept.append(json.loads(line))
    config = {"args": run.args, "hparams": run.hparams}
    return Watch(names, output_dir, config, run.dataset.environments, next_step, kept)


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
