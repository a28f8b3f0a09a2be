from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from domainbed_adm.cli import main as cli
from domainbed_adm.scripts import sweep, train
from domainbed_adm.sweeping import failures, launch
from domainbed_adm.sweeping.jobs import Job, Sweep
from tests.runs import record
from tests.system.test_lock import held_elsewhere

SMALL = ["--datasets", "RotatedDigits", "--n_trials", "1", "--n_hparams", "1", "--single_test_envs"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands that the local launcher was given; it fails those of SAM. It tells nothing but the exit codes."""
    commands: list[str] = []

    def fake(given: list[str], **options: object) -> list[int]:
        commands.extend(given)
        return [int("--algorithm SAM " in command) for command in given]

    monkeypatch.setattr("domainbed_adm.sweeping.launchers.local.local", fake)
    return commands


def run(command: str, output_dir: Path, *flags: str) -> int:
    return cli(["sweep", command, "--output_dir", str(output_dir), *flags])


def test_defaults_are_domainbeds() -> None:
    args = sweep.parse(["launch", "--output_dir", "x"])
    assert (args.n_hparams_from, args.n_hparams, args.n_trials, args.holdout_fraction) == (0, 20, 3, 0.2)
    assert (args.single_test_envs, args.steps, args.hparams, args.task) == (False, None, None, "domain_generalization")
    assert len(args.algorithms) == 28
    assert len(args.datasets) == 9
    assert not any(name.startswith("Debug") for name in args.datasets)


def test_flags_override_the_named_sweep_whatever_their_order() -> None:
    args = sweep.parse(["launch", "--steps", "7", "--sweep", "smoke", "--output_dir", "x", "--no-single_test_envs"])
    assert (args.steps, args.n_hparams, args.single_test_envs) == (7, 1, False)
    assert args.datasets == ["RotatedDigits"]


def test_dry_run_counts_jobs_per_method_and_does_nothing(
    tmp_path: Path, launched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("launch", tmp_path / "out", *SMALL, "--algorithms", "ERM", "SAM", "--dry_run") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ERM", "0", "0", "0", "0", "6", "6"] in lines
    assert ["SAM", "0", "0", "0", "0", "6", "6"] in lines
    told = "12 jobs: 0 done, 0 running, 0 incomplete, 0 failed, 12 not launched"
    assert told in [" ".join(line) for line in lines]
    assert not launched
    assert not (tmp_path / "out").exists()


def test_dry_run_of_the_papers_sweep_needs_no_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("launch", tmp_path, "--sweep", "paper_dg", "--dry_run") == 0
    assert "624 jobs:" in capsys.readouterr().out


def test_launch_runs_what_is_not_done_and_not_running_and_says_what_is_next(
    tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "my out"
    jobs = Sweep(["RotatedDigits"], ["ERM"], n_trials=1, n_hparams=1, single_test_envs=True).jobs(out)
    jobs[0].output_dir.mkdir(parents=True)
    (jobs[0].output_dir / "done").write_text("done")
    jobs[1].output_dir.mkdir()
    failures.write(jobs[2].output_dir, 1, [], 4)
    with held_elsewhere(jobs[3].output_dir) as other:
        monkeypatch.setattr(launch, "POLL", 0.01)
        monkeypatch.setattr(launch.time, "sleep", lambda seconds: finish(jobs[3], other))
        assert run("launch", out, *SMALL, "--algorithms", "ERM", "--skip_confirmation") == 0
    assert launched == [job.command for job in jobs[1:3] + jobs[4:]]
    assert not (jobs[2].output_dir / "failed.json").exists()
    printed = capsys.readouterr().out
    assert "6 jobs: 1 done, 1 running, 1 incomplete, 1 failed, 2 not launched\n" in printed
    assert "waiting for 1 jobs that other processes run\n" in printed
    assert printed.endswith(f"Results: {out}\nLeaderboard: domainbed-adm collect_results --input_dir '{out}'\n")


@pytest.mark.parametrize("name", ["-odd", "my 'out'", "$(touch a);b", "--help"])
def test_what_is_next_can_be_pasted(
    tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [f"--output_dir={name}", *SMALL, "--algorithms", "ERM", "--skip_confirmation"]
    assert cli(["sweep", "launch", *flags]) == 0
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("Leaderboard: domainbed-adm ")
    (tmp_path / name / "results.jsonl").write_text(json.dumps(record((0.5, 0.5), (0.4, 0.6))) + "\n")
    assert cli(shlex.split(line)) == 0


def finish(job: Job, other: subprocess.Popen[str]) -> None:
    (job.output_dir / "done").touch()
    other.kill()


def test_a_failed_job_makes_exit_code_1_and_is_tried_again(tmp_path: Path, launched: list[str]) -> None:
    flags = [*SMALL, "--algorithms", "ERM", "SAM", "--skip_confirmation", "--retries", "2"]
    assert run("launch", tmp_path, *flags) == 1
    assert len(launched) == 6 + 3 * 6
    assert [json.loads(path.read_text())["attempts"] for path in tmp_path.glob("*/failed.json")] == [3] * 6


def test_what_is_watched_is_passed_on_and_changes_no_folder(tmp_path: Path, launched: list[str]) -> None:
    flags = [*SMALL, "--algorithms", "ERM", "--skip_confirmation", "--trace_difficulty", "--tensorboard"]
    assert run("launch", tmp_path, *flags) == 0
    plain = Sweep(["RotatedDigits"], ["ERM"], n_trials=1, n_hparams=1, single_test_envs=True).jobs(tmp_path)
    for command, job in zip(launched, plain, strict=True):
        args, expected = (train.parse(shlex.split(line)[3:]) for line in (command, job.command))
        assert args == replace(expected, trace_difficulty=True, tensorboard=True)


def test_an_algorithm_given_twice_is_launched_once(tmp_path: Path, launched: list[str]) -> None:
    run("launch", tmp_path, *SMALL, "--algorithms", "ERM", "ERM", "--skip_confirmation")
    assert len(launched) == 6


def test_a_real_child_that_fails_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails = shlex.join([sys.executable, "-S", "-c", "import sys; sys.exit('no luck')"])
    monkeypatch.setattr(Job, "command", property(lambda job: fails))
    assert run("launch", tmp_path, *SMALL, "--algorithms", "ERM", "--skip_confirmation", "--jobs", "2") == 1
    errors = capsys.readouterr().err
    why = "6 x exit code 1 (2 attempts): no luck, first ERM on RotatedDigits, test_envs 0 ("
    assert errors.startswith(f"6 of 6 jobs failed:\n  {why}")
    assert run("status", tmp_path, *SMALL, "--algorithms", "ERM") == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(f"failed: {why}") for line in lines) == 1
    assert lines[-1] == "6 jobs: 0 done, 0 running, 0 incomplete, 6 failed, 0 not launched"
    assert run("delete_incomplete", tmp_path, *SMALL, "--algorithms", "ERM", "--skip_confirmation") == 0
    assert list(tmp_path.iterdir()) == []


def test_delete_incomplete_asks_and_deletes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = Sweep(["RotatedDigits"], ["ERM"], n_trials=1, n_hparams=1, single_test_envs=True).jobs(tmp_path)[0]
    job.output_dir.mkdir()
    flags = [*SMALL, "--algorithms", "ERM"]
    for answer, deleted, code in (("n\n", False, 2), ("", False, 2), ("y\n", True, 0)):
        monkeypatch.setattr(sys, "stdin", Terminal(answer))
        assert run("delete_incomplete", tmp_path, *flags) == code
        assert job.output_dir.exists() is not deleted
    assert capsys.readouterr().out.endswith("Deleted 1 folders\n")


def test_nobody_to_confirm_is_an_error(
    tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    assert run("launch", tmp_path / "out", *SMALL, "--algorithms", "ERM") == 2
    expected = "domainbed-adm: error: nobody to confirm: standard input is no terminal; pass --skip_confirmation\n"
    assert capsys.readouterr().err == expected
    assert not launched
    assert not (tmp_path / "out").exists()


def test_status_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", tmp_path, "--sweep", "smoke") == 0
    printed = capsys.readouterr().out
    assert "SAM_SSPL_Loss" in printed
    assert printed.endswith("30 jobs: 0 done, 0 running, 0 incomplete, 0 failed, 30 not launched\n")


WRONG = [
    (["--algorithms", "SAM_SSPL_ADN"], "Did you mean SAM_SSPL_ADM?"),
    (
        ["--algorithms", "ERM", "--command_launcher", "slrum"],
        "unknown command launcher 'slrum'. Did you mean slurm? Valid: local, multi_gpu",
    ),
    (["--algorithms", "ERM", "--retries", "-1"], "--retries must be at least 0, not -1"),
    (["--algorithms", "ERM", "--jobs", "0"], "--jobs must be at least 1, not 0"),
    (["--hparams", "{"], "--hparams is not JSON"),
    (["--sweep", "paper"], "unknown sweep 'paper'. Did you mean paper_dg?"),
    (["--datasets", "PACS"], "give --data_dir, the folder that holds PACS/<domain>/<class>/<image>"),
]


@pytest.mark.parametrize(("flags", "message"), WRONG)
def test_a_mistake_is_one_line_with_exit_code_2_and_leaves_nothing(
    tmp_path: Path, launched: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert run("launch", tmp_path / "out", *SMALL, *flags, "--skip_confirmation") == 2
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.count("\n") == 1
    assert not launched
    assert not (tmp_path / "out").exists()


def test_an_output_dir_below_a_file_is_an_error(
    tmp_path: Path, launched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("launch", tmp_path / "file" / "out", *SMALL, "--skip_confirmation") == 2
    assert "cannot be written: Not a directory" in capsys.readouterr().err
    assert not launched


def test_output_dir_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        sweep.main(["status"])
    assert caught.value.code == 2
    assert "required: --output_dir" in capsys.readouterr().err
