"""A compute-matched baseline: as many passes as another method spends."""

import json

import pytest

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.records import load_runs
from domainbed_adm.registry import matched_steps
from domainbed_adm.run_args import RunArgs
from domainbed_adm.sweeping.jobs import Sweep
from domainbed_adm.training.setup import set_up

SMALL = {"cnn_width": 8, "batch_size": 2}


@pytest.mark.parametrize(
    ("algorithm", "other", "hparams", "steps"),
    [
        ("ERM", "SAM", {}, 600),
        ("ERM", "SAM_SSPL_ADM", {}, 800),
        ("SAM", "SAM_SSPL_ADM", {}, 400),
        ("SAM", "SAM_SSPL_ADM", {"weighting": "descent"}, 350),
        ("SAM", "SAM_SSPL_ADM", {"warmup_fraction": 0.5}, 350),
        ("SAM_SSPL_ADM", "SAM", {}, 225),
        ("SSPL_GDM", "SSPL_GDM", {}, 300),
        ("SAM_SSPL_GDM", "ERM", {}, 129),  # 300 x 3 / 7, rounded up
    ],
)
def test_steps_are_scaled_by_the_passes(algorithm, other, hparams, steps):
    assert matched_steps(300, algorithm, other, hparams) == steps


def test_a_run_trains_so_long_and_ends_its_schedule_there(tmp_path):
    flags = ["--dataset", "Debug28", "--algorithm", "SPL_Loss", "--steps", "3", "--match_passes", "SAM"]
    flags += ["--checkpoint_freq", "2", "--skip_model_save", "--output_dir", str(tmp_path)]
    assert main(["train", *flags, "--hparams", json.dumps(SMALL)]) == 0
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 2, 4, 5]
    assert records[-1]["hparams"]["total_steps"] == 6
    assert records[-1]["args"]["match_passes"] == "SAM"
    assert records[-1]["args"]["steps"] == 3


def test_epochs_are_matched_too():
    args = {"dataset": "Debug28", "epochs": 2, "hparams": json.dumps(SMALL)}
    plain, matched = set_up(RunArgs(**args)), set_up(RunArgs(**args, match_passes="SAM"))
    assert matched.n_steps == 2 * plain.n_steps


def test_a_sweeps_jobs_are_apart_and_know_their_length(tmp_path):
    plain = Sweep(["Debug28"], ["ERM"], n_hparams=1, n_trials=1, steps=30, single_test_envs=True)
    matched = Sweep(["Debug28"], ["ERM"], 0, 1, 1, 30, single_test_envs=True, match_passes="SAM_SSPL_ADM")
    (first, *_), (second, *_) = plain.jobs(tmp_path), matched.jobs(tmp_path)
    assert "match_passes" not in first.train_args  # DomainBed's name of the folder
    assert first.name != second.name
    assert (first.n_steps, second.n_steps) == (30, 80)
    assert "--match_passes SAM_SSPL_ADM" in second.command


def test_an_unknown_method_is_named(tmp_path, capsys):
    with pytest.raises(UserError, match="unknown algorithm 'SAN'. Did you mean SAM"):
        set_up(RunArgs(dataset="Debug28", match_passes="SAN"))
    flags = ["--datasets", "Debug28", "--algorithms", "ERM", "--match_passes", "SAN", "--output_dir", str(tmp_path)]
    assert main(["sweep", "launch", *flags, "--skip_confirmation"]) == 2
    assert "Did you mean SAM" in capsys.readouterr().err


def test_its_runs_have_a_row_of_their_own(tmp_path, capsys):
    for name, flags in (("plain", []), ("matched", ["--match_passes", "SAM"])):
        command = ["train", "--dataset", "Debug28", "--steps", "2", "--skip_model_save", *flags]
        assert main([*command, "--output_dir", str(tmp_path / name), "--hparams", json.dumps(SMALL)]) == 0
    runs = load_runs(tmp_path)
    assert sorted(run.algorithm for run in runs) == ["ERM", "ERM (passes of SAM)"]
    assert {run.algorithm: run.end_step for run in runs} == {"ERM": 1, "ERM (passes of SAM)": 3}
    capsys.readouterr()
    assert main(["collect_results", "--input_dir", str(tmp_path), "--missing"]) == 0
    printed = capsys.readouterr().out
    assert "ERM (passes of SAM)" in printed
    assert "unfinished" not in printed
