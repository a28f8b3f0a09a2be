"""The paper's tables beside accuracy: Hessian, corruptions, published numbers, seconds an epoch; hand-written files."""

import json

import pytest

from domainbed_adm.analysis.result_files import DomainFlatness, Flatness, save_flatness
from domainbed_adm.cli import main
from domainbed_adm.leaderboard import Board, domainbed_sheets
from domainbed_adm.leaderboard.evaluations import corruption_sheets, evaluated_runs
from domainbed_adm.leaderboard.hessian import eigenvalues, hessian_sheet
from domainbed_adm.leaderboard.last_models import epoch_time, last_model_sheets
from domainbed_adm.leaderboard.layouts import blocks, domainbed_text, written
from domainbed_adm.leaderboard.published import published_hessian, published_rows, published_sheets, tables
from domainbed_adm.method.grid import METHODS
from domainbed_adm.model_selection import LAST_EPOCH
from domainbed_adm.records import load_runs
from tests.evaluated import add_evaluation, add_run, corrupted
from tests.runs import as_runs, record, write

FINE = ("StanfordCars", "FGVCAircraft", "CUB200", "Food101")
#: Means of the rows of the poster's fine-grained table, from its text: Cars, Aircraft, CUB, Food.
SUMS = {"ERM": 302.03, "SSPL_ADM": 306.52, "SAM": 304.75, "SAM_SPL_ADM": 305.28, "SAM_SSPL_ADM": 308.62}


def one_run(algorithm="ERM", trial=0, dataset="CIFAR10", accuracy=0.5, hparams=None, **more):
    about = {"dataset": dataset, "test_envs": (1,), "algorithm": algorithm, "trial_seed": trial}
    hparams = {"optimizer": "sgd", **(hparams or {})}
    return record((0.9, None), (accuracy, None), hparams=hparams, **about, **more)


def measure(folder, algorithm, trial, eigenvalue, dataset="CIFAR10", converged=True):
    """``hessian.json`` as analyze leaves it."""
    about = dict.fromkeys(
        ("loss", "accuracy", "trace", "trace_sem", "sharpness", "random_rise", "random_rise_sem"), 0.0
    )
    about |= {"n": 48, "converged": converged, "trace_vectors": 1}
    domains = [
        DomainFlatness(name=role, role=role, eigenvalues=[value, 0.5], **about)
        for role, value in (("source", 1.0), ("pooled", eigenvalue), ("test", 99.0))
    ]
    return save_flatness(
        Flatness(
            model="model.pkl", algorithm=algorithm, dataset=dataset, test_envs=[1], trial_seed=trial, hparams_seed=0,
            samples=48, batch_size=16, seed=0, dtype="float32", device="cpu", mode="no BatchNorm", versions={},
            rho=0.05, tolerance=0.01, trace_tolerance=0.1, domains=domains,
        ),
        folder,
    )  # fmt: skip


def test_the_hessian_table_has_curricula_as_rows_and_optimizers_as_columns(tmp_path):
    values = {"ERM": (8.0, 9.0), "SAM": (3.0, 4.0), "SPL_ADM": (6.0, 6.0), "SAM_SSPL_ADM": (5.0, 7.0)}
    for algorithm, by_trial in values.items():
        for trial, value in enumerate(by_trial):
            folder = write(tmp_path / f"{algorithm}{trial}", one_run(algorithm, trial))
            measure(folder, algorithm, trial, value)
    measure(write(tmp_path / "more", one_run("SAM", 2)), "SAM", 2, 0.1, converged=False)  # not the largest
    board = Board(load_runs(tmp_path), [LAST_EPOCH])
    found = eigenvalues(board)
    sheet = hessian_sheet(board, found)
    assert sheet.columns == ("CIFAR10, SGD", "CIFAR10, SAM")
    assert [(*row[:2], *(written(cell, 2, "±") for cell in row[2:])) for row in sheet.rows] == [
        ("ERM", "-", "8.50±0.35", "3.50±0.35"),
        ("SPL", "ADM", "6.00±0.00", "X"),
        ("SSPL", "ADM", "X", "6.00±0.71"),
    ]
    assert sheet.best() == {(1, 2), (0, 3)}
    rows = {row[1]: row[2:] for row in published_hessian(board, found).rows}
    assert rows["ERM"][:4] == ("8.50±0.35", "2", "8.25", "1.03")
    assert (rows["SPL_ADM"][2], rows["SAM_SSPL_ADM"][2], rows["SAM"][2]) == ("6.17", "6.11", "3.03")


