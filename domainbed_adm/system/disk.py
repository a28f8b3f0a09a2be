"""Files that are written whole or not at all; a full disk, a quota or a limit is one line."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from domainbed_adm.errors import UserError

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
#: What a process has open, by names that only it understands.
_OPEN = ("/dev/std", "/dev/fd/", "/proc/")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block, a system that refuses to write ``path`` is one line that says what to do.

    Raises:
        UserError: it refuses.
        OSError: never; it becomes a UserError.
        RuntimeError: as raised, where the system did not refuse.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        message = f"cannot write {path}: {refusal.strerror or refusal}"
        if refusal.errno in _NO_ROOM:
            free = shutil.disk_usage(path.parent).free / 2**20
            message += f" ({free:.0f} MiB free on its disk). "
            message += "When there is room, the same command goes on from the last checkpoint"
        raise UserError(message) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` to write to; at the block's end it is synced and renamed, and is gone after an error.

    A symbolic link stays, and the file that it names is replaced. What is no file, such as a pipe or a device, and
    what is open already, as ``/dev/stdout``, is written to directly.

    Raises:
        UserError: the system refuses; ``path`` is as it was.
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
        _sync_folder(target.parent)


def _is_stream(path: Path) -> bool:
    if str(path).startswith(_OPEN):
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """Make a rename in it last through a power cut, on systems that can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's error behind ``error``: torch.save has its own on top."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
