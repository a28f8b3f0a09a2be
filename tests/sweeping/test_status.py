"""What status says of a sweep, and its ETA from step times."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from domainbed_adm.sweeping import failures, status
from domainbed_adm.sweeping.jobs import DONE, FAILED, INCOMPLETE, NOT_LAUNCHED, RUNNING, Job, Sweep
from domainbed_adm.sweeping.status import Progress, duration, eta, show_status
from tests.runs import record, write
from tests.system.test_lock import held_elsewhere


def job(
    state: str, left: int, step: float = 0, start: float | None = None, *, algorithm: str = "ERM", dataset: str = "PACS"
) -> Progress:
    """A job of whose steps ten were timed, with so many seconds a step; none with 0."""
    return Progress(algorithm, dataset, state, left, start, *((10, 10 * step) if step else ()))


SO_FAR = "; an estimate from what was recorded so far"
ONE = f"at one job at a time (none runs now){SO_FAR}"

ETAS = [
    ([], None),
    ([job(NOT_LAUNCHED, 100)], None),
    ([job(DONE, 0, 1.0)], None),
    ([job(DONE, 0, 1e307)], None),
    ([job(INCOMPLETE, 10, 2.0)], f"ETA: 20 s {ONE}"),
    (
        [job(RUNNING, 30, 1.0), job(RUNNING, 10), job(NOT_LAUNCHED, 20)],
        f"ETA: 30 s at 2 jobs at a time, as now{SO_FAR}",
    ),
    ([job(RUNNING, 30, 1.0), job(RUNNING, 30), job(FAILED, 20)], f"ETA: 40 s at 2 jobs at a time, as now{SO_FAR}"),
    # what does not run now has to start
    (
        [job(DONE, 0, 1.0, 6.0), job(RUNNING, 10, 1.0, 4.0), job(NOT_LAUNCHED, 20), job(INCOMPLETE, 5)],
        "ETA: 45 s at 1 job",
    ),
    # a method that was not timed takes its dataset's mean; a dataset that was not is left out, and that is said
    ([job(RUNNING, 10, 2.0), job(NOT_LAUNCHED, 10, algorithm="SAM")], f"ETA: 40 s at 1 job at a time, as now{SO_FAR}"),
    (
        [job(RUNNING, 10, 2.0), job(NOT_LAUNCHED, 10, dataset="VLCS")],
        f"ETA: 20 s at 1 job at a time, as now{SO_FAR}, and the 1 jobs on datasets without a timed step",
    ),
    # each method by its own steps
    ([job(DONE, 0, 1.0), job(DONE, 0, 3.0, algorithm="SAM"), job(INCOMPLETE, 10, algorithm="SAM")], f"ETA: 30 s {ONE}"),
    ([job(DONE, 0, 1e307), job(INCOMPLETE, 10**9)], f"ETA: over 100 years {ONE}"),
]


@pytest.mark.parametrize(("jobs", "line"), ETAS)
def test_eta(jobs: list[Progress], line: str | None) -> None:
    told = eta(jobs)
    assert told == line or (told and line and told.startswith(line))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (90, "2 min"),
        (3599, "1 h 0 min"),
        (12000, "3 h 20 min"),
        (2 * 86400 + 3600, "2 d 1 h"),
        (1e9, "11574 d 1 h"),
        (1e300, "over 100 years"),
        (math.inf, "over 100 years"),
        (math.nan, "over 100 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_status_counts_says_why_and_when(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True, steps=101)
    done, running, failed, incomplete, *_ = jobs = sweep.jobs(tmp_path)
    for one, step in ((done, 100), (running, 50)):
        write(one.output_dir, record((0.5, 0.5), step=0, step_time=None), record((0.5, 0.5), step=step, step_time=2.0))
    (done.output_dir / "done").touch()
    failures.write(failed.output_dir, -9, [], 1)
    incomplete.output_dir.mkdir()
    with held_elsewhere(running.output_dir):
        show_status(jobs)
    lines = capsys.readouterr().out.splitlines()
    assert ["ERM", "1", "1", "1", "1", "2", "6"] in [line.split() for line in lines]
    assert lines[-3:] == [
        "failed: ERM on RotatedDigits, test_envs 2: killed by SIGKILL: a system that runs out of memory does so "
        f"({failed.output_dir}/failed.json)",
        "6 jobs: 1 done, 1 running, 1 incomplete, 1 failed, 2 not launched",
        f"ETA: 15 min at 1 job at a time, as now{SO_FAR}",  # (50 + 4 x 101) steps of 2 s
    ]


@pytest.mark.parametrize("time", [math.nan, math.inf, -math.inf, -5, 10**400, True, "2", None, [2.0]])
def test_a_step_time_that_is_none_does_not_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], time: object
) -> None:
    sweep = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True, steps=11)
    first = sweep.jobs(tmp_path)[0]
    write(first.output_dir, record(step=0, step_time=time))
    show_status([first])
    assert "ETA" not in capsys.readouterr().out
    write(first.output_dir, record(step=0, step_time=time), record(step=5, step_time=2.0))
    show_status([first])
    assert capsys.readouterr().out.splitlines()[-1].startswith("ETA: 10 s at one job")


def test_a_failure_stays_one_harmless_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)
    one = sweep.jobs(tmp_path / "caf\udce9")[0]
    failures.write(one.output_dir, 1, ["ValueError: \x1b[2J"], 1)
    show_status([one])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("failed: "))
    assert r"exit code 1: ValueError: \x1b[2J (" in line
    assert rf"caf\udce9/{one.output_dir.name}/failed.json" in line


def test_evaluation_and_start_up_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A job of 11 steps of 1 s that evaluates twice, 20 s each, and starts in 10 s: 41 + 20 s."""
    sweep = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True, steps=11)
    done, waiting, *_ = sweep.jobs(tmp_path)
    lines = [record(step=step, step_time=1.0, wall_time=wall) for step, wall in ((0, 31.0), (10, 30.0))]
    write(done.output_dir, *lines)
    (done.output_dir / "done").touch()
    show_status([done, waiting])
    assert f"ETA: 1 min {ONE}" in capsys.readouterr().out  # 31 + 11 x 3 s


