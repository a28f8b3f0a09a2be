"""One run from flags to files."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import domainbed_adm
from domainbed_adm.cli import main
from domainbed_adm.method.grid import METHODS
from domainbed_adm.training.model_file import read_model
from domainbed_adm.training.setup import worker_budget
from tests.cases import TRAINED
from tests.runs import read_records

TINY = {"cnn_width": 8, "batch_size": 4}
DOMAINBED_KEYS = {"step", "epoch", "loss", "step_time", "mem_gb", "hparams", "args"}


def train(tmp_path, *flags, dataset="Debug28", hparams=None, name="run"):
    given = json.dumps(TINY | (hparams or {}))
    command = ["train", "--dataset", dataset, "--output_dir", str(tmp_path / name), "--hparams", given, *flags]
    return main(command)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("algorithm", TRAINED)
def test_every_method_trains_and_leaves_domainbeds_files(tmp_path, algorithm):
    flags = ["--algorithm", algorithm, "--steps", "4", "--checkpoint_freq", "2", "--test_envs", "1"]
    assert train(tmp_path, *flags) == 0
    run = tmp_path / "run"
    assert {p.name for p in run.iterdir()} == {"out.txt", "err.txt", "results.jsonl", "model.pkl", "done"}
    assert (run / "done").read_text() == "done"
    records = lines(run / "results.jsonl")
    assert [record["step"] for record in records] == [0, 2, 3]
    for record in records:
        assert record.keys() >= DOMAINBED_KEYS
        assert {f"env{i}_{kind}_acc" for i in range(3) for kind in ("in", "out")} <= record.keys()
        assert list(record) == sorted(record)
        assert record["args"]["test_envs"] == [1]
        assert record["args"]["algorithm"] == algorithm
        origin = record["provenance"]
        assert origin.keys() == {
            "version",
            "git_commit",
            "torch",
            "device",
            "threads",
            "seed",
            "n_steps",
            "environments",
            "samples",
            "fingerprints",
            "reduced_images",
        }
        assert (origin["environments"], origin["samples"]) == (["0", "1", "2"], [16, 16, 16])
    if METHODS[algorithm].curriculum:
        assert records[0]["hparams"]["total_steps"] == 4
        assert 0 < records[0]["kept_fraction"] <= 1
        assert records[-1]["difficulty_mean"] >= 0


@pytest.mark.parametrize("weighting", ["both", "descent", "memory"])
def test_every_weighting_trains_in_the_engine(tmp_path, weighting):
    flags = ["--algorithm", "SAM_SSPL_ADM", "--steps", "3"]
    assert train(tmp_path, *flags, hparams={"weighting": weighting, "curriculum_scope": "domain"}) == 0


def weights(path):
    return read_model(path / "model.pkl")["model_dict"]


def test_the_same_command_gives_the_same_bits(tmp_path):
    for name, workers in (("a", "0"), ("b", "1")):
        flags = ["--algorithm", "FSAM_SSPL_ADM", "--steps", "4", "--workers", workers]
        assert train(tmp_path, *flags, name=name) == 0
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)
    noise = {"step_time", "wall_time", "args"}
    for x, y in zip(lines(tmp_path / "a/results.jsonl"), lines(tmp_path / "b/results.jsonl"), strict=True):
        assert {k: v for k, v in x.items() if k not in noise} == {k: v for k, v in y.items() if k not in noise}
    assert train(tmp_path, "--algorithm", "FSAM_SSPL_ADM", "--steps", "4", "--seed", "1", name="c") == 0
    assert not all(torch.equal(value, a[key]) for key, value in weights(tmp_path / "c").items())


def test_defaults_of_the_digits_learn(tmp_path):
    """Ten classes, so chance is 0.1; a small network is far above it after 150 steps, also where it has not trained."""
    flags = ["--algorithm", "SAM_SSPL_ADM", "--steps", "150", "--checkpoint_freq", "149", "--test_envs", "2"]
    hparams = {"cnn_width": 8, "batch_size": 8, "lr": 5e-3}
    assert train(tmp_path, *flags, dataset="RotatedDigits", hparams=hparams) == 0
    first, last = read_records(tmp_path)
    assert first["env2_in_acc"] < 0.25
    assert last["env2_in_acc"] > 0.35


def test_a_folder_of_ones_own_trains_and_its_model_predicts(tmp_path, image_folder, capsys):
    flags = ["--data_dir", str(image_folder), "--steps", "2", "--workers", "1"]
    hparams = {"image_size": 28, "image_channels": 1}
    assert train(tmp_path, *flags, dataset="Shapes", hparams=hparams) == 0
    capsys.readouterr()
    images = next(path for path in sorted((image_folder / "Shapes").iterdir()) if path.is_dir())
    assert main(["predict", "--model", str(tmp_path / "run/model.pkl"), "--images", str(images)]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["path", "class", "probability"]
    files = sorted(str(path) for path in images.rglob("*") if path.is_file())
    assert [row[0] for row in rows[1:]] == files
    classes = {path.name for domain in (image_folder / "Shapes").iterdir() for path in domain.iterdir()}
    assert {row[1] for row in rows[1:]} <= classes
    assert all(0 < float(row[2]) <= 1 for row in rows[1:])


@pytest.mark.parametrize(("channels", "std"), [(3, [0.229, 0.224, 0.225]), (1, [0.226])])
def test_fgsm_knows_the_datasets_normalisation(tmp_path, image_folder, channels, std):
    """Alpha is in [0, 1] pixels: the step in normalised inputs is alpha / std, of this run's own channels."""
    flags = ["--data_dir", str(image_folder), "--steps", "1", "--algorithm", "SSPL_ADM", "--workers", "0"]
    assert train(tmp_path, *flags, dataset="Shapes", hparams={"image_size": 28, "image_channels": channels}) == 0
    assert read_records(tmp_path)[0]["hparams"]["input_std"] == std
    assert train(tmp_path, "--steps", "1", "--algorithm", "SSPL_ADM", name="raw") == 0
    assert read_records(tmp_path / "raw")[0]["hparams"]["input_std"] is None


