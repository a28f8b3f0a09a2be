"""Workers that pull: side by side on one folder, told to end, with limits, with a plan that is another."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping import failures, limits
from domainbed_adm.sweeping.claims import Claims
from domainbed_adm.sweeping.jobs import DONE, INCOMPLETE, NOT_LAUNCHED, Job, Sweep
from domainbed_adm.sweeping.launch import Launch
from domainbed_adm.sweeping.launchers.local import local
from domainbed_adm.sweeping.plan import add_to_plan, planned_sweeps

DIGITS = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)
FLAGS = ["--datasets", "RotatedDigits", "--algorithms", "ERM", "--n_hparams", "1", "--n_trials", "1"]
FLAGS += ["--single_test_envs"]
#: What stands in for training, in a shell: the job's folder is $0.
QUICK = 'mkdir -p "$0"; echo x >> "$0/starts"; sleep 0.02; touch "$0/done"'
SLOW = 'mkdir -p "$0"; trap "exit 130" TERM; echo $$ > "$0/pid"; while :; do sleep 0.05; done'
#: The command line of a process in which every job runs argv[1]; the rest is main's.
INSTEAD = """
import shlex, sys
from domainbed_adm.cli import main
from domainbed_adm.sweeping.jobs import Job
Job.command = property(lambda job: shlex.join(["sh", "-c", sys.argv[1], str(job.output_dir)]))
sys.exit(main(sys.argv[2:]))
"""


def worker(shell: str, *words: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INSTEAD, shell, "sweep", "work", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def jobs_run(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    command = property(lambda job: shlex.join(["sh", "-c", shell, str(job.output_dir)]))
    monkeypatch.setattr(Job, "command", command)


def wait_for(path: Path) -> str:
    end = time.monotonic() + 30
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < end, f"no {path}"
        time.sleep(0.02)
    return path.read_text()


def test_workers_side_by_side_run_each_job_once(tmp_path: Path) -> None:
    """They begin together, where no plan is yet; a third of them without a place of their own."""
    flags = [*FLAGS, "--n_trials", "8"]
    places = [["--place", "1/3"], ["--place", "2/3"], [], []]
    workers = [worker(QUICK, tmp_path / "out", *flags, *place) for place in places]
    told = [one.communicate() for one in workers]
    assert [one.returncode for one in workers] == [0] * 4, told
    (sweep,) = planned_sweeps(tmp_path / "out")
    jobs = sweep.jobs(tmp_path / "out")
    assert len(jobs) == 48
    assert {job.state for job in jobs} == {DONE}
    assert {(job.output_dir / "starts").read_text() for job in jobs} == {"x\n"}
    counts = [int(out.splitlines()[-1].removesuffix(" jobs done by this worker")) for out, _ in told]
    assert sum(counts) == 48
    assert not any("elsewhere" in out for out, _ in told)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_told_to_end_a_worker_ends_its_job_gently(tmp_path: Path, number: signal.Signals) -> None:
    add_to_plan(tmp_path, DIGITS)
    job = DIGITS.jobs(tmp_path)[0]
    with worker(SLOW, tmp_path, "--place", "0/1") as one:
        pid = int(wait_for(job.output_dir / "pid"))
        one.send_signal(number)
        _, errors = one.communicate(timeout=20)
    assert one.returncode == ExitCode.INTERRUPTED
    assert errors == "domainbed-adm: interrupted: the next worker goes on from the last checkpoint\n"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert [one.state for one in DIGITS.jobs(tmp_path)] == [INCOMPLETE] + [NOT_LAUNCHED] * 5


def test_a_time_limit_ends_the_job_before_it(tmp_path: Path) -> None:
    add_to_plan(tmp_path, DIGITS)
    with worker(SLOW, tmp_path, "--place", "0/1", "--time_limit", "3s") as one:
        out, errors = one.communicate(timeout=20)
    assert (one.returncode, errors) == (ExitCode.MORE_TO_DO, "")
    assert out.splitlines()[-1] == "0 jobs done by this worker, and more to do"
    assert DIGITS.jobs(tmp_path)[0].state == INCOMPLETE


def test_what_has_no_time_left_is_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs_run(monkeypatch, QUICK)
    jobs = DIGITS.jobs(tmp_path)
    assert Launch(jobs, local, 2, 0, until=time.monotonic()).work() == ExitCode.MORE_TO_DO
    assert {job.state for job in jobs} == {NOT_LAUNCHED}
    for job in jobs:
        job.output_dir.mkdir()
        (job.output_dir / "done").touch()
    assert Launch(jobs, local, 2, 0, until=time.monotonic()).work() == ExitCode.DONE


def test_a_worker_of_so_many_jobs_begins_at_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs_run(monkeypatch, QUICK)
    add_to_plan(tmp_path, DIGITS)
    jobs = DIGITS.jobs(tmp_path)
    assert main(["sweep", "work", str(tmp_path), "--max_jobs", "2", "--place", "5/6"]) == ExitCode.MORE_TO_DO
    assert [i for i, job in enumerate(jobs) if job.state == DONE] == [0, 5]
    assert main(["sweep", "work", str(tmp_path), "--max_jobs", "4", "--jobs", "2"]) == ExitCode.DONE
    assert {job.state for job in jobs} == {DONE}
    assert capsys.readouterr().out.splitlines()[-1] == "4 jobs done by this worker"


@pytest.mark.parametrize("end", ["exit 130", "kill -TERM $$", "kill -INT $$"])
def test_a_job_that_was_told_to_end_has_not_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    jobs_run(monkeypatch, f'mkdir "$0"; echo x >> "$0/starts"; {end}')
    jobs = DIGITS.jobs(tmp_path)[:2]
    assert Launch(jobs[:1], local, 1, retries=3).work() == ExitCode.INTERRUPTED
    assert Launch(jobs[1:], local, 1, retries=3).run() == ExitCode.INTERRUPTED
    assert {job.state for job in jobs} == {INCOMPLETE}
    assert {(job.output_dir / "starts").read_text() for job in jobs} == {"x\n"}


def test_a_failure_is_tried_again_by_its_worker_and_then_by_the_next_launch_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs_run(monkeypatch, 'mkdir -p "$0"; echo x >> "$0/starts"; exit 1')
    sweep = Sweep(**{**vars(DIGITS), "steps": 3})
    add_to_plan(tmp_path, sweep)
    starts = sweep.jobs(tmp_path)[0].output_dir / "starts"
    work = ["sweep", "work", str(tmp_path)]
    assert main([*work, "--retries", "2"]) == 1
    assert starts.read_text() == "x\n" * 3
    assert main(work) == 0  # nothing is left that this launch has not tried
    assert starts.read_text() == "x\n" * 3
    add_to_plan(tmp_path, sweep)
    assert main([*work, "--retries", "0"]) == 1
    assert starts.read_text() == "x\n" * 4
    failure = failures.read(starts.parent)
    assert failure is not None
    assert failure.attempts == 4


def test_jobs_run_with_the_flags_of_the_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    how = ["--threads", "2", "--skip_model_save", "--plan_only"]
    assert main(["sweep", "launch", str(tmp_path / "out"), *FLAGS, *how]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "6 jobs: 0 done, 0 running, 0 incomplete, 0 failed, 6 not launched",
        f"Workers: domainbed-adm sweep work --output_dir {tmp_path / 'out'}",
    ]
    from domainbed_adm.sweeping.plan import planned_jobs

    assert planned_jobs(tmp_path / "out") == DIGITS.jobs(tmp_path / "out", {"threads": 2, "skip_model_save": True})


def test_another_plan_is_one_line_and_nothing_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    add_to_plan(tmp_path, DIGITS)
    before = sorted(tmp_path.iterdir()), (tmp_path / "sweep.json").read_bytes()
    assert main(["sweep", "work", str(tmp_path), *FLAGS, "--steps", "7", "--n_trials", "2"]) == 2
    assert capsys.readouterr().err == (
        f"domainbed-adm: error: {tmp_path}/sweep.json plans another sweep (--n_trials 1 there, 2 here, and 1 flags "
        "more): give another --output_dir, or extend the plan by sweep launch --plan_only\n"
    )
    assert (sorted(tmp_path.iterdir()), (tmp_path / "sweep.json").read_bytes()) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--max_jobs", "0"], "--max_jobs must be at least 1, not 0"),
        (["--time_limit", "soon"], "--time_limit must be a time such as 3h, 90m, 4:00:00 or 1-12:00:00, not 'soon'"),
        (["--place", "4/3"], "--place must be k/N with k from 0 or 1 to N, such as 3/8, not '4/3'"),
        (["--command_launcher", "dummy"], "sweep work runs jobs by local or multi_gpu, not dummy"),
        ([], "has no sweep.json: write it by sweep launch --plan_only, or give the launch's flags"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str) -> None:
    assert main(["sweep", "work", str(tmp_path / "none"), *words]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "none").exists()


def test_a_machine_without_the_data_runs_nothing(
    tmp_path: Path, image_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_to_plan(tmp_path / "out", Sweep(["Shapes"], ["ERM"], 0, 1, 1, data_dir=str(image_folder)))
    image_folder.rename(tmp_path / "elsewhere")
    assert main(["sweep", "work", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["sweep.json"]


@pytest.mark.parametrize("flags", ['{"color": 1}', '{"threads": "2"}', "[1]"])
def test_flags_that_train_does_not_know_are_no_plan(tmp_path: Path, flags: str) -> None:
    add_to_plan(tmp_path, DIGITS)
    path = tmp_path / "sweep.json"
    path.write_text(path.read_text().replace('"flags": {}', f'"flags": {flags}'))
    with pytest.raises(UserError, match=r"is no plan of a sweep \(.*\): remove it"):
        planned_sweeps(tmp_path)


def test_a_claim_is_one_process_es_and_ends_with_it(tmp_path: Path) -> None:
    ours, names = Claims(tmp_path), ("0" * 32, "f" * 32)
    code = "import sys; from pathlib import Path; from domainbed_adm.sweeping.claims import Claims\n"
    code += "claims = Claims(Path(sys.argv[1])); print(*map(claims.take, sys.argv[2:]), flush=True); input()"
    command = [sys.executable, "-c", code, str(tmp_path), names[0]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        assert [ours.take(name) for name in names] == [False, True]
        other.kill()
        other.wait()
        assert ours.take(names[0])
    with subprocess.Popen([*command, names[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "False False\n"
        other.kill()
    ours.close()


def test_a_folder_that_may_not_be_written_leaves_it_to_train(tmp_path: Path) -> None:
    (tmp_path / ".claims").mkdir()
    assert Claims(tmp_path).take("0" * 32)


TIMES = {"3h": 10800, "90m": 5400, "1h30m": 5400, "45s": 45, "2d": 172800, "4:00:00": 14400, "30:00": 1800}
TIMES |= {"1-12:00:00": 129600, "1-12": 129600, "1-12:30": 131400}


@pytest.mark.parametrize("text", TIMES)
def test_times(text: str) -> None:
    assert limits.seconds(text) == TIMES[text]


@pytest.mark.parametrize("text", ["", "0", "0s", "5", "h", "3 h", "-1h", "1:2:3:4", "9999999d", "1" * 50 + "s", "٣h x"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UserError, match="--time_limit must be a time such as 3h"):
        limits.seconds(text)


def test_a_job_has_ten_percent_or_thirty_seconds_to_end() -> None:
    assert (limits.working_time(20), limits.working_time(3600)) == (18, 3570)
