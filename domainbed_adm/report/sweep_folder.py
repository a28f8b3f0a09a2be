"""What a sweep's folder holds: its recorded runs, the state of all its runs, and what reading them warned of."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.notes import end_step, reached_steps
from domainbed_adm.recorded_run import Run, Runs
from domainbed_adm.records import load_runs
from domainbed_adm.run_files import RESULTS, RUN_MARKS, is_pruned
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.jobs import DONE, FAILED, INCOMPLETE, RUNNING, Job, state_of

#: The state of a run that a search has stopped before its end.
PRUNED = "stopped early"


class RunFolder(NamedTuple):
    """A run's folder, whether or not it has records."""

    folder: Path
    state: str  # of ``sweeping.jobs.STATES``, or ``PRUNED``
    label: str  # what it trains; the folder's name where unknown


class SweepFolder(NamedTuple):
    """A sweep as its folder has it."""

    root: Path
    recorded: Runs  # those with records
    runs: list[RunFolder]  # all, in order
    warnings: list[str]  # a line for each, as reading told them

    def counts(self) -> dict[str, int]:
        """How many runs are done, failed and running, and, where there are any, in another state."""
        return {DONE: 0, FAILED: 0, RUNNING: 0} | Counter(run.state for run in self.runs)


def read_sweep(root: Path) -> SweepFolder:
    """Read a sweep's folder, or one run's.

    Raises:
        UserError: there is no such folder, or neither a record nor a run in it.
    """
    if not root.is_dir():
        raise UserError(f"no folder {root}: give the output_dir of a sweep or of one run")
    warnings: list[str] = []
    folders = [
        folder for folder in (root, *sorted(root.iterdir())) if any((folder / name).exists() for name in RUN_MARKS)
    ]
    with kept_warnings(warnings):
        unrecorded = bool(folders) and not any((folder / RESULTS).exists() for folder in folders)
        recorded = Runs() if unrecorded else load_runs(root)  # all failed, or have just begun
    reached = reached_steps(recorded)
    by_folder = {run.folder: run for run in reversed(recorded)}  # of several in one folder, the first
    runs = [_run_folder(folder, by_folder.get(folder), reached) for folder in folders]
    return SweepFolder(root, recorded, runs, warnings)


@contextlib.contextmanager
def kept_warnings(warnings: list[str]) -> Iterator[None]:
    """Add what the block warns of to ``warnings``; what they do not have yet is also told on standard error."""
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr):
            yield
    finally:
        for line in stderr.getvalue().splitlines():
            message = line.removeprefix("warning: ")
            if message not in warnings:
                print(line, file=sys.stderr)
                warnings.append(message)


def _run_folder(folder: Path, recorded: Run | None, reached: dict[tuple[str, int | None], int]) -> RunFolder:
    state = state_of(folder)
    failure = failures.read(folder) if state == FAILED else None
    label = Job(recorded.args, folder.parent).label if recorded else (failure and failure.job) or folder.name
    if state == INCOMPLETE and recorded and recorded.last_step >= end_step(recorded, reached):
        state = DONE  # records that were copied without the file ``done``
    if is_pruned(folder):
        state = PRUNED
    return RunFolder(folder, state, label)