def test_domain_adaptation_gives_unlabeled_samples(tmp_path):
    flags = ["--task", "domain_adaptation", "--uda_holdout_fraction", "0.5", "--steps", "2"]
    assert train(tmp_path, *flags) == 0
    assert "env0_uda_acc" in read_records(tmp_path)[0]


def test_no_holdout_writes_null_accuracies(tmp_path):
    assert train(tmp_path, "--holdout_fraction", "0", "--steps", "1") == 0
    assert read_records(tmp_path)[0]["env0_out_acc"] is None


def test_models_of_every_checkpoint(tmp_path):
    assert train(tmp_path, "--steps", "3", "--checkpoint_freq", "1", "--save_model_every_checkpoint") == 0
    names = {path.name for path in (tmp_path / "run").glob("*.pkl")}
    assert names == {"model.pkl", "model_step0.pkl", "model_step1.pkl", "model_step2.pkl"}
    assert train(tmp_path, "--steps", "1", "--skip_model_save", name="bare") == 0
    assert not list((tmp_path / "bare").glob("*.pkl"))


def test_a_finished_run_is_left_alone_unless_asked(tmp_path, capsys):
    assert train(tmp_path, "--steps", "1") == 0
    before = (tmp_path / "run/results.jsonl").read_bytes()
    assert train(tmp_path, "--steps", "1") == 0
    assert "holds this run, finished; --restart redoes it" in capsys.readouterr().out
    assert (tmp_path / "run/results.jsonl").read_bytes() == before
    assert train(tmp_path, "--steps", "2") == 2
    assert "holds another run: --steps (1 there, 2 here). Give another --output_dir" in capsys.readouterr().err
    assert train(tmp_path, "--steps", "2", "--restart") == 0
    assert len(lines(tmp_path / "run/results.jsonl")) == 2


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    assert train(tmp_path, "--steps", "2") == 0
    out = capsys.readouterr().out
    assert "step     0/1  loss" in out
    assert "\x1b" not in out
    assert (tmp_path / "run/out.txt").read_text() == out


