"""Files whole or not at all: what is replaced, what is written to as it is, and what the system is asked to keep."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.system.disk import replacing


def write(path: Path, contents: bytes = b"new") -> None:
    with replacing(path) as file:
        file.write(contents)


def break_off(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"half")
        raise KeyError


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyError):
        break_off(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_its_file_is_replaced_whole(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere/file", tmp_path / "link"
    link.symlink_to("elsewhere/file")
    write(link, b"first")  # the link led nowhere until now
    assert target.read_bytes() == b"first"
    with pytest.raises(KeyError):
        break_off(link)
    assert target.read_bytes() == b"first"
    write(link)
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "file", "link"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    write(pipe)
    reader.join(5)
    assert read == [b"new"]
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_what_is_open_already_goes_on_where_it_is(tmp_path: Path) -> None:
    """As ``--output /dev/stdout >> file`` does."""
    path = tmp_path / "file"
    with path.open("ab", buffering=0) as file:
        file.write(b"before, ")
        write(Path(f"/dev/fd/{file.fileno()}"))
        file.write(b", after")
    assert path.read_bytes() == b"before, new, after"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_never_written_through(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"not ours")
    (tmp_path / "file.unfinished").symlink_to(other)
    write(tmp_path / "file")
    assert other.read_bytes() == b"not ours"
    assert (tmp_path / "file").read_bytes() == b"new"
    assert not (tmp_path / "file").is_symlink()


def test_the_file_is_on_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events, rename = tmp_path / "file", [], Path.replace
    monkeypatch.setattr(os, "fsync", lambda handle: events.append(os.fstat(handle).st_ino))
    monkeypatch.setattr(Path, "replace", lambda self, to: events.append("renamed") or rename(self, to))
    write(path)
    assert events == [path.stat().st_ino, "renamed", tmp_path.stat().st_ino]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = os.open

    def refuse(path: Path, *flags: int) -> int:
        if Path(path).is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        return opened(path, *flags)

    monkeypatch.setattr(os, "open", refuse)
    write(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"new"


WRONG = {
    "nowhere/file": "No such file or directory",
    "folder": "Is a directory",
    "loop": "Too many levels of symbolic links",
    "file/below": "Not a directory",
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_written_is_one_line_without_advice_on_room(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError) as caught:
        write(tmp_path / name)
    assert str(caught.value) == f"cannot write {tmp_path / name}: {WRONG[name]}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "loop"]
