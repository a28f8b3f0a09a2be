"""Hparam ``averaging`` in runs: what is evaluated, recorded, saved and resumed."""

import json

import pytest
import torch

from domainbed_adm.cli import main
from domainbed_adm.run_args import RunArgs
from domainbed_adm.training import averaging, loop
from domainbed_adm.training.batches import TaskDataset, evaluation_tasks
from domainbed_adm.training.evaluation import evaluate
from domainbed_adm.training.loading_processes import open_stream
from domainbed_adm.training.model_file import read_model, restore_algorithm
from domainbed_adm.training.setup import set_up
from tests.runs import read_records
from tests.training.test_resume import assert_same, train_killed
from tests.training.test_resume import train as train_five

SWAD = {"averaging": "swad", "swad_n_converge": 2, "swad_n_tolerance": 3, "lr": 0.01}
KINDS = {"ema": {"averaging": "ema", "ema_decay": 0.5, "lr": 0.01}, "swad": SWAD}


def train(folder, *flags, **hparams):
    given = json.dumps({"cnn_width": 8, "batch_size": 4} | hparams)
    common = ["--dataset", "Debug28", "--algorithm", "SAM", "--test_envs", "1", "--hparams", given]
    return main(["train", *common, "--output_dir", str(folder), *flags])


def plain(record):
    return {name: value for name, value in record.items() if name.endswith(("_acc", "_nll", "_ece"))}


def last(record):
    return {name.removeprefix("last_"): value for name, value in record.items() if name.startswith("last_env")}


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_and_the_records_have_both_weights(tmp_path, kind):
    flags = ["--steps", "13", "--checkpoint_freq", "2"]
    assert train(tmp_path / "none", *flags, lr=0.01) == 0
    assert train(tmp_path / kind, *flags, **KINDS[kind]) == 0
    before, after = read_records(tmp_path / "none"), read_records(tmp_path / kind)
    for one, other in zip(before, after, strict=True):
        assert one["loss"] == other["loss"]
        assert "averaged_weights" not in one
        if other["averaged_weights"]:
            assert last(other) == plain(one)
            assert plain(other)["env0_in_nll"] != plain(one)["env0_in_nll"]
        else:
            assert plain(other) == plain(one)
    assert [record["averaged_weights"] for record in after] == ([1] * 7 if kind == "ema" else [0] * 6 + [1])
    model, none = read_model(tmp_path / kind / "model.pkl"), read_model(tmp_path / "none" / "model.pkl")
    assert model["model_weights"] == kind
    assert all(torch.equal(model["last_model_dict"][key], value) for key, value in none["model_dict"].items())
    assert any(not torch.equal(model["model_dict"][key], value) for key, value in none["model_dict"].items())
    assert "last_model_dict" not in none


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_file_is_what_the_last_record_evaluated(tmp_path, kind):
    assert train(tmp_path / "run", "--steps", "9", "--checkpoint_freq", "2", **KINDS[kind]) == 0
    given = RunArgs(dataset="Debug28", algorithm="SAM", test_envs=(1,), hparams=json.dumps({"cnn_width": 8}))
    run = set_up(given)
    tasks = TaskDataset(run.dataset.datasets, run.splits, [1], 0, run.hparams)
    algorithm = restore_algorithm(read_model(tmp_path / "run" / "model.pkl"))
    found = evaluate(algorithm, open_stream(tasks, evaluation_tasks(run.splits), 0, False), run.device)
    recorded = read_records(tmp_path / "run")[-1]
    assert found == {name: recorded[name] for name in found}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("step", [2, 4, 5])
def test_it_resumes_exactly(tmp_path, monkeypatch, kind, step):
    options = KINDS[kind] | {"resnet_dropout": 0.1}
    assert train_five(tmp_path / "whole", "SAM", **options) == 0
    train_killed(monkeypatch, step, tmp_path / "broken", "SAM", "--checkpoint_every", "1", **options)
    assert train_five(tmp_path / "broken", "SAM", "--checkpoint_every", "1", **options) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
    models = [read_model(tmp_path / name / "model.pkl")["last_model_dict"] for name in ("whole", "broken")]
    assert all(torch.equal(models[0][key], models[1][key]) for key in models[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_before_its_model_was_written_keeps_its_average(tmp_path, monkeypatch, kind):
    assert train_five(tmp_path / "whole", "SAM", **KINDS[kind]) == 0
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_model_contents", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        assert train_five(tmp_path / "broken", "SAM", **KINDS[kind]) != 0
    assert train_five(tmp_path / "broken", "SAM", **KINDS[kind]) == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")


@pytest.mark.parametrize("frozen", [False, True])
def test_swad_estimates_statistics_that_move(tmp_path, monkeypatch, frozen):
    calls = []
    original = averaging.estimate_statistics

    def counting(module, forward, batches):
        kept = list(batches)
        calls.append(len(kept))
        original(module, forward, kept)

    monkeypatch.setattr(averaging, "estimate_statistics", counting)
    options = SWAD | {"backbone": "cifar_resnet18", "freeze_bn": frozen}
    assert train(tmp_path / "run", "--steps", "1", **options) == 0
    assert calls == ([] if frozen else [1])  # at most as many batches as the run has steps
    model = read_model(tmp_path / "run" / "model.pkl")
    means = [key for key in model["model_dict"] if key.endswith("running_mean")]
    assert means
    same = all(torch.equal(model["model_dict"][key], model["last_model_dict"][key]) for key in means)
    assert same == frozen
    counters = [key for key in model["model_dict"] if key.endswith("num_batches_tracked")]
    assert all(torch.equal(model["model_dict"][key], model["last_model_dict"][key]) for key in counters)


def test_swad_without_a_validation_loss_is_refused(tmp_path, capsys):
    assert train(tmp_path / "run", "--holdout_fraction", "0", averaging="swad") == 2
    assert "averaging swad goes by the loss on the out-splits" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_model_in_the_middle_of_swad_has_the_last_weights(tmp_path):
    flags = ["--steps", "5", "--checkpoint_freq", "2", "--save_model_every_checkpoint"]
    assert train(tmp_path / "run", *flags, **SWAD) == 0
    assert read_model(tmp_path / "run" / "model_step2.pkl")["model_weights"] == "last"
    assert read_model(tmp_path / "run" / "model_step4.pkl")["model_weights"] == "swad"
