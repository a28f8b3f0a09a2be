"""Who starts a job: a lock on one byte of ``.claims`` in the sweep's folder, held from before it starts to its end.

The lock of the job's own folder, which ``train`` holds, settles who trains there. But ``train`` needs a second to come
so far; a claim takes microseconds, so that workers side by side pass over each other's jobs without starting them. The
system drops a claim with the process that holds it. Where a disk has no such locks everything is free to claim.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from domainbed_adm.run_files import CLAIMS

#: What the system says where another process holds the byte; anything else says that there are no locks.
_HELD = {errno.EACCES, errno.EAGAIN}


class Claims:
    """This process's claims on the jobs of one sweep's folder, by their names, which are hexadecimal numbers."""

    def __init__(self, folder: Path) -> None:
        self._path, self._file = folder / CLAIMS, -1

    def take(self, name: str) -> bool:
        """Claim a job; False where another process has claimed it. One that this process has is claimed again."""
        try:
            if self._file < 0:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _byte(name))
        except OSError as error:
            return error.errno not in _HELD
        return True

    def drop(self, name: str) -> None:
        """Let go of a job."""
        if self._file >= 0:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _byte(name))
            except OSError:  # a disk without such locks
                return

    def close(self) -> None:
        """Let go of all."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _byte(name: str) -> int:
    """Of md5's 128 bits, as many as an offset in a file can have."""
    return int(name[:15], 16)
