"""Launches with real launchers and real processes; the torture's parts at a small size."""

from __future__ import annotations

import os
import random
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domainbed_adm.records import read_runs
from domainbed_adm.sweeping import failures, jobs, launch
from domainbed_adm.sweeping.jobs import DONE, FAILED, INCOMPLETE, Job, Sweep
from domainbed_adm.sweeping.launch import Launch
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.sweeping.launchers.local import local
from domainbed_adm.system.disk import is_locked
from tests.torture import launchers as torture

SMALL = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")


def commands(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let every job run this code in place of training; it finds the job's folder in ``folder``."""
    head = "import os, pathlib, sys, time; folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True)\n"

    def command(job: Job) -> str:
        return shlex.join([sys.executable, "-S", "-c", head + code, str(job.output_dir)])

    monkeypatch.setattr(Job, "command", property(command))


def test_a_failure_is_kept_in_its_folder_and_gone_after_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = SMALL.jobs(tmp_path)[:2]
    commands(monkeypatch, "print('ValueError: no luck', file=sys.stderr); os.kill(os.getpid(), 9)")
    assert Launch(some, local, 2, retries=0).run() == 1
    assert [job.state for job in some] == [FAILED, FAILED]
    failure = failures.read(some[0].output_dir)
    assert failure is not None
    assert (failure.signal, failure.exit_code, failure.attempts) == ("SIGKILL", None, 1)
    assert failure.job == some[0].label
    told, why = capsys.readouterr(), "killed by SIGKILL: ValueError: no luck"
    where = f"({some[0].output_dir}/failed.json)"
    assert told.err == f"2 of 2 jobs failed:\n  2 x {why}, first {some[0].label} {where}\n"
    assert f"failed {some[0].label} (" in told.out
    assert f" s): {why} {where}\n" in told.out
    commands(monkeypatch, "(folder / 'done').touch()")
    assert Launch(some, local, 2, retries=0).run() == 0
    assert [job.state for job in some] == [DONE, DONE]
    assert not list(tmp_path.glob("*/failed.json"))


def test_a_failure_that_cannot_be_noted_is_a_failure_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some = SMALL.jobs(tmp_path)[:2]
    commands(monkeypatch, "")
    for job in some:
        job.output_dir.write_text("a file in the folder's place")
    assert Launch(some, local, 2, retries=0).run() == 1
    told = capsys.readouterr().err
    assert f"warning: {some[1].label} failed (exit code 1: FileExistsError: " in told
    assert ", and that cannot be noted: " in told
    assert "2 of 2 jobs failed:" in told


@pytest.mark.parametrize(("code", "retries", "tries"), [(1, 0, 1), (1, 2, 3), (2, 2, 1), (3, 2, 1)])
def test_what_would_fail_again_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, retries: int, tries: int
) -> None:
    commands(monkeypatch, f"open(folder / 'tries', 'a').write('x'); sys.exit({code})")
    job = SMALL.jobs(tmp_path)[0]
    assert Launch([job], local, 1, retries).run() == 1
    assert len((job.output_dir / "tries").read_text()) == tries


def test_a_second_attempt_that_succeeds_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands(monkeypatch, "(folder / 'done').touch() if (folder / 'failed.json').exists() else sys.exit(1)")
    some = SMALL.jobs(tmp_path)
    assert Launch(some, local, 3, retries=1).run() == 0
    assert all(job.state == DONE for job in some)


def test_what_another_launcher_is_retrying_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = SMALL.jobs(tmp_path)[0]
    ours = Launch([job], local, 1, retries=5)
    commands(monkeypatch, "open(folder / 'tries', 'a').write('x'); sys.exit(1)")
    assert Launch([job], local, 1, retries=0).run() == 1
    assert ours.run() == 1
    assert (job.output_dir / "tries").read_text() == "x"


def test_a_launcher_that_tells_only_exit_codes(tmp_path: Path) -> None:
    job = SMALL.jobs(tmp_path)[0]
    job.output_dir.mkdir()
    (job.output_dir / "err.txt").write_text("KeyError: 'x'\n")
    assert Launch([job], lambda given, **options: [1] * len(given), 1, retries=0).run() == 1
    failure = failures.read(job.output_dir)
    assert failure is not None
    assert failure.reason == "exit code 1: KeyError: 'x'"


