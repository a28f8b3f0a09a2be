"""Unpack zip and tar archives; an archive with a member that would land outside the folder is refused."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, cast

from domainbed_adm.datasets.downloading.transfer import ArchiveError
from domainbed_adm.errors import UserError, one_line

_DAMAGED = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(EOFError, ValueError, KeyError, NotImplementedError, RuntimeError),
)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack an archive, zip or tar with any usual compression, into a folder.

    Args:
        archive: the file; what it is shows in its content, not in its name.
        folder: the caller removes it after an error.

    Raises:
        ArchiveError: it is damaged, or a member lies outside.
        UserError: the disk has less room than the archive's own size.
        OSError: the disk is full or cannot be written.
    """
    if (free := shutil.disk_usage(folder).free) < archive.stat().st_size:
        raise UserError(f"{folder} has {free >> 20:,} MiB free, {archive.name} needs more: free some or choose another")
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
                _check_end(cast(IO[bytes], tar.fileobj), tar.offset)
        else:
            with zipfile.ZipFile(archive) as packed:
                _check_names(packed.namelist())
                packed.extractall(folder)
    except _DAMAGED as error:
        raise ArchiveError(f"{archive.name} is damaged or no archive: {one_line(error)}") from error
    except OSError as error:
        if error.errno is None:  # of gzip and bz2, which found something else than their format
            raise ArchiveError(f"{archive.name} is damaged: {one_line(error)}") from error
        raise


def _check_end(content: IO[bytes], offset: int) -> None:
    """Look for the block of zeros that ends a tar archive: ``tarfile`` reads one that was cut before it as whole.

    Raises:
        ReadError: there is none at ``offset``, where the members end.
    """
    content.seek(offset)
    if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it breaks off between two members")


def _check_names(names: list[str]) -> None:
    """Look for members that lie outside: ``zipfile`` would unpack them under another name.

    Raises:
        BadZipFile: one lies outside.
    """
    for name in names:
        if name.startswith("/") or ".." in PurePosixPath(name.replace("\\", "/")).parts:
            raise zipfile.BadZipFile(f"its member {name!r} lies outside")
