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

#: Bytes of all headers of one tar member, which are read whole; none that names an image has more.
_HEADER = 1 << 20
#: Entries of a tar archive's global headers, which tarfile copies to every member.
_GLOBALS = 1000


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


def members_of(archive: Path, take: Callable[[int], None]) -> Generator[Member, None, None]:
    """The members of an archive, whose kind shows in its first bytes.

    Args:
        archive: the file.
        take: called with the bytes that come out of it beside its members' content; it raises where they are too many.

    Raises:
        Refused: one cannot be read within bounds, or is no folder, file or link; or the errors of the modules that
            read archives.
    """
    with archive.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"PK"):
        yield from _zip_members(archive)
    else:
        openers: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
        opener = next((openers[magic] for magic in openers if start.startswith(magic)), open)
        yield from _tar_members(archive, opener, take)


def _zip_members(archive: Path) -> Iterator[Member]:
    """The members of a zip archive.

    Raises:
        Refused: one is encrypted, a link or device, or packed so that zipfile unpacks it without bound.
    """
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.flag_bits & 1:
                raise Refused(archive, f"its member {info.filename!r} is encrypted")
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise Refused(archive, f"its member {info.filename!r} is a link or a device")
            if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                why = f"its member {info.filename!r} is not deflated: unpack it, and pack it anew as an ordinary zip"
                raise Refused(archive, why)
            yield Member(info.filename, None if info.is_dir() else partial(file.open, info))


def _tar_members(archive: Path, opener: Any, take: Callable[[int], None]) -> Iterator[Member]:
    """The members of a tar archive.

    Raises:
        Refused: one is neither folder, file nor link, or sparse; or its headers are too long.
        ReadError: the archive ends before its end.
    """
    with opener(archive, "rb") as file:
        plain = _Bounded(file, archive, take)
        with tarfile.open(fileobj=cast(Any, plain), mode="r:") as tar:
            for info in iter(tar.next, None):
                if len(tar.pax_headers) > _GLOBALS:
                    raise Refused(archive, "its global headers have too many entries")
                plain.header = None
                yield _tar_member(archive, tar, info)
                plain.header = _HEADER
                cast(Any, tar).members.clear()  # tarfile keeps all that it has read
        if plain.last.strip(b"\0"):  # tarfile takes a header it cannot read for the end
            raise tarfile.ReadError("it breaks off in a header")


def _tar_member(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Member:
    if info.issparse():
        raise Refused(archive, f"its member {info.name!r} is sparse: unpack it, and pack it anew without --sparse")
    if info.isdir():
        return Member(info.name)
    if info.isreg():
        return Member(info.name, partial(cast(Any, tar.extractfile), info))
    if info.islnk():
        return Member(info.name, link=posixpath.normpath(info.linkname))
    if info.issym():
        target = posixpath.join(posixpath.dirname(info.name), info.linkname)
        return Member(info.name, link=posixpath.normpath(target))
    raise Refused(archive, f"its member {info.name!r} is a device")


class _Bounded:
    """A file that only goes forward and counts: tarfile reads headers whole, whatever length and number they claim.

    Attributes:
        last: what was read last.
        header: bytes that the next member's headers may still have; None while content is read, which others count.
    """

    def __init__(self, file: IO[bytes], archive: Path, take: Callable[[int], None]) -> None:
        self._file, self._archive, self._take = file, archive, take
        self.last, self.header, self.tell = b"", cast("int | None", _HEADER), file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= (_HEADER if self.header is None else self.header):
            raise Refused(self._archive, "one of its headers is longer than a header can be")
        self.last = self._file.read(size)
        if self.header is not None:
            self.header -= len(self.last)
            self._take(len(self.last))
        return self.last

    def seek(self, position: int) -> None:
        skipped = position - self.tell()
        if skipped < 0:  # a compressed file would be read from its start again
            raise Refused(self._archive, "one of its members lies within another")
        self._take(skipped)
        self._file.seek(position)
