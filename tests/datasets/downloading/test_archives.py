"""Whatever an archive holds: its files come out as they went in, or one error and no change outside the folder."""

from __future__ import annotations

import io
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domainbed_adm.datasets.downloading import archives
from domainbed_adm.datasets.downloading.archives import unpack
from domainbed_adm.errors import UserError

FILES = {"kfold/art/dog/1.jpg": b"one", "kfold/art/dog/ä 2.jpg": b"", "kfold/photo/dog/1.jpg": b"x" * 3_000_000}


def made_zip(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def made_tar(files: dict[str, bytes], mode: str = "w:gz", members: list[tarfile.TarInfo] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as file:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in members or []:
            file.addfile(info)
    return buffer.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return made_tar({"a/b.jpg": b"b"}, members=[info])


def special(kind: bytes) -> bytes:
    info = tarfile.TarInfo("a/device")
    info.type = kind
    return made_tar({}, members=[info])


def zip_link(name: str, target: str) -> bytes:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(info, target)
    return buffer.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    assert not any(path.is_symlink() for path in folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder to unpack in, with a neighbour that must stay as it is."""
    (tmp_path / "in").mkdir()
    (tmp_path / "neighbour.txt").write_text("untouched")
    return tmp_path / "in"


def outside(place: Path) -> dict[str, bytes]:
    return {name: data for name, data in contents(place.parent).items() if not name.startswith("in/")}


MAKERS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "zip": made_zip,
    "stored zip": lambda files: made_zip(files, zipfile.ZIP_STORED),
    "tar": lambda files: made_tar(files, "w:"),
    "tar.gz": made_tar,
    "tar.bz2": lambda files: made_tar(files, "w:bz2"),
    "tar.xz": lambda files: made_tar(files, "w:xz"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_files_come_out_as_they_went_in(place: Path, kind: str) -> None:
    archive = place.parent / "named as it likes"
    archive.write_bytes(MAKERS[kind](FILES))
    unpack(archive, place)
    assert contents(place) == FILES


def test_folders_and_leading_dots_are_as_tar_writes_them(place: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name, content in FILES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(content)
    (source / "empty").mkdir()
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(source, ".")
    unpack(tmp_path / "a.tar", place)
    assert contents(place) == FILES
    assert (place / "empty").is_dir()


def test_links_inside_become_copies(place: Path) -> None:
    for number, data in enumerate(
        [link("a/c.jpg", "b.jpg"), link("d/c.jpg", "../a/b.jpg"), link("h.jpg", "a/b.jpg", tarfile.LNKTYPE)]
    ):
        folder = place / str(number)
        folder.mkdir()
        (place.parent / "a.tar").write_bytes(data)
        unpack(place.parent / "a.tar", folder)
        assert sorted(contents(folder).values()) == [b"b", b"b"]


HOSTILE = {
    "tar ..": made_tar({"../neighbour.txt": b"evil"}),
    "tar inner ..": made_tar({"a/../../neighbour.txt": b"evil"}),
    "tar /": made_tar({"/tmp/evil.txt": b"evil"}),
    "tar symlink out": link("a/link", "../../neighbour.txt"),
    "tar symlink absolute": link("a/link", "/etc/passwd"),
    "tar symlink folder": link("a/link", ".."),
    "tar symlink itself": link("a/link", "link"),
    "tar symlink to nothing": link("a/link", "nothing"),
    "tar hard link out": link("a/link", "../neighbour.txt", tarfile.LNKTYPE),
    "tar hard link absolute": link("a/link", "/etc/passwd", tarfile.LNKTYPE),
    "tar device": special(tarfile.CHRTYPE),
    "tar pipe": special(tarfile.FIFOTYPE),
    "tar twice": made_tar({"a.jpg": b"1", "./a.jpg": b"2"}),
    "tar file and folder": made_tar({"a": b"1", "a/b": b"2"}),
    "zip ..": made_zip({"../neighbour.txt": b"evil"}),
    "zip backslash": made_zip({"a\\..\\..\\neighbour.txt": b"evil"}),
    "zip drive": made_zip({"C:/evil.txt": b"evil"}),
    "zip /": made_zip({"/tmp/evil.txt": b"evil"}),
    "zip line break": made_zip({"a\nb.jpg": b"evil"}),
    "zip link": zip_link("a/link", "../../neighbour.txt"),
    "nothing": b"",
    "no archive": b"<html>no archive</html>" * 99,
    "cut zip": made_zip(FILES)[:2000],
    "cut tar.gz": made_tar(FILES)[:2000],
    "cut tar": made_tar(FILES, "w:")[:5000],
    "cut tar header": made_tar({"a": b"1" * 512, "b": b""}, "w:")[:1300],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_hostile_or_damaged_is_refused(place: Path, name: str) -> None:
    archive = place.parent / "a.zip"
    archive.write_bytes(HOSTILE[name])
    before = outside(place)
    with pytest.raises(UserError) as caught:
        unpack(archive, place)
    assert str(caught.value).startswith(f"archive {archive}")
    assert "\n" not in str(caught.value)
    assert outside(place) == before
    assert not Path("/tmp/evil.txt").exists()


def test_an_encrypted_zip_is_refused(place: Path) -> None:
    data = bytearray(made_zip({"a.jpg": b"secret"}))
    directory = data.index(b"PK\1\2")
    data[6] |= 1
    data[directory + 8] |= 1
    (place.parent / "a.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"its member 'a\.jpg' is encrypted"):
        unpack(place.parent / "a.zip", place)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.xz", "tar.bz2"])
def test_bombs_are_bounded(place: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1000)
    monkeypatch.setattr(archives, "_CHUNK", 10_000)
    archive = place.parent / "bomb"
    archive.write_bytes(MAKERS[kind]({f"{i}.bmp": bytes(4_000_000) for i in range(4)}))
    limit = archives.RATIO * archive.stat().st_size
    with pytest.raises(UserError, match="it unpacks to more than 50 times its size"):
        unpack(archive, place)
    assert sum(map(len, contents(place).values())) <= limit


def test_a_bomb_of_links_or_members_is_bounded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "SMALL", 1000)
    infos = [tarfile.TarInfo(f"link{i}") for i in range(9)]
    for info in infos:
        info.type, info.linkname = tarfile.LNKTYPE, "a"
    content = random.Random(0).randbytes(9000)
    monkeypatch.setattr(archives, "RATIO", 2)
    (place.parent / "a.tar").write_bytes(made_tar({"a": content}, members=infos))
    with pytest.raises(UserError, match="more than 2 times its size"):
        unpack(place.parent / "a.tar", place)
    monkeypatch.setattr(archives, "RATIO", 1000)
    monkeypatch.setattr(archives, "MEMBERS", 5)
    (place.parent / "b.tar").write_bytes(made_tar({f"b{i}": b"" for i in range(6)}))
    with pytest.raises(UserError, match="it holds more than 5 members"):
        unpack(place.parent / "b.tar", place)


def test_a_tar_header_that_claims_to_be_endless_is_refused(place: Path) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    (place.parent / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(UserError, match="one of its headers is longer than a header can be"):
        unpack(place.parent / "a.tar", place)


def test_files_of_another_archive_are_not_overwritten(place: Path) -> None:
    (place / "a.jpg").write_bytes(b"first")
    (place.parent / "a.zip").write_bytes(made_zip({"a.jpg": b"second"}))
    with pytest.raises(UserError, match="cannot be unpacked: File exists"):
        unpack(place.parent / "a.zip", place)
    assert (place / "a.jpg").read_bytes() == b"first"


def test_a_full_disk_is_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (place.parent / "a.zip").write_bytes(made_zip(FILES))
    monkeypatch.setattr(archives.Budget, "take", full)
    with pytest.raises(UserError, match=r"a\.zip cannot be unpacked: No space left on device"):
        unpack(place.parent / "a.zip", place)


def test_too_small_a_disk_is_told_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = place.parent / "a.zip"
    archive.write_bytes(made_zip(FILES))
    archives.enough_room(archive, place)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    with pytest.raises(UserError, match=r"has 0 MiB free, a\.zip needs more"):
        archives.enough_room(archive, place)


SEEDS = [*HOSTILE.values(), *(make({"a/b/1.jpg": b"one", "a/c/2.jpg": b"two"}) for make in MAKERS.values())]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 6)) if data else 0):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


names = st.text(st.sampled_from("ab./\\:\0~ \n"), min_size=1, max_size=8)
archives_of_names = st.builds(
    lambda make, files: make(files),
    st.sampled_from([made_tar, lambda files: made_tar(files, "w:")]),
    st.dictionaries(names, st.binary(max_size=8), max_size=4),
)


@settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.one_of(damaged(), archives_of_names))
def test_fuzz_archives(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    base = tmp_path_factory.mktemp("fuzz")
    place = base / "in"
    place.mkdir()
    archive = base / "archive"
    archive.write_bytes(data)
    message = ""
    try:
        unpack(archive, place)
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    assert sorted(entry.name for entry in base.iterdir()) == ["archive", "in"]
    assert archive.read_bytes() == data
    assert not any(path.is_symlink() for path in place.rglob("*"))
