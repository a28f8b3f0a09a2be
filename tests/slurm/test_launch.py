"""``sweep launch --command_launcher slurm`` from end to end, on a real Slurm."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from domainbed_adm.cli import main
from domainbed_adm.records import read_runs
from domainbed_adm.run_files import RESULTS
from domainbed_adm.sweeping import workers
from domainbed_adm.sweeping.jobs import DONE, INCOMPLETE, Job
from domainbed_adm.sweeping.launchers import slurm as slurm_launcher
from domainbed_adm.sweeping.launchers import slurm_array as launcher
from domainbed_adm.sweeping.plan import planned_jobs
from tests.slurm.local_slurm import LocalSlurm, wait_until

pytestmark = pytest.mark.xdist_group("slurm")

SWEEP = ["--datasets", "RotatedDigits", "--algorithms", "ERM", "--n_hparams", "1", "--single_test_envs"]
#: Of a worker whose jobs run a shell's command line, argv[1], with the job's folder as $0.
INSTEAD = """
import shlex, sys
from domainbed_adm.cli import main
from domainbed_adm.sweeping.jobs import Job
Job.command = property(lambda job: shlex.join(["sh", "-c", sys.argv[1], str(job.output_dir)]))
sys.exit(main(sys.argv[2:]))
"""
BEGUN = 'mkdir -p "$0"; echo $SLURM_ARRAY_TASK_ID >> "$0/begun"; '


def launch(folder: Path, count: int, *more: str, trials: int = 1) -> int:
    words = ["--output_dir", str(folder), "--workers", str(count), "--n_trials", str(trials), *SWEEP, *more]
    return main(["sweep", "launch", "--command_launcher", "slurm", "--skip_confirmation", *words])


def jobs_run(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    def command(folder: Path, place: str, retries: int, reuse: bool) -> str:
        words = ["--output_dir", str(folder), "--place", place, "--retries", str(retries)]
        return shlex.join([sys.executable, "-c", INSTEAD, shell, "sweep", "work", *words])

    monkeypatch.setattr(workers, "worker_command", command)
    monkeypatch.setattr(slurm_launcher, "LONGEST_POLL", 0.5)


def begun(jobs: list[Job]) -> list[list[str]]:
    """By which tasks each job was begun."""
    files = [job.output_dir / "begun" for job in jobs]
    return [path.read_text().split() if path.exists() else [] for path in files]


def test_forty_jobs_on_four_workers_are_done_once_each(
    tmp_path: Path, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs_run(monkeypatch, BEGUN + 'sleep 0.1; touch "$0/done"')
    assert launch(tmp_path, 4, "--wait", trials=7) == 0
    jobs = planned_jobs(tmp_path)
    assert len(jobs) == 42
    assert all(job.state == DONE for job in jobs)
    assert all(len(tasks) == 1 for tasks in begun(jobs))
    assert {task for tasks in begun(jobs) for task in tasks} == set("0123")
    told = capsys.readouterr().out
    assert f"Submitted array {launcher.submitted(tmp_path).id} on cluster local: 4 tasks\n" in told
    assert sum(line.startswith("[") and "] done   ERM on RotatedDigits" in line for line in told.splitlines()) == 42
    assert "[42/42] done" in told
    wait_until(lambda: not launcher.tasks(tmp_path), 20, "the array ends")
    assert launch(tmp_path, 4, "--wait", trials=7) == 0
    assert "ubmitted" not in capsys.readouterr().out
    assert main(["sweep", "status", str(tmp_path)]) == 0
    assert f"Slurm: array {launcher.submitted(tmp_path).id} has ended" in capsys.readouterr().out


def test_launch_and_cancel_do_nothing_twice(
    tmp_path: Path, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # told to end they do so, like train; let go they are done
    jobs_run(
        monkeypatch, BEGUN + f"trap 'exit 130' TERM; until [ -e {tmp_path}/go ]; do sleep 0.05; done; touch $0/done"
    )
    assert launch(tmp_path, 2) == 0
    jobs = planned_jobs(tmp_path)
    first = launcher.submitted(tmp_path)
    wait_until(lambda: sum(map(len, begun(jobs))) == 2, 20, "both begin")
    capsys.readouterr()
    assert launch(tmp_path, 2) == 0
    assert "Nothing submitted, as workers are there already (array" in capsys.readouterr().out
    assert main(["sweep", "status", str(tmp_path)]) == 0
    assert f"Slurm: array {first.id}: 2 running on n" in capsys.readouterr().out
    follower = [sys.executable, "-c", "import sys; from tests.slurm.test_launch import launch; sys.exit(launch("]
    follower[-1] += f"__import__('pathlib').Path({str(tmp_path)!r}), 2, '--wait'))"
    with subprocess.Popen(follower, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        while not waiting.stdout.readline().startswith("array "):
            assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        assert waiting.communicate()[1].splitlines()[-1].startswith("domainbed-adm: interrupted: the array goes on")
        assert waiting.returncode == 130
    for told in (
        f"Cancelled array {first.id}: 2 running on ",
        f"Nothing to cancel: no task waits or runs for {tmp_path}",
    ):
        assert main(["sweep", "cancel", "--output_dir", str(tmp_path)]) == 0
        assert told in capsys.readouterr().out
    assert [job.state for job in jobs].count(INCOMPLETE) == 2
    (tmp_path / "go").touch()
    assert launch(tmp_path, 3, "--wait") == 0  # what is left
    assert all(job.state == DONE for job in jobs)
    assert sum(map(len, begun(jobs))) == len(jobs) + 2
    assert launcher.submitted(tmp_path).tasks == 3


def test_jobs_that_fail_and_workers_that_cannot_start_are_told(
    tmp_path: Path, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs_run(monkeypatch, BEGUN + "echo 'ValueError: no luck' >&2; exit 1")
    assert launch(tmp_path, 2, "--wait", "--retries", "0") == 1
    told = capsys.readouterr()
    assert "failed ERM on RotatedDigits, test_envs 0: exit code 1: ValueError: no luck (" in told.out
    assert told.err.startswith("the workers have ended. 6 jobs: 0 done, 0 running, 0 incomplete, 6 failed")
    assert "\n  6 x exit code 1: ValueError: no luck" in told.err
    assert all(len(tasks) == 1 for tasks in begun(planned_jobs(tmp_path)))
    monkeypatch.setattr(workers, "worker_command", lambda *_: "/no/such/python")
    other = tmp_path / "other"
    assert launch(other, 2, "--wait") == 1
    told = capsys.readouterr()
    assert told.err.startswith("warning: a worker could not work: ")
    assert "/no/such/python" in told.err


def test_a_run_that_is_preempted_goes_on_from_its_checkpoint(
    tmp_path: Path, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One real run; the worker hears the signal as well as what it started."""
    small = ["--hparams", '{"cnn_width": 8, "batch_size": 2}', "--steps", "3000", "--checkpoint_freq", "100"]
    words = ["--slurm", "partition=low,cpus_per_task=1", "--reuse_processes", *small]
    assert launch(tmp_path, 1, *words) == 0
    jobs = planned_jobs(tmp_path)

    def running() -> list[Job]:
        return [job for job in jobs if (job.output_dir / RESULTS).exists()]

    wait_until(lambda: bool(running()), 120, "a run has a record")
    [job], array = running(), launcher.submitted(tmp_path)
    [urgent] = slurm.ask(
        "sbatch", "--parsable", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "true"
    )
    wait_until(lambda: [task.state for task in launcher.tasks(tmp_path)] == ["PENDING"], 60, "it waits")
    assert job.state == INCOMPLETE
    [before] = read_runs(job.output_dir / RESULTS)
    wait_until(lambda: not slurm.tasks(urgent), 20, "the urgent job ends")
    last = before.last_step
    slurm.hasten(str(array.id), lambda: read_runs(job.output_dir / RESULTS)[0].last_step > last, 100, "it goes on")
    [after] = read_runs(job.output_dir / RESULTS)
    assert after.steps[: len(before.steps)].tolist() == before.steps.tolist()
    assert main(["sweep", "cancel", str(tmp_path)]) == 0
    assert not list(tmp_path.glob("*/failed.json"))
    assert not launcher.tasks(tmp_path)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--slurm", "partition=hihg"], "no partition 'hihg'. Did you mean high? It has: main, low, high"),
        (["--slurm", "partition"], "sbatch: option '--partition' requires an argument"),
        (["--slurm", "partition=,time=1"], "--slurm: partition has no value"),
        (["--slurm_file", "/no/such/file"], "--slurm_file /no/such/file: no such file"),
        (["--slurm", "gres=gpu:99"], "Requested node configuration is not available"),
        (["--workers", "102"], "an array of 102 tasks is more than this Slurm allows (101, MaxArraySize)"),
        (["--workers", "0"], "--workers"),
        (["--command_launcher", "local", "--wait"], "--wait is for --command_launcher slurm, not local"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_submitted_or_made(
    tmp_path: Path, slurm: LocalSlurm, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    folder = tmp_path / "sweep"
    assert launch(folder, 2, *words, trials=20) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
    assert not folder.exists()
    assert slurm.tasks() == []


def test_where_there_is_no_slurm_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    folder = tmp_path / "sweep"
    assert launch(folder, 2) == 2
    assert capsys.readouterr().err.startswith("domainbed-adm: error: no scontrol here: --command_launcher slurm needs")
    assert main(["sweep", "cancel", str(folder)]) == 2
    assert capsys.readouterr().err.startswith("domainbed-adm: error: no squeue here")
    assert not folder.exists()


def test_what_a_refused_launch_planned_is_not_planned(tmp_path: Path, slurm: LocalSlurm) -> None:
    assert launch(tmp_path, 1, "--plan_only") == 0
    assert len(planned_jobs(tmp_path)) == 6
    assert launch(tmp_path, 1, "--slurm", "gres=gpu:99", trials=2) == 2
    assert len(planned_jobs(tmp_path)) == 6
    assert launch(tmp_path, 1, "--slurm", "gres=gpu:99") == 2
    assert len(planned_jobs(tmp_path)) == 6
