"""What a sweep's folder should hold: written by launches, known without their flags and without the data."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import words
from domainbed_adm.sweeping.jobs import Sweep
from domainbed_adm.sweeping.plan import add_to_plan, drop_from_plan, planned_jobs

DIGITS = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)


def names(folder: Path) -> list[str]:
    return [job.name for job in planned_jobs(folder)]


def test_a_folder_without_a_plan_has_no_planned_jobs(tmp_path: Path) -> None:
    assert planned_jobs(tmp_path) == []
    assert planned_jobs(tmp_path / "none") == []


def test_the_jobs_are_those_of_the_launch(tmp_path: Path) -> None:
    sweep = replace(DIGITS, steps=3, hparams='{"lr": 0.1}', holdout_fraction=0.5, data_dir="my data", checkpoint_freq=2)
    add_to_plan(tmp_path, sweep)
    assert planned_jobs(tmp_path) == sweep.jobs(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]
    (launch,) = json.loads((tmp_path / "sweep.json").read_text())["launches"]
    assert (launch["environments"], launch["sweep"]["steps"]) == ({"RotatedDigits": 6}, 3)


@pytest.mark.parametrize("flag", [name for name in vars(DIGITS) if name not in ("datasets", "algorithms")])
def test_a_flag_that_an_older_plan_lacks_counts_as_its_default(tmp_path: Path, flag: str) -> None:
    sweep = Sweep(["RotatedDigits"], ["ERM"])
    add_to_plan(tmp_path, sweep)
    plan = json.loads((tmp_path / "sweep.json").read_text())
    del plan["launches"][0]["sweep"][flag]
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    assert names(tmp_path) == [job.name for job in sweep.jobs(tmp_path)]
    add_to_plan(tmp_path, sweep)
    assert len(json.loads((tmp_path / "sweep.json").read_text())["launches"]) == 1


def test_later_launches_extend_it_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    more = replace(DIGITS, algorithms=["ERM", "SAM"], n_trials=2)
    add_to_plan(tmp_path, DIGITS)
    add_to_plan(tmp_path, more)
    assert len(names(tmp_path)) == 24
    assert set(names(tmp_path)) == {job.name for job in more.jobs(tmp_path)}
    before = (tmp_path / "sweep.json").read_bytes()
    add_to_plan(tmp_path, more)
    assert (tmp_path / "sweep.json").read_bytes() == before
    add_to_plan(tmp_path, replace(DIGITS, steps=7))
    assert len(names(tmp_path)) == 30


def test_a_launch_leaves_once_none_of_its_jobs_has_a_folder(tmp_path: Path) -> None:
    mistaken = replace(DIGITS, steps=7)
    add_to_plan(tmp_path, mistaken)
    add_to_plan(tmp_path, DIGITS)
    (mistaken.jobs(tmp_path)[3].output_dir).mkdir()
    drop_from_plan(tmp_path)
    assert names(tmp_path) == [job.name for job in mistaken.jobs(tmp_path)]
    shutil.rmtree(mistaken.jobs(tmp_path)[3].output_dir)
    drop_from_plan(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_it_is_read_without_the_data(tmp_path: Path, image_folder: Path) -> None:
    sweep = replace(DIGITS, datasets=["Shapes"], data_dir=str(image_folder))
    add_to_plan(tmp_path / "out", sweep)
    jobs = sweep.jobs(tmp_path / "out")
    shutil.rmtree(image_folder)
    assert planned_jobs(tmp_path / "out") == jobs
    assert len(jobs) == 3


@pytest.mark.parametrize("content", ["", "{", "[]", '{"launches": [1]}', '{"launches": [{"sweep": {}}]}', "\xff"])
def test_what_is_no_plan_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "sweep.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"sweep.json is no plan of a sweep \(.*\): remove it, and launch"):
        planned_jobs(tmp_path)


@pytest.fixture
def launched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a launch with --steps 7 of which nothing ran but is incomplete."""
    monkeypatch.setattr("domainbed_adm.sweeping.launchers.local.local", lambda commands: [0] * len(commands))
    flags = ["--datasets", "RotatedDigits", "--algorithms", "ERM", "SAM", "--steps", "7", "--n_trials", "1"]
    flags += ["--n_hparams", "1", "--single_test_envs", "--skip_confirmation"]
    assert main(["sweep", "launch", str(tmp_path / "out"), *flags]) == 0
    planned_jobs(tmp_path / "out")[2].output_dir.mkdir()
    return tmp_path / "out"


def test_status_and_deletion_need_no_flag_but_the_folder(launched: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["status", str(launched)], ["status", "--output_dir", str(launched)]):
        assert main(["sweep", *given]) == 0
        told = capsys.readouterr().out
        assert "12 jobs: 0 done, 0 running, 1 incomplete, 0 failed, 11 not launched\n" in told
        assert "SAM" in told
    assert main(["sweep", "status", str(launched), "--sweep", "smoke"]) == 0
    assert "30 jobs: 0 done" in capsys.readouterr().out  # flags that are given count
    assert main(["sweep", "delete_incomplete", "--skip_confirmation", str(launched)]) == 0
    assert capsys.readouterr().out.endswith("Deleted 1 folders\n")
    assert list(launched.iterdir()) == []


def test_a_folder_that_no_launch_wrote_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "status", str(tmp_path)]) == 2
    assert f"{tmp_path} has no sweep.json, which sweep launch writes: give the flags of the launch too" in (
        capsys.readouterr().err
    )
    assert main(["sweep", "status", "--output_dir", str(tmp_path), "--algorithms", "ERM"]) == 0


def test_flags_that_say_how_to_run_reach_every_job_and_change_no_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--datasets", "RotatedDigits", "--algorithms", "ERM", "--n_trials", "1", "--n_hparams", "1"]
    flags += ["--single_test_envs", "--command_launcher", "dummy", "--output_dir", str(tmp_path)]
    how = [
        "--workers",
        "0",
        "--threads",
        "2",
        "--checkpoint_every",
        "5",
        "--save_model_every_checkpoint",
        "--cache",
        "--cache_dir",
        "d",
    ]
    plain = DIGITS.jobs(tmp_path)
    others = [
        (words({name: value}), replace(DIGITS, **{name: value}).jobs(tmp_path))
        for name, value in {"checkpoint_freq": 5, "precision": "bf16", "compile": True, "augment_on": "device"}.items()
    ]
    for given, jobs in ((how, plain), *others):
        assert main(["sweep", "launch", *flags, *given]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Dummy launcher: ")]
        for line, job in zip(lines, jobs, strict=True):
            assert f" --output_dir {job.output_dir} " in line
            assert all(word in line.split() for word in given)
    for _, jobs in others:  # another number of records, or results in other bits, is another run
        assert {job.name for job in plain}.isdisjoint(job.name for job in jobs)
    defaults = replace(DIGITS, precision="fp32", compile=False, augment_on="cpu")
    assert [job.name for job in defaults.jobs(tmp_path)] == [job.name for job in plain]
    assert planned_jobs(tmp_path) == []
