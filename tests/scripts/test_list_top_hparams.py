"""The best hparams of a sweep and of a search, and training with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainbed_adm.cli import main
from domainbed_adm.hparams_registry import read_top
from domainbed_adm.records import load_runs
from domainbed_adm.sweeping.jobs import Job
from tests.runs import DATA, record, write
from tests.sweeping.searching import FLAGS, stand_in

SWEEP = str(DATA / "domainbed_sweep")


def listed(*flags: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["list_top_hparams", *flags]) == 0
    return capsys.readouterr().out


def test_a_sweep_of_domainbed_has_a_ranking_for_each_environment_and_trial(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "top.json"
    flags = ["--input_dir", SWEEP, "--dataset", "VLCS", "--algorithm", "ERM", "--test_env", "0"]
    text = listed(*flags, "--out", str(top), capsys=capsys)
    # the numbers that DomainBed's own list_top_hparams prints for it
    assert "ERM on VLCS, test_envs 0, trial seed 0: training-domain validation set" in text
    row = next(line for line in text.splitlines() if "6d481a40ca86768fad6a5088cb58458e" in line)
    assert row.split()[:3] == ["1", "80.84", "97.61"]
    assert text.count("leave-one-domain-out cross-validation") == 2
    entries = json.loads(top.read_text())["top_hparams"]
    assert [(one["test_envs"], one["trial_seeds"]) for one in entries] == [([0], [0]), ([0], [1])]
    assert entries[0]["hparams"]["batch_size"] == 39
    assert entries[0]["selection"] == "training-domain"
    assert len(listed(*flags, "--n_top", "1", "--selection", "oracle", capsys=capsys).split("ERM on VLCS")) == 3


def test_a_search_has_one_ranking_and_its_best_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna", reason="the extra [search]")
    study, top, best = tmp_path / "study", tmp_path / "top.json", tmp_path / "best"
    flags = ["--test_envs", "0", "1", "--n_trials", "3", "--hparams", '{"cnn_width": 8}']
    with monkeypatch.context() as patched:
        patched.setattr(Job, "command", stand_in())
        assert main(["search", *FLAGS, *flags, "--output_dir", str(study)]) == 0
    text = listed("--input_dir", str(study), "--selection", "training-domain", "--out", str(top), capsys=capsys)
    assert text.count("training-domain validation set, means") == 1
    (entry,) = json.loads(top.read_text())["top_hparams"]
    assert entry["test_envs"] == [0, 1]
    runs = load_runs(study)
    assert entry["val_acc"] == pytest.approx(max(_mean(runs, seed) for seed in (1, 2, 3)))
    ours = ["--hparams", '{"batch_size": 4}', "--output_dir", str(best), "--steps", "1"]
    assert main(["train", *FLAGS, "--test_envs", "1", "--hparams_from", str(top), *ours]) == 0
    (run,) = load_runs(best)
    assert (run.hparams["lr"], run.hparams["cnn_width"], run.hparams["batch_size"]) == (entry["hparams"]["lr"], 8, 4)
    launch = ["sweep", "launch", "--datasets", "RotatedDigits", "--algorithms", "SAM", "--n_hparams", "1", "--dry_run"]
    launch += ["--hparams_from", str(top), "--n_trials", "1", "--output_dir", str(tmp_path / "sweep"), "--test_envs"]
    assert main([*launch, "0", "1"]) == 0
    capsys.readouterr()
    assert main([*launch, "2"]) == 2
    assert capsys.readouterr().err == (
        f"domainbed-adm: error: --hparams_from {top} has no hparams for SAM on RotatedDigits, test_envs 2, "
        "but for SAM on RotatedDigits, test_envs 0 1\n"
    )


def _mean(runs: list, seed: int) -> float:
    own = [run for run in runs if run.hparams_seed == seed]
    return sum(run.source_accuracy("out").max() for run in own) / len(own)


def test_of_several_trial_seeds_the_runs_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "top.json"
    one = {"dataset": "PACS", "algorithm": "ERM", "test_envs": [0]}
    entries = [{**one, "trial_seeds": [seed], "hparams": {"lr": 0.1 * (seed + 1)}} for seed in (0, 1)]
    path.write_text(json.dumps({"top_hparams": entries}))
    assert read_top(str(path), "ERM", "PACS", [0], 1) == {"lr": 0.2}
    with pytest.raises(ValueError, match="has several hparams for ERM on PACS, test_envs 0"):
        read_top(str(path), "ERM", "PACS", [0], 2)


WRONG = {
    "none of these": (["--algorithm", "SAM"], "no run of --algorithm SAM"),
    "none": (["--n_top", "0"], "--n_top must be at least 1"),
    "no such environment": (["--test_env", "9"], "nothing to rank"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_flags_are_one_line(capsys: pytest.CaptureFixture[str], case: str) -> None:
    flags, expected = WRONG[case]
    assert main(["list_top_hparams", "--input_dir", SWEEP, *flags]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert expected in told


@pytest.mark.parametrize("content", ["", "[]", '{"top_hparams": [1]}', '{"top_hparams": 3}', "[" * 100_000])
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    path = tmp_path / "top.json"
    path.write_text(content)
    assert main(["train", *FLAGS, "--hparams_from", str(path), "--output_dir", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "is no file of list_top_hparams --out" in told


def test_records_without_out_splits_cannot_be_ranked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", record((0.5, None), (0.4, None), hparams={"lr": 0.1}))
    assert main(["list_top_hparams", "--input_dir", str(tmp_path)]) == 2
    assert "nothing to rank" in capsys.readouterr().err
