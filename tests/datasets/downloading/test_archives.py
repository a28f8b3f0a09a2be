"""Files come out of an archive as they went in, or there is one error and no change outside the folder."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from domainbed_adm.datasets.downloading import unpack
from domainbed_adm.datasets.downloading.mirrors import ArchiveError
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


def contents(folder: Path) -> dict[str, bytes]:
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


REFUSED = {
    "tar ..": made_tar({"../neighbour.txt": b"evil"}),
    "tar inner ..": made_tar({"a/../../neighbour.txt": b"evil"}),
    "tar symlink out": link("a/link", "../../neighbour.txt"),
    "tar symlink absolute": link("a/link", "/etc/passwd"),
    "tar hard link out": link("a/link", "../neighbour.txt", tarfile.LNKTYPE),
    "tar device": special(tarfile.CHRTYPE),
    "tar pipe": special(tarfile.FIFOTYPE),
    "zip ..": made_zip({"../neighbour.txt": b"evil"}),
    "zip backslash": made_zip({"a\\..\\..\\neighbour.txt": b"evil"}),
    "zip /": made_zip({"/tmp/evil.txt": b"evil"}),
    "nothing": b"",
    "no archive": b"no archive" * 99,
    "cut zip": made_zip(FILES)[:2000],
    "cut tar.gz": made_tar(FILES)[:2000],
    "cut tar.xz": made_tar(FILES, "w:xz")[:500],
    "cut tar.bz2": made_tar(FILES, "w:bz2")[:-20],
    "cut tar": made_tar(FILES, "w:")[:5000],
    "cut tar header": made_tar({"a": b"1" * 512, "b": b""}, "w:")[:1300],
    "cut tar between members": made_tar({"a": b"1" * 512, "b": b""}, "w:")[:1024],
    "damaged zip": made_zip(FILES, zipfile.ZIP_STORED).replace(b"one", b"owe"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_damaged_or_leads_outside_is_refused(place: Path, name: str) -> None:
    archive = place.parent / "a.zip"
    archive.write_bytes(REFUSED[name])
    before = outside(place)
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, place)
    assert str(caught.value).startswith("a.zip is damaged")
    assert "\n" not in str(caught.value)
    assert outside(place) == before
    assert not Path("/tmp/evil.txt").exists()


def test_a_full_disk_is_no_fault_of_the_archive(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    (place.parent / "a.zip").write_bytes(made_zip(FILES))
    monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    with pytest.raises(OSError, match="No space left on device"):
        unpack(place.parent / "a.zip", place)


def test_too_small_a_disk_is_told_before(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = place.parent / "a.zip"
    archive.write_bytes(made_zip(FILES))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    with pytest.raises(UserError, match=r"has 0 MiB free, a\.zip needs more"):
        unpack(archive, place)
    assert contents(place) == {}
