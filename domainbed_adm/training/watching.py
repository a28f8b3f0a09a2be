"""What is looked at beside training, at each checkpoint; none of it changes the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from domainbed_adm.records import Record
from domainbed_adm.training import difficulty_trace, tensorboard
from domainbed_adm.training.difficulty_trace import DifficultyTracer
from domainbed_adm.training.setup import Setup
from domainbed_adm.training.tensorboard import TensorBoard

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
            difficulty_trace.choose_sample(run, self.sample_size)


#: Nothing.
UNWATCHED = Watch()


@contextmanager
def watching(run: Setup, output_dir: Path, watch: Watch, next_step: int) -> Iterator[Observer]:
    """Within the block, an observer that does what ``watch`` asks; a run that goes on goes on being watched.

    Raises:
        UserError: a library or the images for it are missing, or the trace there is another's.
    """
    tracer, events = None, None
    if watch.traces:
        tracer = DifficultyTracer(run, output_dir / difficulty_trace.FILE_NAME, watch.sample_size, next_step)
    if watch.tensorboard:
        events = TensorBoard(run, output_dir / tensorboard.FOLDER_NAME, next_step)

    def observe(record: Record) -> None:
        scores = tracer.observe(record["step"]) if tracer else {}
        if events:
            events.write(record, scores)

    with closing(events) if events else nullcontext():
        yield observe
