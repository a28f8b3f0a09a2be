"""Files that are written whole or not at all; a full disk, a quota or a limit is one line."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from domainbed_adm.errors import UserError


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
        free = shutil.disk_usage(path.parent).free / 2**20
        raise UserError(
            f"cannot write {path}: {refusal.strerror} ({free:.0f} MiB free on its disk). "
            "When there is room, the same command goes on from the last checkpoint"
        ) from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file beside ``path`` to write to; at the block's end it is synced and renamed, and is gone after an error.

    Raises:
        UserError: the system refuses; ``path`` is as it was.
    """
    unfinished = path.with_name(path.name + ".unfinished")
    with writing(path):
        try:
            with unfinished.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's error behind ``error``: torch.save has its own on top."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
