"""Files that cannot be written: a full disk, a quota, a limit."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from domainbed_adm.errors import UserError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within the block, a system that refuses to write ``path`` is one line that says what to do.

    Raises:
        UserError: it refuses.
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


def _refusal(error: BaseException | None) -> OSError | None:
    """The system's error behind ``error``: torch.save has its own on top."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error
