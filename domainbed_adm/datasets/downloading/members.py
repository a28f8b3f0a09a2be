"""The members of a zip or tar archive, one after the other, whatever its compression."""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from domainbed_adm.errors import UserError

#: A tar archive's headers are read whole; none that names an image is longer.
_HEADER = 1 << 20


class Refused(UserError):
    """An archive that is not unpacked, whole as it may be."""

    def __init__(self, archive: Path, why: str) -> None:
        super().__init__(f"archive {archive} is refused, nothing of it was kept: {why}")


@dataclass(frozen=True)
class Member:
    """One file of an archive, which ``content`` opens, or a copy of the file ``link``; a folder where both are None."""

    name: str
    content: Callable[[], IO[bytes]] | None = None
    link: str | None = None


def members_of(archive: Path) -> Generator[Member, None, None]:
    """The members of an archive, whose kind shows in its first bytes.

    Raises:
        Refused: one is encrypted, or no folder, file or link; or the errors of the modules that read archives.
    """
    with archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        yield from _zip_members(archive)
    else:
        openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
        yield from _tar_members(archive, next((openers[magic] for magic in openers if start.startswith(magic)), open))


def _zip_members(archive: Path) -> Iterator[Member]:
    """The members of a zip archive.

    Raises:
        Refused: one is encrypted, or a link or device.
    """
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                raise Refused(archive, f"its member {info.filename!r} is encrypted")
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise Refused(archive, f"its member {info.filename!r} is a link or a device")
            yield Member(info.filename, None if info.is_dir() else partial(file.open, info))


def _tar_members(archive: Path, opener: Any) -> Iterator[Member]:
    """The members of a tar archive.

    Raises:
        Refused: one is neither folder, file nor link.
        ReadError: the archive ends before its end.
    """
    with opener(archive, "rb") as file:
        plain = _Bounded(file, archive)
        with tarfile.open(fileobj=cast(Any, plain), mode="r:") as tar:
            for info in tar:
                if info.isdir():
                    yield Member(info.name)
                elif info.isreg():
                    yield Member(info.name, partial(cast(Any, tar.extractfile), info))
                elif info.islnk():
                    yield Member(info.name, link=posixpath.normpath(info.linkname))
                elif info.issym():
                    target = posixpath.join(posixpath.dirname(info.name), info.linkname)
                    yield Member(info.name, link=posixpath.normpath(target))
                else:
                    raise Refused(archive, f"its member {info.name!r} is a device")
        if plain.last.strip(b"\0"):  # tarfile takes a header it cannot read for the end
            raise tarfile.ReadError("it breaks off in a header")


class _Bounded:
    """A file whose single reads are bounded: tarfile reads a header's text at once, whatever length it claims.

    Attributes:
        last: what was read last.
    """

    def __init__(self, file: IO[bytes], archive: Path) -> None:
        self._file, self._archive, self.last = file, archive, b""
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _HEADER:
            raise Refused(self._archive, "one of its headers is longer than a header can be")
        self.last = self._file.read(size)
        return self.last
