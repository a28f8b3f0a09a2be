"""One process trains in a folder; the lock dies with it."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock
import pytest

from domainbed_adm.cli import main
from domainbed_adm.run_files import ExitCode
from domainbed_adm.system import disk
from domainbed_adm.system.disk import LockedError, NoLocksError, is_locked, run_lock

HOLDER = """
import sys, time
from pathlib import Path
from domainbed_adm.system.disk import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process holds the lock of ``folder``."""
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield holder
        finally:
            holder.kill()


def train(folder: Path, *flags: str) -> int:
    hparams = '{"cnn_width": 8, "batch_size": 3}'
    return main(
        ["train", "--dataset", "Debug28", "--steps", "2", "--output_dir", str(folder), "--hparams", hparams, *flags]
    )


def test_a_locked_folder_is_not_trained_in_not_even_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with held_elsewhere(tmp_path):
        for flags in ([], ["--restart"]):
            assert train(tmp_path, *flags) == ExitCode.LOCKED == 75
        errors = capsys.readouterr().err
    assert errors == f"domainbed-adm: error: {tmp_path} is being trained by another process\n" * 2
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_the_lock_dies_with_its_process(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as holder:
        assert is_locked(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert not is_locked(tmp_path)
        assert train(tmp_path) == 0
    assert not (tmp_path / ".lock").exists()


def test_a_run_keeps_its_lock_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from domainbed_adm.training import loop

    seen = []
    monkeypatch.setattr(loop, "train", lambda run, folder, *_: seen.append(is_locked_for_others(folder)))
    assert train(tmp_path) == 0
    assert seen == [True]
    assert not is_locked_for_others(tmp_path)


def is_locked_for_others(folder: Path) -> bool:
    code = "import sys, pathlib; from domainbed_adm.system.disk import is_locked; "
    code += "sys.exit(int(is_locked(pathlib.Path(sys.argv[1]))))"
    return bool(subprocess.run([sys.executable, "-c", code, str(folder)], check=False).returncode)


def test_a_folder_that_nothing_was_written_to_is_gone_again(tmp_path: Path) -> None:
    with run_lock(tmp_path / "a" / "b"):
        pass
    assert not (tmp_path / "a").exists()
    (tmp_path / "kept").mkdir()
    with run_lock(tmp_path / "kept"):
        pass
    assert (tmp_path / "kept").exists()


def test_a_lock_on_a_deleted_file_is_no_lock(tmp_path: Path) -> None:
    """Who had opened the file before it was deleted, and locks it after, must not train beside who made a new one."""
    with run_lock(tmp_path):
        (tmp_path / ".lock").unlink()
        with held_elsewhere(tmp_path):
            assert is_locked(tmp_path)


def test_asking_whether_a_run_is_alive_does_not_keep_it_from_starting(tmp_path: Path) -> None:
    asking = filelock.FileLock(tmp_path / ".lock")
    asking.acquire()
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        with pytest.raises(subprocess.TimeoutExpired):
            holder.wait(0.4)
        asking.release()
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()


def test_others_that_ask_are_not_taken_for_a_run(tmp_path: Path) -> None:
    """Each holds the lock for an instant: two that ask about a dead run at once must both see that it is dead."""
    (tmp_path / ".lock").touch()
    with (tmp_path / ".lock").open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert not is_locked(tmp_path)
        assert not is_locked_for_others(tmp_path)


def test_a_lock_that_may_only_be_read_is_seen(tmp_path: Path) -> None:
    """As another user's is."""
    with held_elsewhere(tmp_path) as holder:
        (tmp_path / ".lock").chmod(0o444)
        assert is_locked(tmp_path)
        holder.kill()
        holder.wait()
        assert (tmp_path / ".lock").exists()
        assert not is_locked(tmp_path)


@pytest.mark.parametrize("version", ["old", "new"])
def test_without_locks_a_run_warns_and_others_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: str
) -> None:
    def no_flock(self: filelock.BaseFileLock, *args: object, **kwargs: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    if version == "old":
        monkeypatch.setattr(filelock.FileLock, "acquire", no_flock)
    else:
        monkeypatch.setattr(disk, "FileLock", filelock.SoftFileLock)
    with run_lock(tmp_path, needed=False):
        pass
    assert capsys.readouterr().err.startswith(f"warning: the disk of {tmp_path} has no locks: see to it that")
    with pytest.raises(NoLocksError, match="has no locks"), run_lock(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    assert not is_locked(tmp_path)


def test_two_locks_at_once(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path), pytest.raises(LockedError, match="is being trained by another process"):
        run_lock(tmp_path).__enter__()
