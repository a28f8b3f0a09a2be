"""Files that are written whole or not at all, what the system refuses in one line, and the lock of a run's folder.

The lock lets one process train in a folder at a time, and nobody delete what it is writing. It is an ``flock`` on the
file ``.lock`` there, by the library filelock. The system drops it with the process that holds it, however that ends, so
there is no stale lock. On a disk that machines share it holds between machines where the file system passes flock on:
NFS version 4, Lustre mounted with ``flock``, CephFS, GPFS. Where there is no flock at all, a run goes on with a
warning, and nothing is deleted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import LOCK
from domainbed_adm.system.console import warn

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: What a process has open, by names that only it understands.
_OPEN = ("/dev/std", "/dev/fd/", "/proc/")
#: Seconds to wait for the lock, since whoever asks whether a run is alive holds it for an instant.
_PATIENCE = 1.0


class LockedError(UserError):
    """Another process trains in the folder."""


class RefusedError(UserError):
    """The system refuses to write."""


class NoLocksError(RefusedError):
    """The folder's file system has no locks."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block, a system that refuses to write ``path`` is one line that says what to do.

    Raises:
        RefusedError: it refuses.
        OSError: never; it becomes a RefusedError.
        RuntimeError: as raised, where the system did not refuse.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        refusal: BaseException | None = error
        while refusal is not None and not isinstance(refusal, OSError):
            refusal = refusal.__context__  # torch.save has its own error on top of the system's
        if refusal is None:
            raise
        message = f"cannot write {path}: {refusal.strerror or refusal}"
        if refusal.errno in _NO_ROOM:
            free = shutil.disk_usage(path.parent).free / 2**20
            message += f" ({free:.0f} MiB free on its disk). "
            message += "When there is room, the same command goes on from the last checkpoint"
        raise RefusedError(message) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` to write to; at the block's end it is synced and renamed, and is gone after an error.

    A symbolic link stays, and the file that it names is replaced. What is no file, such as a pipe or a device, and
    what is open already, as ``/dev/stdout``, is written to directly. Where the system refuses, it is a RefusedError,
    and ``path`` is as it was.
    """
    with writing(path):
        if _is_stream(path):
            with path.open("ab") as stream:
                yield stream
            return
        target = Path(os.path.realpath(path))
        unfinished = target.with_name(target.name + ".unfinished")
        try:
            unfinished.unlink(missing_ok=True)  # what a killed process left, or a link to follow
            with unfinished.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(target)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        with contextlib.suppress(OSError):  # let the rename last through a power cut, on systems that can
            handle = os.open(target.parent, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _is_stream(path: Path) -> bool:
    try:
        return str(path).startswith(_OPEN) or not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def run_lock(output_dir: Path, needed: bool = True, patience: float = _PATIENCE) -> Iterator[None]:
    """Hold the folder's lock. The folder is made where absent, and removed again where nothing was written to it.

    Where the file system has no locks, and none is ``needed``, it warns and goes on without. ``patience`` is how many
    seconds to wait for another process, -1 for as long as it takes.

    Raises:
        LockedError: another process holds it.
        NoLocksError: there are no locks on this file system.
        RefusedError: the folder cannot be written.
    """
    made = [folder for folder in (output_dir, *output_dir.parents) if not folder.exists()]
    lock = None
    try:
        lock = _acquire(output_dir, patience)
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


def _acquire(output_dir: Path, patience: float) -> BaseFileLock:
    for _ in range(10):
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            lock = FileLock(output_dir / LOCK, timeout=patience)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # older versions raise where there is no flock, newer ones warn
                lock.acquire(poll_interval=0.02)
        except Timeout:
            raise LockedError(f"{output_dir} is being trained by another process") from None
        except NotImplementedError as error:
            raise NoLocksError(f"the disk of {output_dir} has no locks") from error
        except FileNotFoundError:
            continue  # another process deleted the folder in between
        except OSError as error:
            raise RefusedError(f"--output_dir {output_dir} cannot be written: {error.strerror}") from error
        if isinstance(lock, SoftFileLock):  # a mere file, which outlives its process
            lock.release()
            raise NoLocksError(f"the disk of {output_dir} has no locks")
        return lock
    raise RefusedError(f"--output_dir {output_dir} cannot be written: it is deleted again and again")
