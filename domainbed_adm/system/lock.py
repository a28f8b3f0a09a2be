"""The lock of a run's folder: one process trains there at a time, and nobody deletes what it is writing.

It is an ``flock`` on the file ``.lock`` in the folder, by the library filelock. The system drops it with the process
that holds it, however that ends, so there is no stale lock. On a disk that machines share it holds between machines
where the file system passes flock on: NFS version 4, Lustre mounted with ``flock``, CephFS, GPFS. Where there is no
flock at all, a run goes on with a warning, and nothing is deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import warnings
from collections.abc import Iterator
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import LOCK
from domainbed_adm.system.console import warn

#: Seconds to wait for the lock, since whoever asks whether a run is alive holds it for an instant.
_PATIENCE = 1.0


class LockedError(UserError):
    """Another process trains in the folder."""


class NoLocksError(UserError):
    """The folder's file system has no locks."""


@contextlib.contextmanager
def run_lock(output_dir: Path, needed: bool = True) -> Iterator[None]:
    """Hold the folder's lock. The folder is made where absent, and removed again where nothing was written to it.

    Args:
        output_dir: the folder.
        needed: False warns, and goes on without, where the file system has no locks.

    Raises:
        LockedError: another process holds it.
        NoLocksError: there are no locks on this file system.
        UserError: the folder cannot be written.
    """
    made = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    lock = None
    try:
        lock = _acquire(output_dir)
    except NoLocksError as error:
        if needed:
            raise
        warn(f"{error}: see to it that no other process trains there")
    try:
        yield
    finally:
        if lock:
            with contextlib.suppress(OSError):
                (output_dir / LOCK).unlink()  # while it is held: who waits for it sees that it is gone, and starts over
            lock.release()
        with contextlib.suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()


def is_locked(output_dir: Path) -> bool:
    """Whether a process holds the folder's lock now, another user's too; False where that cannot be told.

    Who asks holds the lock for an instant, shared with others who ask, so that they do not take each other for a run.

    Raises:
        PermissionError: the folder may not be looked into.
    """
    path = output_dir / LOCK
    if not path.exists():
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _acquire(output_dir: Path) -> BaseFileLock:
    for _ in range(10):
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            return _flock(output_dir, _PATIENCE)
        except Timeout:
            raise LockedError(f"{output_dir} is being trained by another process") from None
        except FileNotFoundError:
            continue  # another process deleted the folder in between
        except OSError as error:
            raise UserError(f"--output_dir {output_dir} cannot be written: {error.strerror}") from error
    raise UserError(f"--output_dir {output_dir} cannot be written: it is deleted again and again")


def _flock(output_dir: Path, patience: float) -> BaseFileLock:
    lock = FileLock(output_dir / LOCK, timeout=patience)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # older versions raise where there is no flock, newer ones warn
            lock.acquire(poll_interval=0.02)
    except NotImplementedError as error:
        raise NoLocksError(f"the disk of {output_dir} has no locks") from error
    if isinstance(lock, SoftFileLock):  # a mere file, which outlives its process
        lock.release()
        raise NoLocksError(f"the disk of {output_dir} has no locks")
    return lock
