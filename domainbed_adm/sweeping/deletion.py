"""Delete the folders of jobs that did not finish; never one that a process trains in."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from domainbed_adm import run_files
from domainbed_adm.sweeping.jobs import FAILED, INCOMPLETE, Job, with_states
from domainbed_adm.system.lock import LockedError, run_lock


def delete_incomplete(jobs: Sequence[Job]) -> int:
    """Remove the folders of jobs that are incomplete or failed, and no other; return how many.

    Raises:
        UserError: a folder cannot be locked or emptied.
    """
    return sum(_delete(job.output_dir) for job, state in with_states(jobs) if state in {INCOMPLETE, FAILED})


def _delete(folder: Path) -> bool:
    """Remove a job's folder under its lock; False where it has begun to run, or is done, by now."""
    try:
        with run_lock(folder):
            if (folder / run_files.DONE).exists():
                return False
            for path in folder.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path.name != run_files.LOCK:
                    path.unlink()
    except LockedError:
        return False
    with contextlib.suppress(OSError):  # not empty: a process has begun to train there since
        folder.rmdir()
    return True
