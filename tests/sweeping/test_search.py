"""Searches: what a trial is, who runs it, and that none is lost or run by two."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import domainbed_adm
from domainbed_adm.cli import main
from domainbed_adm.leaderboard import Board
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from domainbed_adm.run_files import JOURNAL, PRUNED, SEARCH
from domainbed_adm.sweeping.jobs import Job
from domainbed_adm.sweeping.plan import planned_jobs
from domainbed_adm.sweeping.search import curve, objective, read_search
from domainbed_adm.sweeping.search_space import as_json, from_json, space_of
from domainbed_adm.sweeping.study import Study, Trial
from tests.runs import as_runs, record
from tests.sweeping.searching import FLAGS, stand_in, trials

pytest.importorskip("optuna", reason="the extra [search]")


@pytest.fixture(autouse=True)
def _quick_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "command", stand_in())


def search(folder: Path, *flags: str) -> int:
    return main(["search", *FLAGS, "--output_dir", str(folder), *flags])


def told(folder: Path) -> list[Trial]:
    there = read_search(folder)
    assert there is not None
    return Study(folder, there).trials()


def test_a_trial_is_a_job_folder_that_collect_results_reads(tmp_path: Path) -> None:
    flags = ["--n_trials", "4", "--hparams", '{"cnn_width": 8}', "--test_envs", "1", "3", "--n_trial_seeds", "2"]
    assert search(tmp_path, *flags, "--jobs", "2") == 0
    runs = load_runs(tmp_path)
    assert len(runs) == 4 * 2 * 2
    assert Counter((run.hparams_seed, *run.test_envs, run.trial_seed) for run in runs).most_common(1)[0][1] == 1
    for trial in told(tmp_path):
        own = [run for run in runs if run.hparams_seed == trial.number + 1]
        assert {run.hparams["cnn_width"] for run in own} == {8}
        assert all(run.hparams | trial.values == run.hparams for run in own)
        # what collect_results ranks each run by
        ranked = [SELECTION_METHODS["training-domain"].run_acc(run, [run], run.test_envs[0]) for run in own]
        assert trial.value == pytest.approx(sum(one.val_acc for one in ranked if one) / 4)
    best = max(told(tmp_path), key=lambda trial: trial.value or 0)
    board = Board(runs, [SELECTION_METHODS["training-domain"]])
    of_seed_0 = [run for run in board.runs_of["RotatedDigits", "SAM", 1] if run.trial_seed == 0]
    chosen = SELECTION_METHODS["training-domain"].chosen(of_seed_0, 1)
    assert chosen is not None
    assert chosen[0] == best.number + 1
    assert {job.output_dir for job in planned_jobs(tmp_path)} == {run.folder for run in runs}
    assert main(["sweep", "status", str(tmp_path)]) == 0


def test_the_objective_does_not_see_the_test_environment() -> None:
    shown = [
        as_runs(*(record((acc, acc), (0.3, 0.2 + step / 10), (0.4, 0.4), step=step) for step in range(3)))
        for acc in (0.0, 0.5, 1.0)
    ]
    assert [objective(runs) for runs in shown] == [pytest.approx(0.4)] * 3
    assert len({tuple(curve(runs)) for runs in shown}) == 1
    assert objective([shown[0][0], None]) == pytest.approx(0.2)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_the_same_search_has_the_same_trials_however_many_run_them(tmp_path: Path, sampler: str) -> None:
    alone, beside = tmp_path / "alone", tmp_path / "beside"
    assert search(alone, "--n_trials", "12", "--sampler", sampler) == 0
    assert search(beside, "--n_trials", "5", "--sampler", sampler) == 0
    assert search(beside, "--n_trials", "12", "--sampler", sampler, "--jobs", "1" if sampler == "tpe" else "3") == 0
    ours, theirs = ([trial.values for trial in told(folder)] for folder in (alone, beside))
    assert len(ours) == 12
    assert ours == theirs
    assert len({json.dumps(values) for values in ours}) == 12


def test_random_trials_are_spread_as_the_registry_draws(tmp_path: Path) -> None:
    assert search(tmp_path, "--dry_run") == 0
    assert not list(tmp_path.iterdir())
    assert search(tmp_path, "--n_trials", "1", "--sampler", "random") == 0
    there = read_search(tmp_path)
    assert there is not None
    points = [there.point(number) for number in range(400)]
    logs = sorted(math.log10(point["lr"]) for point in points if point)
    assert -4.5 <= logs[0] < -4.4
    assert -2.6 < logs[-1] <= -2.5
    assert abs(sum(logs) / 400 + 3.5) < 0.1
    sizes = sorted(point["batch_size"] for point in points if point)
    assert (sizes[0], sizes[-1] > 450, abs(math.log2(sizes[200]) - 6) < 0.3) == (8, True, True)


def test_what_a_run_does_not_read_is_not_searched() -> None:
    plain = space_of("SAM", "RotatedDigits", [], {}, {})
    assert list(plain) == ["lr", "batch_size", "rho"]
    assert list(space_of("SAM", "RotatedDigits", [], {}, {"averaging": "ema"})) == [
        "lr",
        "batch_size",
        "ema_decay",
        "rho",
    ]
    assert "resnet_dropout" in space_of("SAM", "PACS", [], {}, {})
    assert from_json(json.loads(json.dumps(as_json(plain)))) == plain


def test_tpe_learns(tmp_path: Path) -> None:
    assert search(tmp_path, "--n_trials", "40", "--search", "lr", "--jobs", "2") == 0
    values = [trial.value or 0 for trial in told(tmp_path)]
    assert sum(values[20:]) / 20 > sum(values[:10]) / 10 + 0.02
    assert max(values) > 0.98


def test_a_grid_is_tried_once_and_no_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    space = '{"lr": {"low": 1e-4, "high": 1e-2, "log": true}, "optimizer": ["adam", "sgd"]}'
    flags = ["--sampler", "grid", "--search_space", space, "--n_trials", "40", "--jobs", "3"]
    assert search(tmp_path, *flags) == 0
    points = {(round(math.log10(t.values["lr"]), 6), t.values["optimizer"]) for t in told(tmp_path)}
    assert points == {(lr, name) for lr in (-4, -3, -2) for name in ("adam", "sgd")}
    assert len(told(tmp_path)) == 6
    assert "the grid has 6 points" in capsys.readouterr().out


def test_pruned_trials_are_stopped_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Job, "command", stand_in(8, 0.1))
    assert search(tmp_path, "--n_trials", "12", "--sampler", "random", "--prune", "--jobs", "2") == 0
    states = Counter(trial.state for trial in told(tmp_path))
    assert states["PRUNED"] >= 1
    assert states["PRUNED"] + states["COMPLETE"] == 12
    marked = {path.parent.name for path in tmp_path.glob(f"*/{PRUNED}")}
    assert len(marked) == states["PRUNED"]
    assert not any((tmp_path / name / "done").exists() for name in marked)
    assert {job.name for job in planned_jobs(tmp_path)}.isdisjoint(marked)
    best = max(told(tmp_path), key=lambda trial: trial.value or 0)
    assert best.state == "COMPLETE"
    assert "stopped early" in capsys.readouterr().out


def test_a_run_that_is_not_finite_counts_as_the_worst(tmp_path: Path) -> None:
    space = '{"lr": {"low": 1e-5, "high": 9e-5}}'
    assert search(tmp_path, "--n_trials", "1", "--search_space", space, "--hparams", '{"label_smoothing": 0.1}') == 0
    assert [(trial.state, trial.value) for trial in told(tmp_path)] == [("COMPLETE", 0.0)]


def test_a_mistake_of_the_first_trial_ends_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Job, "command", property(lambda job: f"{sys.executable} -S -c 'import sys; sys.exit(2)'"))
    assert search(tmp_path, "--n_trials", "3") == 2
    assert "trial 0 cannot run" in capsys.readouterr().err
    monkeypatch.setattr(Job, "command", property(lambda job: f"{sys.executable} -S -c 'import sys; sys.exit(1)'"))
    assert search(tmp_path, "--n_trials", "3", "--retries", "0") == 1
    assert [trial.state for trial in told(tmp_path)] == ["FAIL"] * 3


def test_a_torn_line_of_the_journal_is_dropped(tmp_path: Path) -> None:
    assert search(tmp_path, "--n_trials", "2") == 0
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert search(tmp_path, "--n_trials", "3") == 0
    assert [trial.state for trial in told(tmp_path)] == ["COMPLETE"] * 3


WRONG = {
    "another method": (["--algorithm", "ERM"], "holds a search of SAM on RotatedDigits: --algorithm (['SAM'] there"),
    "another dataset": (["--dataset", "Debug28"], "holds a search of SAM on RotatedDigits: --dataset"),
    "another range": (["--search", "lr"], "range of rho"),
    "nothing to search": (["--hparams", '{"lr": 0.1, "batch_size": 8, "rho": 0.1}'], "nothing to search"),
    "an unknown name": (["--search", "rhoo"], "unknown hparam of SAM 'rhoo'. Did you mean rho?"),
    "a fixed unknown name": (["--hparams", '{"rhoo": 1}'], "unknown hparam 'rhoo'"),
    "another method's name": (["--search", "adm_alpha"], "unknown hparam of SAM"),
    "no range": (["--search", "momentum"], "momentum has no range of its own"),
    "both": (["--search", "rho", "--hparams", '{"rho": 0.1}'], "searched, and --hparams fixes it"),
    "not JSON": (["--search_space", "{"], "--search_space is not JSON"),
    "no file": (["--search_space", "absent.json"], "absent.json cannot be read"),
    "one value": (["--search_space", '{"rho": [0.1]}'], "no two different values"),
    "out of range": (["--search_space", '{"rho": {"low": -1, "high": 1}}'], "hparam rho must be"),
    "empty range": (["--search_space", '{"rho": {"low": 1, "high": 1}}'], "low must be below high"),
    "no range of choices": (["--search_space", '{"optimizer": {"low": 1, "high": 2}}'], "give a list of values"),
    "no such environment": (["--test_envs", "6"], "--test_envs 6 is none of the 6 environments"),
    "no out-split": (["--holdout_fraction", "0"], "--holdout_fraction must be above 0"),
    "no trial": (["--n_trials", "0"], "--n_trials must be at least 1"),
    "an odd sampler": (["--sampler", "bayes"], "invalid choice"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    assert search(tmp_path, "--n_trials", "1") == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    flags, expected = WRONG[case]
    try:
        code = search(tmp_path, *flags)
    except SystemExit as ended:
        code = int(ended.code or 0)
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1), err
    assert expected in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_without_optuna_it_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert search(tmp_path / "out") == 2
    assert capsys.readouterr().err == (
        "domainbed-adm: error: a search needs Optuna: pip install 'domainbed-adm[search]'\n"
    )
    assert not (tmp_path / "out").exists()


def test_a_damaged_study_and_a_sweep_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert search(tmp_path, "--n_trials", "1") == 0
    (tmp_path / JOURNAL).write_text("no journal\nat all\n")
    assert search(tmp_path, "--n_trials", "2") == 2
    (tmp_path / SEARCH).write_text("{}")
    assert search(tmp_path, "--n_trials", "2") == 2
    (tmp_path / SEARCH).unlink()
    assert search(tmp_path, "--n_trials", "2") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    for line, expected in zip(lines, ("no journal of Optuna", "is no search", "holds a sweep"), strict=True):
        assert expected in line


def test_four_searchers_of_which_two_are_killed_lose_and_double_nothing(tmp_path: Path) -> None:
    n_trials, folder = 24, tmp_path / "study"
    environment = os.environ | {"PYTHONPATH": str(Path(domainbed_adm.__file__).parents[1])}
    command = [sys.executable, "-m", "tests.sweeping.searching", *FLAGS, "--n_trials", str(n_trials)]
    command += ["--sampler", "random", "--output_dir", str(folder)]
    with (tmp_path / "told").open("wb") as told_:
        searchers = [
            subprocess.Popen(command, stdout=told_, stderr=told_, env=environment, cwd=tmp_path.parents[0])
            for _ in range(4)
        ]
        deadline = time.monotonic() + 60
        for number, killed in enumerate(searchers[:2], 1):
            while time.monotonic() < deadline and len(list(folder.glob("*/done"))) < 6 * number:
                time.sleep(0.01)
            killed.send_signal(signal.SIGKILL)
        codes = [one.wait(60) for one in searchers]
    assert codes[:2] == [-9, -9], (tmp_path / "told").read_text()
    assert codes[2:] == [0, 0], (tmp_path / "told").read_text()
    assert [(trial.number, trial.state) for trial in told(folder)] == [(i, "COMPLETE") for i in range(n_trials)]
    assert [one["args"]["hparams_seed"] for one in trials(folder)] == list(range(1, n_trials + 1))  # type: ignore[index]
    assert {path.read_text() for path in folder.glob("*/done")} == {"done"}
    assert all(len(path.read_text().splitlines()) == 2 for path in folder.glob("*/results.jsonl"))
    assert len(planned_jobs(folder)) == n_trials
