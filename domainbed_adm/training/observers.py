"""What is looked at beside training, at each checkpoint; none of it changes the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domainbed_adm.errors import UserError
from domainbed_adm.records import Record
from domainbed_adm.run_files import DIFFICULTY, TENSORBOARD
from domainbed_adm.system.console import warn
from domainbed_adm.training import tensorboard
from domainbed_adm.training.difficulty_trace import DifficultyTracer, choose_sample, load_trace
from domainbed_adm.training.folder import checkpoints_before
from domainbed_adm.training.setup import Setup

#: Called with each record, once it is written.
Observer = Callable[[Record], None]


@dataclass(frozen=True)
class Watch:
    """What the user wants to see.

    Attributes:
        trace_difficulty: number of training images to score at each checkpoint, True for the default number; None for
            no trace.
        tensorboard: whether to write events for TensorBoard, with histograms of the trace (which it turns on).
    """

    trace_difficulty: int | Literal[True] | None = None
    tensorboard: bool = False

    @property
    def traces(self) -> bool:
        """Whether the difficulty is traced."""
        return self.trace_difficulty is not None or self.tensorboard

    @property
    def sample_size(self) -> int | None:
        """The number of images asked for; None for the default."""
        return None if self.trace_difficulty is True else self.trace_difficulty

    def check(self, run: Setup) -> None:
        """Refuse what ``run`` cannot give; reads and writes no file.

        Raises:
            UserError: there are not so many images, or a library is missing.
        """
        if self.tensorboard:
            tensorboard.check_available()
        if self.traces:
            choose_sample(run, self.sample_size)


#: Nothing.
UNWATCHED = Watch()


_LEFT_OUT = "and analyze difficulty and report leave it out"


def warn_of_trace(run: Setup, output_dir: Path, watch: Watch) -> None:
    """Say where a finished run has not the trace that ``watch`` asks for."""
    fault = _fault(run, output_dir / DIFFICULTY, watch.sample_size) if watch.traces else None
    if fault:
        warn(f"{fault}; --restart redoes the run with the trace asked for")


def _fault(run: Setup, path: Path, size: int | None) -> str | None:
    if not path.exists():
        return "it was trained without --trace_difficulty"
    try:
        trace = load_trace(path)
    except UserError as error:
        return str(error)
    if trace.images != choose_sample(run, size):
        return f"{path} traces {len(trace.sample)} images, other ones than asked for"
    if trace.step.tolist() != checkpoints_before(run, run.n_steps):
        return f"{path} lacks checkpoints, {_LEFT_OUT}"
    return None


@contextmanager
def watching(run: Setup, output_dir: Path, watch: Watch, next_step: int) -> Iterator[Observer]:
    """Within the block, an observer that does what ``watch`` asks; a run that goes on goes on being watched.

    Raises:
        UserError: a library or the images for it are missing, the trace there is another's, or the disk is full.
    """
    tracer = None
    path = output_dir / DIFFICULTY
    if watch.traces:
        tracer = DifficultyTracer(run, path, watch.sample_size, next_step)
        if tracer.trace.step.tolist() != checkpoints_before(run, next_step):
            warn(f"{path} lacks checkpoints before step {next_step}, {_LEFT_OUT}; --restart traces all")
    elif path.exists():
        warn(f"{path} ends, as the run goes on without --trace_difficulty, {_LEFT_OUT}: give the flag to go on with it")
    folder = output_dir / TENSORBOARD
    with tensorboard.opened(run, folder, next_step) if watch.tensorboard else nullcontext() as events:

        def observe(record: Record) -> None:
            scores = tracer.observe(record["step"]) if tracer else {}
            if events:
                events.write(record, scores)

        yield observe
