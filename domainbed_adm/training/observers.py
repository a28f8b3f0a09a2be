"""What is looked at beside training, at each checkpoint, where a flag asks for it; none of it changes the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from domainbed_adm.errors import UserError
from domainbed_adm.records import Record
from domainbed_adm.run_files import DIFFICULTY, TENSORBOARD
from domainbed_adm.system.console import warn
from domainbed_adm.training import tensorboard
from domainbed_adm.training.difficulty_trace import DifficultyTracer, choose_sample, load_trace
from domainbed_adm.training.folder import checkpoints_before
from domainbed_adm.training.setup import Setup

_LEFT_OUT = "and analyze difficulty and report leave it out"


def check_observers(run: Setup) -> None:
    """Refuse what cannot be had of ``run``; reads and writes no file.

    Raises:
        UserError: there are not so many images, or a library is missing.
    """
    if run.tensorboard:
        tensorboard.check_available()
    if _traces(run):
        choose_sample(run, _size(run))


def warn_of_trace(run: Setup, path: Path) -> None:
    """Say where the ``difficulty.npz`` of a finished run is not the trace that is asked for."""
    fault = None
    if _traces(run) and not path.exists():
        fault = "it was trained without --trace_difficulty"
    elif _traces(run):
        try:
            trace = load_trace(path)
            if trace.images != choose_sample(run, _size(run)):
                fault = f"{path} traces {len(trace.sample)} images, other ones than asked for"
            elif trace.step.tolist() != checkpoints_before(run, run.n_steps):
                fault = f"{path} lacks checkpoints, {_LEFT_OUT}"
        except UserError as error:
            fault = str(error)
    if fault:
        warn(f"{fault}; --restart redoes the run with the trace asked for")


@contextmanager
def observing(run: Setup, output_dir: Path, next_step: int) -> Iterator[Callable[[Record], None]]:
    """Within the block, a function to call with each record once it is written; a run that goes on is traced further.

    Raises:
        UserError: a library or the images for it are missing, the trace there is another's, or the disk is full.
    """
    tracer = None
    path = output_dir / DIFFICULTY
    if _traces(run):
        tracer = DifficultyTracer(run, path, _size(run), next_step)
        if tracer.trace.step.tolist() != checkpoints_before(run, next_step):
            warn(f"{path} lacks checkpoints before step {next_step}, {_LEFT_OUT}; --restart traces all")
    elif path.exists():
        warn(f"{path} ends, as the run goes on without --trace_difficulty, {_LEFT_OUT}: give the flag to go on with it")
    with tensorboard.opened(run, output_dir / TENSORBOARD, next_step) if run.tensorboard else nullcontext() as write:

        def observe(record: Record) -> None:
            scores = tracer.observe(record["step"]) if tracer else {}
            if write:
                write(record, scores)

        yield observe


def _traces(run: Setup) -> bool:
    """Whether the difficulty is traced."""
    return run.trace_difficulty is not None or run.tensorboard


def _size(run: Setup) -> int | None:
    """The number of images asked for; None for the default."""
    return None if run.trace_difficulty is True else run.trace_difficulty