def test_equal_reasons_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True).jobs(tmp_path)
    for number, one in enumerate(jobs[:4]):
        told = f"domainbed-adm: error: ERM on Digits, step 0: not finite: loss nan (lr {number}; see d)"
        failures.write(one.output_dir, 3, [told], 1)
    for one in jobs[4:]:
        failures.write(one.output_dir, 2, [f"domainbed-adm: error: {one.output_dir} is full"], 1)
    (jobs[0].output_dir / "err.txt").touch()
    show_status(jobs)
    where, full = jobs[0].output_dir / "err.txt", jobs[4].output_dir / "failed.json"
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("failed: ")] == [
        f"failed: 4 x not finite at step 0, first {jobs[0].label} ({where})",
        f"failed: 2 x exit code 2: <its folder> is full, first {jobs[4].label} ({full})",
    ]


def test_steps_of_a_job_are_its_flag_or_the_datasets(tmp_path: Path) -> None:
    assert Job({"dataset": "RotatedDigits", "steps": 7}, tmp_path).n_steps == 7
    assert Job({"dataset": "PACS"}, tmp_path).n_steps == 5001


def test_a_job_that_is_done_and_exploded_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job, *_) = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True).jobs(tmp_path)
    lines = [record(*[(0.1, 0.1)] * 6, step=step, loss=loss) for step, loss in ((0, 2.3), (10, 1e7))]
    write(job.output_dir, *lines)
    show_status([job])
    assert "not to be trusted" not in capsys.readouterr().out  # it has not ended
    (job.output_dir / "done").write_text("done")
    show_status([job])
    name = f"ERM on RotatedDigits, test_envs 0 ({job.output_dir.name})"
    line = f"not to be trusted: {name}: exploded: its loss is 1e+07 at step 10, and was 2.3 at step 0\n"
    assert line in capsys.readouterr().out


def test_of_many_jobs_that_are_done_the_ends_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ETA is that of those which are read whole; each is seen to explode."""
    jobs = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True, steps=101).jobs(tmp_path)
    for job in jobs[:-1]:
        lines = [(0, 2.3), (50, 1.0), (100, 1e7)]
        write(job.output_dir, *(record(*[(0.9, 0.9)] * 6, step=step, loss=loss, step_time=2.0) for step, loss in lines))
        (job.output_dir / "done").touch()
    told = []
    for most in (20, 2):
        monkeypatch.setattr(status, "_TIMED", most)
        show_status(jobs)
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert told[0].count("exploded") == 5
    assert "ETA: 3 min" in told[0]