def test_a_result_of_another_run_is_left_out(tmp_path, capsys):
    path = measure(write(tmp_path / "a", one_run()), "SAM", 0, 1.0)
    assert eigenvalues(Board(load_runs(tmp_path), [LAST_EPOCH])).trials == {}
    assert f"warning: {path} left out" in capsys.readouterr().err


def test_corruptions_are_columns_and_the_lowest_error_is_best(tmp_path):
    for trial in range(2):
        for algorithm, error in (("ERM", 0.5), ("SAM", 0.25)):
            folder = add_run(tmp_path, algorithm, trial, dataset="CIFAR10")
            figures = corrupted(lambda name, _, e=error, t=trial: e + 0.1 * t * (name == "fog"), "CIFAR10C")
            add_evaluation(folder, "CIFAR10C", figures)
    (runs,) = evaluated_runs(Board(load_runs(tmp_path), []))
    (sheet,) = corruption_sheets(runs)
    assert sheet.title == "CIFAR10C: error in % by corruption, trained on CIFAR10"
    assert len(sheet.columns) == 16
    assert written(sheet.rows[1][1 + sheet.columns.index("fog")], 2, "±") == "30.00±3.54"
    assert written(sheet.rows[1][-1], 2, "±") == f"{25 + 5 / 15:.2f}±{10 / 15 / 2 / 2**0.5:.2f}"
    assert {i for i, _ in sheet.best()} == {1}
    parts = blocks(sheet)
    assert [len(part.columns) for part in parts] == [8, 8]
    assert [part.title[-8:] for part in parts] == ["(1 of 2)", "(2 of 2)"]
    assert sum((part.columns for part in parts), ()) == sheet.columns
    assert [bool(part.note) for part in parts] == [False, True]


