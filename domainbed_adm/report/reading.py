"""What a sweep's folder holds: its records, its runs and their states, and what reading them warned of."""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from domainbed_adm.errors import UserError
from domainbed_adm.leaderboard.missing import last_step
from domainbed_adm.records import Record, load_records
from domainbed_adm.run_files import RESULTS, RUN_MARKS
from domainbed_adm.sweeping import failures
from domainbed_adm.sweeping.jobs import DONE, FAILED, INCOMPLETE, RUNNING, Job, state_of

_WARNING = "warning: "


@dataclass(frozen=True)
class Run:
    """One run's folder.

    Attributes:
        folder: where it is.
        state: one of ``sweeping.jobs.STATES``.
        label: what it trains; the folder's name where nothing in it says so.
        reason: why it failed; "" where it did not.
    """

    folder: Path
    state: str
    label: str
    reason: str = ""


@dataclass(frozen=True)
class Reading:
    """A sweep as it was found: ``runs`` in the order of their folders, ``warnings`` a line each."""

    root: Path
    records: list[Record]
    runs: list[Run]
    warnings: list[str]

    def counts(self) -> dict[str, int]:
        """How many runs are done, failed and running, and, where there are any, in another state."""
        found = Counter(run.state for run in self.runs)
        return {DONE: 0, FAILED: 0, RUNNING: 0} | dict(found)


def read(sweep_dir: Path) -> Reading:
    """Read a sweep's folder, or one run's.

    Raises:
        UserError: there is no such folder, or no record in it.
    """
    if not sweep_dir.is_dir():
        raise UserError(f"no folder {sweep_dir}: give the output_dir of a sweep or of one run")
    warnings: list[str] = []
    with heard(warnings):
        records = load_records(sweep_dir)
    reached: dict[str, int] = {}
    for record in records:
        dataset = record["args"]["dataset"]
        reached[dataset] = max(reached.get(dataset, -1), record["step"])
    folders = [folder for folder in (sweep_dir, *sorted(sweep_dir.iterdir())) if _is_run(folder)]
    return Reading(sweep_dir, records, [_run(folder, reached) for folder in folders], warnings)


@contextlib.contextmanager
def heard(warnings: list[str]) -> Iterator[None]:
    """Add what the block warns of to ``warnings``; what they do not have yet is also told on standard error."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    finally:
        for line in said.getvalue().splitlines():
            if line.removeprefix(_WARNING) not in warnings:
                print(line, file=sys.stderr)
                warnings.append(line.removeprefix(_WARNING))


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / name).exists() for name in RUN_MARKS)


def _run(folder: Path, reached: dict[str, int]) -> Run:
    state = state_of(folder)
    if state == DONE:
        return Run(folder, state, "")
    failure = failures.read(folder) if state == FAILED else None
    last = _last_record(folder)
    label = Job(last["args"], folder.parent).label if last else (failure and failure.job) or folder.name
    if state == INCOMPLETE and last and last["step"] >= last_step(last, reached):
        state = DONE  # records that were copied without the file ``done``
    return Run(folder, state, label, failure.reason if failure else "")


def _last_record(folder: Path) -> Record | None:
    if not (folder / RESULTS).is_file():
        return None
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # its warnings were heard before
            found = load_records(folder)
    except UserError:
        return None
    return [record for record in found if record["args"] == found[0]["args"]][-1]
