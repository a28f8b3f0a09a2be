"""The size and checksum of an archive file against what is known of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from domainbed_adm.datasets.downloading.mirrors import Archive
from domainbed_adm.errors import UserError

_CHUNK = 1 << 20


def check(file: Path, archive: Archive) -> None:
    """Compare a file with the size and checksum that are known of it.

    Raises:
        UserError: one differs, or the file cannot be read.
    """
    try:
        size = file.stat().st_size
        if archive.size is not None and size != archive.size:
            raise UserError(f"{file} has {size:,} bytes, {archive.size:,} are expected")
        if archive.sha256 is not None and (found := _sha256(file)) != archive.sha256:
            raise UserError(f"{file} has the SHA-256 {found}, {archive.sha256} is expected")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