def test_a_run_says_what_it_does_before_it_takes_long(tmp_path, monkeypatch, capsys):
    """Of the hparams those that were chosen; which environments are held out; and how far an evaluation is."""
    monkeypatch.setattr("domainbed_adm.training.progress._SILENCE", 0.0)
    assert train(tmp_path, "--steps", "2", "--test_envs", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "hparams that are not the default: batch_size=4, cnn_width=8" in lines
    place = lines.index("samples in+out: 0 0 13+3, 1 1 13+3 (test), 2 2 13+3")
    [start] = [line for line in lines if line.startswith("start-up: ")]
    assert re.fullmatch(
        r"start-up: imports \d+\.\d s, data \d+\.\d s, network \d+\.\d s \(imports in CPU time\)", start
    )
    assert lines[place + 1].startswith("step     0/1  loss ")
    assert lines[place + 2] == "evaluating 48 images of 3 environments"
    assert lines[place + 3] == "evaluated 13 of 48 images"
    assert lines[place + 8] == "evaluated 48 of 48 images"
    assert "  test (1) in " in lines[place + 9]
    assert len([line for line in lines if line.startswith("evaluating")]) == 1


BAD = {
    "algorithm": (["--algorithm", "SAM_SPL_AMD"], "unknown algorithm 'SAM_SPL_AMD'. Did you mean SAM_SPL_ADM"),
    "dataset": (["--dataset", "RotatedDigit"], "Did you mean RotatedDigits"),
    "no data_dir": (["--dataset", "PACS"], "give --data_dir"),
    "steps": (["--steps", "0"], "--steps must be an integer in [1, 1e+09], not 0"),
    "checkpoint_freq": (["--checkpoint_freq", "0"], "--checkpoint_freq must be an integer in [1, 1e+09], not 0"),
    "endless": (["--steps", "1" + 400 * "0"], "--steps must be an integer in [1, 1e+09], not 1000"),
    "holdout": (["--holdout_fraction", "1"], r"--holdout_fraction must be a number in [0, 1), not 1.0"),
    "holdout nan": (["--holdout_fraction", "nan"], r"--holdout_fraction must be a number in [0, 1), not nan"),
    "test env": (["--test_envs", "3"], "--test_envs 3 is none of the environments: 0 0, 1 1, 2 2"),
    "negative test env": (["--test_envs", "-1"], "--test_envs -1 is none of the environments"),
    "twice": (["--test_envs", "1", "1"], "names an environment twice"),
    "all held out": (["--test_envs", "0", "1", "2"], "holds out all environments"),
    "hparams": (["--hparams", "{rho: 1}"], "--hparams is not JSON"),
    "hparams list": (["--hparams", "[1]"], "--hparams must be a JSON object"),
    "hparam name": (["--hparams", '{"roh": 1}'], "Did you mean rho"),
    "hparam value": (["--hparams", '{"lr": NaN}'], "hparam lr must be a number in (0, 1000], not NaN"),
    "adaptation": (["--task", "domain_adaptation"], "give --uda_holdout_fraction above 0"),
    "seed": (["--seed", "9" * 30], "--seed must be an integer in [0, 9.22337e+18], not 999"),
    "negative seed": (["--trial_seed", "-1"], "--trial_seed must be an integer in [0, 9.22337e+18], not -1"),
    "workers": (["--workers", "-1"], "--workers must be an integer in [0, inf), not -1"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(tmp_path, capsys, case):
    flags, message = BAD[case]
    output = tmp_path / "run"
    command = ["train", "--dataset", "Debug28", "--algorithm", "SAM_SPL_ADM", "--output_dir", str(output), *flags]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_an_output_dir_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file", "--steps", "1") == 2
    assert "cannot be written" in capsys.readouterr().err


def test_an_image_that_cannot_be_decoded_is_named(tmp_path, image_folder, capsys):
    broken = next(path for path in sorted((image_folder / "Shapes").rglob("*")) if path.is_file())
    broken.write_bytes(b"no image")
    flags = ["--data_dir", str(image_folder), "--steps", "2", "--holdout_fraction", "0"]
    assert train(tmp_path, *flags, dataset="Shapes", hparams={"image_size": 28}) == 2
    assert str(broken) in capsys.readouterr().err
    assert not (tmp_path / "run/done").exists()


def test_unknown_flags_are_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--algoritm", "ERM"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "deserved", "environment", "computing", "budget"),
    [
        (None, 8, {}, 0, 4),
        (None, 0, {}, 0, 0),
        (None, 8, {"DOMAINBED_ADM_WORKERS": "1"}, 0, 1),
        (3, 0, {}, 4, 3),
        (9, 0, {}, 0, 4),
        (None, 8, {}, 1, 3),
        (None, 8, {}, 5, 0),
    ],
)
def test_one_worker_budget_bounded_by_the_cpus(monkeypatch, asked, deserved, environment, computing, budget):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    assert worker_budget(asked, deserved, environment, computing) == budget


def test_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "domainbed_adm.scripts.train", "--dataset", "Debug28", "--steps", "0"]
    environment = os.environ | {"PYTHONPATH": str(Path(domainbed_adm.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    assert done.stderr == "domainbed-adm: error: --steps must be an integer in [1, 1e+09], not 0\n"
    assert not list(tmp_path.iterdir())