@pytest.mark.parametrize("name", sorted(LAUNCHERS.keys() - {"slurm", "ray"}))  # which have tests of their own
def test_names_are_data_for_every_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    folder = tmp_path / torture.EVIL
    folder.mkdir()
    python = folder / "python"  # stands in for the interpreter: prints its arguments, a line each
    python.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" >> {shlex.quote(str(tmp_path / 'words'))}\n")
    python.chmod(0o755)
    monkeypatch.setattr(jobs.sys, "executable", str(python))
    evil = Sweep(["Debug28"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True, data_dir=str(folder))
    job = evil.jobs(folder / torture.EVIL)[0]
    assert LAUNCHERS[name].start()([job.command]) == [0]
    printed = capsys.readouterr().out.splitlines()[0].removeprefix("Dummy launcher: ")
    words = shlex.split(printed)[1:] if name == "dummy" else (tmp_path / "words").read_text().splitlines()
    assert words[words.index("--data_dir") + 1] == str(folder)
    assert words[words.index("--output_dir") + 1] == str(job.output_dir)
    assert not list(tmp_path.rglob("owned"))


@needs_proc
def test_ctrl_c_ends_jobs_gently_and_the_same_launch_goes_on(tmp_path: Path) -> None:
    sweep = Sweep(["Debug28"], ["ERM"], 0, 1, 1, 3000, '{"cnn_width": 8, "batch_size": 3}', data_dir=str(tmp_path))
    folder, job = tmp_path / "out", sweep.jobs(tmp_path / "out")[0]
    command = [
        sys.executable,
        "-m",
        "domainbed_adm.scripts.sweep",
        "launch",
        "--datasets",
        "Debug28",
        "--n_trials",
        "1",
    ]
    command += ["--algorithms", "ERM", "--n_hparams", "1", "--steps", "3000", "--hparams", str(sweep.hparams)]
    command += ["--data_dir", str(tmp_path), "--output_dir", str(folder), "--skip_confirmation"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as launcher:
        end = time.monotonic() + 60
        while not (job.output_dir / "checkpoint.pkl").exists() and time.monotonic() < end:
            time.sleep(0.02)
        child = torture.children(launcher.pid)[0]
        launcher.send_signal(signal.SIGINT)
        errors = launcher.communicate(timeout=30)[1]
    assert launcher.returncode == 130
    assert errors.splitlines()[-1] == (
        "domainbed-adm: interrupted: the same launch goes on, each job from its last checkpoint"
    )
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert (job.output_dir / "err.txt").read_text().splitlines()[-1] == "interrupted"  # it ended by itself
    assert not (job.output_dir / ".lock").exists()
    assert not is_locked(job.output_dir)
    assert job.state == INCOMPLETE
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as launcher:
        while torture.starts(job) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        launcher.send_signal(signal.SIGTERM)
    assert "resumed at step" in (job.output_dir / "out.txt").read_text()


def test_two_launchers_run_each_job_once() -> None:
    assert torture.side_by_side(3) == (3, [])


@needs_proc
@pytest.mark.parametrize("reuse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_launcher_killed_with_its_jobs_goes_on(reuse: bool) -> None:
    what = ("launcher", "workers", "jobs") if reuse else ("launcher", "jobs")
    assert torture.killed(3, what, reuse, random.Random(0)) == (3, [])


def test_runs_that_are_killed_end_like_their_twins() -> None:
    code = "import sys; from tests.torture import kills; sys.exit(kills.torture(3, steps=20, seed=1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ", losses 0\n" in done.stdout
    assert " 0 kills" not in done.stdout


def test_waiting_for_a_job_takes_it_over_where_its_process_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.system.test_lock import held_elsewhere

    job = SMALL.jobs(tmp_path)[0]
    commands(monkeypatch, "(folder / 'done').touch()")
    with held_elsewhere(job.output_dir) as other:
        monkeypatch.setattr(launch.time, "sleep", lambda seconds: (other.kill(), other.wait()))
        assert Launch([job], local, 1, retries=0).run() == 0
    assert job.state == DONE
    assert capsys.readouterr().out.startswith("waiting for 1 jobs that other processes run\n[1/1] done")


def test_jobs_of_others_are_asked_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.system.test_lock import held_elsewhere

    job, waits, looks = SMALL.jobs(tmp_path)[0], [], []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        looks.append(asked.count(job.output_dir))
        asked.clear()
        if len(waits) == 8:
            (job.output_dir / "done").touch()
            other.kill()

    asked: list[Path] = []
    monkeypatch.setattr(jobs, "is_locked", lambda folder: asked.append(folder) or is_locked(folder))
    monkeypatch.setattr(launch.time, "sleep", wait)
    with held_elsewhere(job.output_dir) as other:
        assert Launch([job], local, 1, retries=0).run() == 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert looks == [1] * 8


@pytest.mark.slow
def test_records_are_the_same_for_every_number_of_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of floats depend on the number of threads, which must not depend on how many jobs share the machine."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sweep = Sweep(
        datasets=["RotatedDigits"],
        algorithms=["ERM", "SAM_SSPL_ADM"],
        n_hparams=1,
        n_trials=1,
        steps=6,
        hparams='{"cnn_width": 32, "batch_size": 16}',
        single_test_envs=True,
    )
    told = []
    for n in (1, 2):
        own = [job for job in sweep.jobs(tmp_path / str(n)) if job.train_args["test_envs"] == [0]]
        assert local([job.command for job in own], jobs=n) == [0, 0]
        told.append([run.column("loss").tolist() for job in own for run in read_runs(job.output_dir / "results.jsonl")])
        own_threads = {run.provenance["threads"] for job in own for run in read_runs(job.output_dir / "results.jsonl")}
        assert own_threads == {1}
    assert told[0] == told[1]
