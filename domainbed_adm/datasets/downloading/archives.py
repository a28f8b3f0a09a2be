"""Unpack zip and tar archives of strangers: nothing lands outside the folder, and a small file cannot fill the disk.

Only folders and regular files are made. A link to a file that stands before it in the archive is unpacked as a copy; an
archive with any other link, a device, a path that leads outside or two files of one name is refused as a whole.
"""

from __future__ import annotations

import contextlib
import lzma
import posixpath
import shutil
import tarfile
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

from domainbed_adm.datasets.downloading.members import Member, Refused, members_of
from domainbed_adm.datasets.downloading.mirrors import is_inner_path
from domainbed_adm.errors import UserError

#: An archive may hold at most so many times its own size, or SMALL where that is more: images hardly compress.
RATIO = 50
SMALL = 256 << 20
MEMBERS = 2_000_000
_CHUNK = 1 << 20
_BROKEN = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError),
    *(ValueError, KeyError, IndexError, NotImplementedError, RuntimeError, OverflowError),
)


@dataclass
class Budget:
    """Bytes and members that may still come out of an archive."""

    archive: Path
    size: int
    members: int
    names: set[str] = field(default_factory=set)

    def take(self, count: int) -> None:
        """Count bytes that came out.

        Raises:
            Refused: they are more than the archive may hold.
        """
        self.size -= count
        if self.size < 0:
            raise Refused(self.archive, f"it unpacks to more than {RATIO} times its size")

    def enter(self, name: str | None) -> None:
        """Count one member, and remember its name where it is a file.

        Raises:
            Refused: there are too many, or one of that name is there.
        """
        self.members -= 1
        if self.members < 0:
            raise Refused(self.archive, f"it holds more than {MEMBERS:,} members")
        if name in self.names:
            raise Refused(self.archive, f"two members are named {name!r}")
        if name is not None:
            self.names.add(name)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive, zip or tar with any usual compression, into a folder.

    Args:
        archive: the file; what it is shows in its content, not in its name.
        folder: existing and of the caller's own making, so that no link lies in it. Other archives may have been
            unpacked there: their files are never overwritten. The caller removes it after an error.

    Raises:
        Refused: it is not unpacked, see this module.
        UserError: it is damaged, or the disk is full.
    """
    try:
        budget = Budget(archive, max(RATIO * archive.stat().st_size, SMALL), MEMBERS)
        with contextlib.closing(members_of(archive, budget.take)) as members:
            for member in members:
                _write(member, folder, budget)
    except UserError:
        raise
    except MemoryError as error:
        raise Refused(archive, "it takes more memory than there is") from error
    except _BROKEN as error:
        raise UserError(f"archive {archive} is damaged or of no known kind: {_one_line(error)}") from error
    except OSError as error:
        raise UserError(f"archive {archive} cannot be unpacked: {error.strerror or _one_line(error)}") from error


def _write(member: Member, folder: Path, budget: Budget) -> None:
    """Write one member below the folder.

    Raises:
        Refused: its name leads outside, its link to no file before it, or the budget is spent.
    """
    name = member.name.replace("\\", "/").rstrip("/") or "/"
    if not is_inner_path(name):
        raise Refused(budget.archive, f"its member {member.name!r} does not lie inside it")
    name = posixpath.normpath(name)
    path, content = folder / name, member.content
    if member.link is not None:
        if member.link not in budget.names:
            raise Refused(budget.archive, f"its member {member.name!r} is a link to no file before it")
        content = partial(cast(Any, (folder / member.link).open), "rb")
    if content is None:
        budget.enter(None)
        path.mkdir(parents=True, exist_ok=True)
        return
    budget.enter(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with content() as source, path.open("xb") as file:
        while chunk := source.read(_CHUNK):
            budget.take(len(chunk))
            file.write(chunk)


def enough_room(archive: Path, folder: Path) -> None:
    """Refuse to begin where the disk has not even room for the archive's own size.

    Raises:
        UserError: there is less.
    """
    free = shutil.disk_usage(folder).free
    if free < archive.stat().st_size:
        raise UserError(f"{folder} has {free >> 20:,} MiB free, {archive.name} needs more: free some or choose another")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
