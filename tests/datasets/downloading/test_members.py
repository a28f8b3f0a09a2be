"""What the headers of an archive make the reader do is bounded, as what its files hold is."""

from __future__ import annotations

import gc
import gzip
import tarfile
import zipfile
from pathlib import Path

import pytest

from domainbed_adm.datasets.downloading import archives
from domainbed_adm.datasets.downloading.archives import unpack
from domainbed_adm.datasets.downloading.members import members_of
from domainbed_adm.errors import UserError
from tests.datasets.downloading.test_archives import contents, made_tar, made_zip


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to unpack in."""
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_would_unpack_without_bound_is_refused(place: Path, compression: int) -> None:
    (place.parent / "a.zip").write_bytes(made_zip({"a.jpg": b"a"}, compression))
    with pytest.raises(UserError, match=r"'a\.jpg' is not deflated: unpack it, and pack it anew as an ordinary zip"):
        unpack(place.parent / "a.zip", place)
    assert contents(place) == {}


def sparse_tar(blocks: int) -> bytes:
    """A tar archive of one sparse file (GNU's old format) with so many blocks of extended headers."""
    info = tarfile.TarInfo("a.jpg")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:495] = b"00000000001\0" * 8 + bytes([blocks > 0]) + b"00000001000\0"
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    extended = b"00000000001\0" * 42
    return bytes(header) + (extended + b"\1" + bytes(7)) * (blocks - 1) + (extended + bytes(8)) * (blocks > 0)


@pytest.mark.parametrize(("blocks", "why"), [(0, "is sparse: unpack"), (2, "is sparse"), (3000, "longer than a head")])
def test_sparse_members_are_refused(place: Path, blocks: int, why: str) -> None:
    (place.parent / "a.tar").write_bytes(tarfile.TarInfo("first").tobuf() + sparse_tar(blocks) + bytes(1024))
    with pytest.raises(UserError, match=why):
        unpack(place.parent / "a.tar", place)


def pax(kind: bytes, records: bytes) -> bytes:
    info = tarfile.TarInfo("header")
    info.type, info.size = kind, len(records)
    return info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)


def test_headers_count_as_what_an_archive_unpacks_to(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1000)
    length = 500_000
    record = b"%d comment=%s\n" % (length, b"x" * (length - 16))
    member = pax(tarfile.XHDTYPE, record) + tarfile.TarInfo("a").tobuf()
    (place.parent / "a.tgz").write_bytes(gzip.compress(member + bytes(1024)))
    with pytest.raises(UserError, match="it unpacks to more than 50 times its size"):
        unpack(place.parent / "a.tgz", place)
    monkeypatch.setattr(archives, "SMALL", 1 << 20)
    unpack(place.parent / "a.tgz", place)
    (place.parent / "b.tgz").write_bytes(gzip.compress(pax(tarfile.XHDTYPE, record) * 3 + member + bytes(1024)))
    with pytest.raises(UserError, match="one of its headers is longer than a header can be"):
        unpack(place.parent / "b.tgz", place)


def test_global_headers_are_bounded(place: Path) -> None:
    member = tarfile.TarInfo("a").tobuf() + bytes(1024)
    (place.parent / "a.tar").write_bytes(pax(tarfile.XGLTYPE, b"17 comment=abcde\n") + member)
    unpack(place.parent / "a.tar", place)
    assert contents(place) == {"a": b""}
    (place.parent / "b.tar").write_bytes(pax(tarfile.XGLTYPE, b"".join(b"8 %04d=\n" % i for i in range(2000))) + member)
    with pytest.raises(UserError, match="its global headers have too many entries"):
        unpack(place.parent / "b.tar", place / "b")


def test_what_tarfile_skips_counts_and_it_never_goes_back(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1000)
    big, small = tarfile.TarInfo("big.jpg"), tarfile.TarInfo("small.jpg")
    big.size = 4_000_000
    hidden = pax(tarfile.XGLTYPE, b"9 size=0\n") + big.tobuf() + bytes(4_000_256) + bytes(1024)
    (place.parent / "a.tgz").write_bytes(gzip.compress(hidden))
    with pytest.raises(UserError, match="it unpacks to more than 50 times its size"):
        unpack(place.parent / "a.tgz", place)
    overlap = pax(tarfile.XGLTYPE, b"12 size=600\n") + small.tobuf() + tarfile.TarInfo("b").tobuf() + bytes(1024)
    (place.parent / "b.tar").write_bytes(overlap)
    with pytest.raises(UserError, match="one of its members lies within another"):
        unpack(place.parent / "b.tar", place)


def test_members_that_were_read_are_not_kept(place: Path) -> None:
    (place.parent / "a.tar").write_bytes(made_tar({f"{i}.jpg": b"" for i in range(20)}, "w:"))
    count = 0
    for _ in members_of(place.parent / "a.tar", lambda taken: None):
        count = max(count, sum(type(each) is tarfile.TarInfo for each in gc.get_objects()))
    assert count <= 5
