"""What ``evaluate`` measured, as a table: hand-written files, means by hand."""

import numpy as np
import pytest

from domainbed_adm.analysis.evaluation_files import Attack
from domainbed_adm.cli import main
from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.evaluations import evaluated_runs, evaluation_sheet
from domainbed_adm.records import load_runs
from tests.evaluated import add_evaluation, add_run, corrupted


def sheets(root):
    return [evaluation_sheet(runs) for runs in evaluated_runs(Board(load_runs(root), []))]


def test_each_column_is_the_mean_over_trials_and_its_standard_error(tmp_path):
    for trial, accuracy in enumerate((0.9, 0.8, 0.7)):
        folder = add_run(tmp_path, "ERM", trial)
        add_evaluation(folder, "Digits", {"test": (accuracy, 0.5 + trial, 0.02), "train": (1, 0, 0)})
        add_evaluation(folder, "Digits", {"test": (accuracy / 2, 3, 0.5)}, Attack(1 / 255, 10, 0))
        add_evaluation(folder, "DigitsC", corrupted(lambda name, severity: 0.1 * severity + 0.2 * (name == "blur")))
    add_evaluation(add_run(tmp_path, "SAM", 0), "Digits", {"test": (0.95, 0.25, 0.01)})
    add_run(tmp_path, "SAM", 1)
    add_run(tmp_path, "SAGM", 0)
    (sheet,) = sheets(tmp_path)
    assert sheet.columns == (*("accuracy", "DigitsC: corruption error", "PGD 1/255, 10 steps: accuracy", "NLL", "ECE"),)
    error = np.std([0.9, 0.8, 0.7]) / np.sqrt(3)
    assert sheet.rows == (
        *(
            (
                "ERM",
                f"80.00±{100 * error:.2f}",
                "34.00±0.00",
                f"40.00±{50 * error:.2f}",
                f"1.5000±{np.std([0, 1, 2]) / np.sqrt(3):.4f}",
                "2.00±0.00",
            ),
            ("SAM", "95.00", "X", "X", "0.2500", "1.00"),
        ),
    )
    assert "over n = 1 to 3 trials. X" in sheet.note


def test_the_error_by_corruption_is_the_mean_over_severities_and_trials(tmp_path):
    for trial in range(2):
        figures = corrupted(lambda name, severity, t=trial: 0.1 * severity + (0.1 + 0.2 * t) * (name == "blur"))
        add_evaluation(add_run(tmp_path, "ERM", trial), "DigitsC", figures)
    (runs,) = evaluated_runs(Board(load_runs(tmp_path), []))
    errors = runs.error_by_corruption(("DigitsC", ""))["ERM"]
    assert errors == pytest.approx({"noise": 0.3, "blur": 0.5, "contrast": 0.3, "brightness": 0.3, "pixelate": 0.3})


def test_the_four_extra_corruptions_have_no_mean(tmp_path):
    folder = add_run(tmp_path, "ERM", 0, dataset="CIFAR10")
    add_evaluation(folder, "CIFAR10C", corrupted(lambda *_: 0.25, "CIFAR10C"))
    add_evaluation(folder, "CIFAR10CExtra", corrupted(lambda *_: 0.5, "CIFAR10CExtra"))
    (sheet,) = sheets(tmp_path)
    assert (sheet.columns, sheet.rows) == (("CIFAR10C: corruption error",), (("ERM", "25.00"),))
    (runs,) = evaluated_runs(Board(load_runs(tmp_path), []))
    assert len(runs.error_by_corruption(("CIFAR10CExtra", ""))["ERM"]) == 4


def test_an_incomplete_corrupted_set_has_no_mean(tmp_path):
    figures = corrupted(lambda *_: 0.5)
    figures.pop("blur-3")
    folder = add_run(tmp_path, "ERM", 0)
    add_evaluation(folder, "DigitsC", figures)
    (sheet,) = sheets(tmp_path)
    assert (sheet.columns, sheet.rows) == ((), ())
    assert not sheet.is_known
    (runs,) = evaluated_runs(Board(load_runs(tmp_path), []))
    assert runs.error_by_corruption(("DigitsC", ""))["ERM"].keys() == {"noise", "contrast", "brightness", "pixelate"}


def test_a_trial_counts_where_every_test_environment_was_measured(tmp_path):
    for trial in range(2):
        for env in range(2 - trial):
            folder = add_run(tmp_path, "ERM", trial, dataset="PACS", test_envs=(env,))
            add_evaluation(folder, "PACS", {"AC"[env]: (0.6 + 0.2 * env, 1, 0), "S": (0.1, 9, 0)})
    folder = add_run(tmp_path, "ERM", 2, dataset="PACS", test_envs=(0,))
    add_evaluation(folder, "PACS", {"A": (0.2, 1, 0)})
    add_run(tmp_path, "ERM", 2, dataset="PACS", test_envs=(1,))  # there, but not measured
    (sheet,) = sheets(tmp_path)
    assert sheet.rows == (("ERM", "70.00", "1.0000", "0.00"),)


def test_of_hparams_seeds_the_best_on_the_source_counts_though_it_is_not_measured(tmp_path):
    for seed, out in enumerate((0.8, 0.9, 0.7)):
        folder = add_run(tmp_path, "ERM", 0, hparams=seed, out=out)
        add_evaluation(folder, "Digits", {"test": (seed / 10, 1, 0)})
    (sheet,) = sheets(tmp_path)
    assert sheet.rows[0][1] == "10.00"
    (folder / "evaluation_Digits.json").unlink()
    assert sheets(tmp_path)[0].rows == sheet.rows
    add_run(tmp_path, "ERM", 0, hparams=3, out=0.99)
    assert sheets(tmp_path)[0].rows == ()


def test_the_papers_layout_prints_it_after_the_leaderboards_and_latex_has_it(tmp_path, capsys):
    folder = add_run(tmp_path, "ERM", 0)
    command = ["collect_results", "--input_dir", str(tmp_path)]
    assert main([*command, "--layout", "paper"]) == 0
    assert "Evaluations" not in capsys.readouterr().out
    path = add_evaluation(folder, "DigitsC", corrupted(lambda *_: 0.25))
    assert main([*command, "--layout", "paper"]) == 0
    out = capsys.readouterr().out
    assert "Evaluations of the last models, trained on Digits" in out
    assert "25.00" in out
    assert main([*command, "--layout", "paper", "--latex"]) == 0
    assert r"\textbf{DigitsC: corruption error}" in capsys.readouterr().out
    assert main(command) == 0
    assert "Evaluations" not in capsys.readouterr().out  # DomainBed's text
    path.write_text("{")
    assert main([*command, "--layout", "paper"]) == 0
    out, err = capsys.readouterr()
    assert "Evaluations" not in out
    assert f"warning: {path} left out: no result of evaluate" in err