def test_rows_for_programs_have_what_was_evaluated(tmp_path, capsys):
    folder = add_run(tmp_path, "ERM", 0)
    add_evaluation(folder, "Digits", {"test": (0.9, 0.5, 0.02)})
    add_evaluation(folder, "DigitsC", corrupted(lambda name, severity: 0.1 * severity + 0.2 * (name == "blur")))
    assert main(["collect_results", "--input_dir", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len({tuple(row) for row in rows}) == 1
    assert all(row["n"] == 1 and row["trial_seeds"] == [0] for row in rows if row["measured_on"] == "DigitsC")
    found = {(row["measured_on"], row["environment"], row["quantity"], row["unit"]): row["mean"] for row in rows}
    assert found["DigitsC", "Avg", "error", "%"] == pytest.approx(34)
    assert found["DigitsC", "blur", "error", "%"] == pytest.approx(50)
    assert found["Digits", "Avg", "nll", "nats"] == pytest.approx(0.5)
    assert found["Digits", "Avg", "ece", "%"] == pytest.approx(2)
    assert main(["collect_results", "--input_dir", str(tmp_path), "--csv"]) == 0
    assert capsys.readouterr().out.count("DigitsC,,") == 6


def test_a_corrupted_set_has_a_column_for_each_corruption_in_domainbeds_layout(tmp_path):
    one = record((0.9, 0.8), *((0.1 * (1 + i % 5), None) for i in range(25)), dataset="DigitsC", test_envs=range(1, 26))
    board = Board(as_runs(one), [LAST_EPOCH])
    sheet = domainbed_sheets(board, LAST_EPOCH)[0]
    assert sheet.columns == ("noise", "blur", "contrast", "brightness", "pixelate", "Avg")
    lines = domainbed_text([sheet], 1).splitlines()
    assert lines[2] == "-------- Dataset: DigitsC, mean over severities, model selection method: last epoch"
    assert lines[4].split() == ["ERM", *(["30.0", "+/-", "0.0"] * 5), "30.0"]
    assert max(map(len, lines)) < 160


def test_seconds_an_epoch_and_calibration_are_the_last_records():
    figures = {"env1_in_nll": 0.25, "env1_in_ece": 0.03, "epoch": 0.0, "step_time": 9.0}
    last = {**figures, "epoch": 2.0, "step_time": 0.5, "env1_in_nll": 0.125}
    runs = as_runs(one_run(step=0, **figures), one_run(step=80, **last))
    assert epoch_time(runs[0]) == pytest.approx(40 * 0.5)
    (sheet,) = last_model_sheets(Board(runs, [LAST_EPOCH]))
    assert sheet.columns == ("F a step", "NLL", "ECE", "s an epoch")
    assert sheet.rows == (("ERM", "3", "0.1250", "3.00", "20.00"),)
    assert last_model_sheets(Board(as_runs(one_run()), [LAST_EPOCH])) == []


def test_the_fine_grained_table_is_the_posters():
    table = tables()[1]
    by_algorithm = {}
    for algorithm, dataset, entry, _ in table.numbers:
        by_algorithm.setdefault(algorithm, {})[dataset] = entry
    assert len(by_algorithm) == 12
    assert by_algorithm.keys() < METHODS.keys()
    assert all(tuple(own) == FINE and all(0 < one.sem < 0.8 for one in own.values()) for own in by_algorithm.values())
    for algorithm, total in SUMS.items():
        assert sum(one.mean for one in by_algorithm[algorithm].values()) == pytest.approx(total)


def test_what_differs_from_the_published_runs_is_told():
    recipe = {"backbone": "cifar_resnet18", "rho": 0.2, "fsam_lambda": 0.6}
    runs = [one_run("FSAM", trial, "CIFAR100", 0.8 + trial / 100, recipe) for trial in range(2)]
    board = Board(as_runs(*runs), [LAST_EPOCH])
    logs = next(table for table in tables() if table.name.startswith("F-SAM"))
    same, other = published_rows(board, LAST_EPOCH, logs)
    assert (same.label, same.published.mean, same.no_standard_errors) == (
        "FSAM (fsam_lambda 0.6)", 81.19, "no error is published",
    )  # fmt: skip
    assert (other.published.mean, other.no_standard_errors) == (81.32, "not comparable: fsam_lambda 0.6")
    (sheet,) = published_sheets(board, LAST_EPOCH)
    assert "reports the best epoch on the test set: SAM 80.88, F-SAM 81.38" in sheet.note
    short = [{**run, "args": run["args"] | {"epochs": 2}, "hparams": {**recipe, "optimizer": "adam"}} for run in runs]
    (row, _) = published_rows(Board(as_runs(*short), [LAST_EPOCH]), LAST_EPOCH, logs)
    assert row.no_standard_errors == "not comparable: 2 epochs, optimizer adam"


def test_published_numbers_stand_beside_in_the_papers_layout(tmp_path, capsys):
    for trial in range(2):
        write(tmp_path / f"c{trial}", one_run("SSPL_ADM", trial, "CUB200", 0.62 + trial / 100))
    assert main(["collect_results", "--input_dir", str(tmp_path), "--layout", "paper", "--with-published"]) == 0
    out = capsys.readouterr().out
    assert "Ours and published: fine-grained recognition, model selection method: last epoch" in out
    row = next(line.split() for line in out.splitlines() if line.strip().startswith("CUB200"))
    assert row[:6] == ["CUB200", "SSPL_ADM", "62.50±0.35", "2", "63.63±0.11", "-1.13"]
    assert float(row[6]) == pytest.approx(-1.13 / (0.5**2 + 0.11**2) ** 0.5, abs=0.01)
