"""Classification's selection method, and runs of other lengths as rows of their own."""

import json
import math

import pytest

from domainbed_adm.cli import main
from domainbed_adm.leaderboard import Board, paper_sheets
from domainbed_adm.leaderboard.layouts import written
from domainbed_adm.leaderboard.notes import missing_runs
from domainbed_adm.model_selection import EVERY_SELECTION, LAST_EPOCH, SELECTION_METHODS, default_selections
from domainbed_adm.records import load_runs
from tests.runs import as_runs, record, write

TRAINING = SELECTION_METHODS["training-domain"]


def curve(accuracies, out=0.5, **more):
    """A run on CIFAR10 with these test accuracies, one a checkpoint."""
    about = {"dataset": "CIFAR10", "test_envs": (1,), **more}
    return [record((0.9, out), (test, None), step=step, **about) for step, test in enumerate(accuracies)]


def with_args(records, **flags):
    return [{**one, "args": one["args"] | flags} for one in records]


def test_it_is_the_last_checkpoint_and_not_the_best_on_the_test_set():
    runs = as_runs(*reversed(curve([0.5, 0.9, 0.7])))
    assert LAST_EPOCH.chosen(runs, 1) == (0, (0.5, 0.7))


def test_of_hparams_seeds_the_best_on_the_source_counts_and_none_without_an_out_split():
    runs = as_runs(*curve([0.5], out=0.6), *curve([0.4], out=0.8, hparams_seed=1), *curve([0.9], None, hparams_seed=2))
    assert LAST_EPOCH.chosen(runs, 1) == (1, (0.8, 0.4))
    seed, (val_acc, test_acc) = LAST_EPOCH.chosen(as_runs(*curve([0.3, 0.4], None)), 1)
    assert (seed, test_acc) == (0, 0.4)
    assert math.isnan(val_acc)
    assert LAST_EPOCH.chosen(as_runs(*curve([0.3], None), *curve([0.4], None, hparams_seed=1)), 1) is None


@pytest.mark.parametrize(
    "length", [{"args": {"steps": 4}}, {"hparams": {"total_steps": 4}}, {"provenance": {"n_steps": 4}}]
)
def test_a_run_that_goes_on_has_no_last_epoch(length):
    records = [
        {**one, **{name: one.get(name, {}) | value for name, value in length.items()}} for one in curve([0.5] * 4)
    ]
    assert LAST_EPOCH.chosen(as_runs(*records[:3]), 1) is None
    assert LAST_EPOCH.chosen(as_runs(*records), 1) == (0, (0.5, 0.5))


def test_domainbeds_three_are_the_default_where_domains_are_held_out():
    assert default_selections(["PACS", "Mine"]) == list(SELECTION_METHODS.values())
    assert default_selections(["CIFAR10", "Digits"]) == [LAST_EPOCH, TRAINING]
    assert default_selections(["CIFAR10", "PACS"]) == list(EVERY_SELECTION.values())


def test_runs_of_other_epochs_are_rows_of_their_own(tmp_path, capsys):
    short, long = ({"provenance": {"n_steps": 2}}, {"provenance": {"n_steps": 4}})
    for trial in range(2):
        write(tmp_path / f"a{trial}", *with_args(curve([0.1, 0.5], trial_seed=trial, **short), epochs=200))
        write(tmp_path / f"b{trial}", *with_args(curve([0.1] * 3 + [0.7], trial_seed=trial, **long), epochs=400))
        sam = curve([0.1, 0.6], algorithm="SAM", trial_seed=trial, **short)
        write(tmp_path / f"c{trial}", *with_args(sam, epochs=200))
    runs = load_runs(tmp_path)
    assert capsys.readouterr().err == ""
    board = Board(runs, [LAST_EPOCH])
    assert board.algorithms == ["ERM", "ERM (400 epochs)", "SAM"]
    (sheet,) = paper_sheets(board, LAST_EPOCH)
    assert sheet.title == "CIFAR, model selection: last epoch"
    assert [(*row[:4], written(row[4], 1, "±")) for row in sheet.rows] == [
        ("ERM", "Adam", "-", "-", "50.0±0.0"),
        ("ERM (400 epochs)", "Adam", "-", "-", "70.0±0.0"),
        ("SAM", "SAM", "-", "-", "60.0±0.0"),
    ]
    assert missing_runs(runs, [LAST_EPOCH]) == []
    (tmp_path / "b1" / "results.jsonl").unlink()
    assert missing_runs(load_runs(tmp_path), [LAST_EPOCH]) == [
        "missing: ERM (400 epochs) on CIFAR10, test_envs 1, trial 1, hparams 0"
    ]


def test_the_base_optimizer_and_the_recipe_are_those_of_the_runs():
    hparams = {"optimizer": "sgd", "backbone": "cifar_resnet18", "lr": 0.05, "lr_schedule": "cosine", "batch_size": 128}
    hparams["weight_decay"] = 0.001
    cars = curve([0.8], dataset="StanfordCars", algorithm="SSPL_ADM")
    cars = [{**one, "hparams": {"optimizer": "sgd", "resnet18": True, "pretrained": False}} for one in cars]
    board = Board(as_runs(*({**one, "hparams": hparams} for one in curve([0.5])), *cars), [LAST_EPOCH])
    cifar, fine = paper_sheets(board, LAST_EPOCH)
    assert [sheet.title.partition(",")[0] for sheet in (cifar, fine)] == ["CIFAR", "Fine-grained recognition"]
    assert [row[:4] for row in (*cifar.rows, *fine.rows)] == [
        ("ERM", "SGD", "-", "-"),
        ("SSPL_ADM", "SGD", "SSPL", "ADM"),
    ]
    told = "Trained: ResNet-18 for 32 px; optimizer SGD; lr 0.05, cosine; weight decay 0.001; batch 128; length 200 "
    assert cifar.note.endswith(f"{told}epochs.")
    assert "Trained: ResNet-18, 224 px, from scratch; optimizer SGD" in fine.note
    assert "Accuracy in % on the whole official test set" in fine.note


def test_the_papers_layout_reports_the_last_epoch_and_domains_as_ever(tmp_path, capsys):
    write(tmp_path / "digits", *curve([0.5, 0.9, 0.7], dataset="Digits"))
    command = ["collect_results", "--input_dir", str(tmp_path), "--layout", "paper"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "Classification, model selection: last epoch" in out
    assert "70.00" in out
    assert "training-domain" not in out
    for env in range(4):
        write(tmp_path / f"pacs{env}", record(*[(0.25, 0.5)] * 4, test_envs=(env,)))
    assert main(command) == 0
    out = capsys.readouterr().out
    titles = [line for line in out.splitlines() if "odel selection: " in line]
    assert titles == [
        *(f"Model selection: {method.name}" for method in SELECTION_METHODS.values()),
        "Classification, model selection: last epoch",
    ]


def test_rows_for_programs_have_the_last_epoch_of_classification_alone(tmp_path, capsys):
    write(tmp_path / "digits", *curve([0.5, 0.9, 0.7], dataset="Digits"))
    write(tmp_path / "pacs", record(*[(0.25, 0.5)] * 4))
    assert main(["collect_results", "--input_dir", str(tmp_path), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {(row["selection"], row["dataset"]) for row in rows} == {
        *((key, "PACS") for key in SELECTION_METHODS),
        *((key, "Digits") for key in ("training-domain", "last-epoch")),
    }
    (last,) = [row for row in rows if row["selection"] == "last-epoch"]
    assert (last["mean"], last["quantity"], last["unit"]) == (70.0, "accuracy", "%")
