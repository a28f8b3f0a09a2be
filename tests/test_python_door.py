"""``train``, ``sweep`` and ``load_model`` of Python: what the commands do, and nothing of the process left changed."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_adm import UserError, load_model, load_runs, sweep, train
from domainbed_adm.cli import main
from domainbed_adm.errors import FailedJobsError
from domainbed_adm.run_args import FLAGS
from tests.runs import read_records

TINY = {"cnn_width": 8, "batch_size": 4}
FLAGS_OF_RUN = {"dataset": "Debug28", "algorithm": "SAM", "steps": 3, "checkpoint_freq": 2}
TIMES = {"step_time", "wall_time", "args"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("python") / "run"
    train(**FLAGS_OF_RUN, test_envs=1, hparams=TINY, output_dir=path)
    return path


def test_train_does_what_the_command_does(folder, tmp_path):
    words = [word for name, value in FLAGS_OF_RUN.items() for word in (f"--{name}", str(value))]
    hparams = ["--hparams", '{"cnn_width": 8, "batch_size": 4}']
    assert main(["train", *words, "--test_envs", "1", *hparams, "--output_dir", str(tmp_path)]) == 0
    ours, theirs = (
        [{k: v for k, v in r.items() if k not in TIMES} for r in read_records(p)] for p in (folder, tmp_path)
    )
    assert ours == theirs
    assert {path.name for path in folder.iterdir()} == {path.name for path in tmp_path.iterdir()}


def test_train_returns_the_run_and_reads_a_finished_one(folder, capsys):
    run = train(**FLAGS_OF_RUN, test_envs=(1,), hparams=TINY, output_dir=folder)
    assert "this run, finished" in capsys.readouterr().out
    assert (run.folder, run.algorithm, run.test_envs, run.steps.tolist()) == (folder, "SAM", [1], [0, 2])
    assert run.table.tobytes() == load_runs(folder)[0].table.tobytes()


def test_train_leaves_generators_and_threads_as_they_were(tmp_path):
    torch.set_num_threads(2)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.rand(), torch.rand(1)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    train(dataset="Debug28", steps=1, hparams=TINY, output_dir=tmp_path)
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"algoritm": "SAM"}, "unknown flag 'algoritm'. Did you mean algorithm?"),
        ({"algorithm": "SAMM"}, "unknown algorithm 'SAMM'. Did you mean SAM?"),
        ({"steps": "many"}, "argument --steps: invalid int value: 'many'"),
        ({"steps": 0}, "--steps must be"),
        ({"hparams": {"rh": 1}}, "rh"),
        ({"hparams": {"rho": {1}}}, "hparams must be made of JSON's types"),
        ({"dataset": "Nothing"}, "Nothing"),
        ({"device": "cuda:77"}, "no device cuda:77 here; there are: cpu"),
        ({"device": "cpu", "devices": 2}, "--device names one device"),
    ],
)
def test_a_mistake_is_a_user_error_and_writes_nothing(tmp_path, flags, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")):
        train(**{"dataset": "Debug28", "output_dir": tmp_path / "run"} | flags)
    assert not (tmp_path / "run").exists()


def test_help_and_completion_know_the_flags():
    assert list(inspect.signature(train).parameters) == ["config", *FLAGS]


def test_a_sweep_launches_and_returns_its_runs(tmp_path, capfd):
    flags = {"datasets": ["Debug28"], "algorithms": ["ERM", "SAM"], "n_hparams": 1, "n_trials": 1, "test_envs": 0}
    flags |= {"steps": 2, "hparams": TINY, "output_dir": tmp_path / "sweep", "single_test_envs": True, "jobs": 2}
    assert len(sweep(**flags, dry_run=True)) == 0
    assert not (tmp_path / "sweep").exists()
    assert sorted(run.algorithm for run in sweep(**flags, reuse_processes=True)) == ["ERM", "SAM"]
    capfd.readouterr()
    assert len(sweep(**flags)) == 2
    assert "2 done" in capfd.readouterr().out


def test_a_named_sweep_can_be_overridden_also_by_false(tmp_path, capsys):
    assert len(sweep("smoke", output_dir=tmp_path, dry_run=True, single_test_envs=False, algorithms=["ERM"])) == 0
    assert capsys.readouterr().out.count(" not launched") > 0
    with pytest.raises(UserError, match="unknown sweep 'smok'"):
        sweep("smok", output_dir=tmp_path)
    with pytest.raises(UserError, match="unknown flag 'algoritms'"):
        sweep(output_dir=tmp_path, algoritms=["ERM"])
    with pytest.raises(UserError, match="--output_dir"):
        sweep("smoke")


@pytest.mark.parametrize(("code", "error"), [(1, FailedJobsError), (130, KeyboardInterrupt)])
def test_jobs_that_failed_or_were_ended_are_an_error(tmp_path, monkeypatch, code, error):
    monkeypatch.setattr("domainbed_adm.scripts.sweep.launch", lambda args, folder: code)
    with pytest.raises(error, match="load_runs|the same call goes on"):
        sweep("smoke", output_dir=tmp_path)


def test_a_model_predicts_paths_images_and_inputs_alike(folder, tmp_path):
    images = [Image.fromarray(np.random.RandomState(i).randint(0, 255, (40, 30, 3), np.uint8)) for i in range(5)]
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    network = load_model(folder, device="cpu")
    inputs = torch.stack([network.transform(image) for image in images])
    classes, probabilities = network.predict(images)
    assert probabilities.shape == (5, len(network.classes))
    assert torch.allclose(probabilities.sum(1), torch.ones(5))
    assert classes == [network.classes[i] for i in probabilities.argmax(1)]
    for same in (paths, list(map(str, paths)), inputs):
        again = network.predict(same, batch_size=2)
        assert again.classes == classes
        assert torch.allclose(again.probabilities, probabilities, atol=1e-6)
    assert torch.allclose(network(inputs).softmax(1), probabilities, atol=1e-6)
    features = network.embed(paths)
    assert features.shape[0] == 5
    assert torch.allclose(network.algorithm.classifier(features), network(inputs), atol=1e-5)


def test_a_model_is_found_by_folder_file_and_run(folder):
    by = [load_model(source, "cpu") for source in (folder, str(folder / "model.pkl"), load_runs(folder)[0])]
    x = torch.rand(2, *by[0].input_shape)
    assert all(torch.equal(network(x), by[0](x)) for network in by)
    assert by[0].hparams["cnn_width"] == 8
    assert not any(module.training for module in by[0].modules())


def test_what_no_model_can_read_is_one_line(folder, tmp_path):
    network = load_model(folder, "cpu")
    (tmp_path / "a.png").write_bytes(b"no image")
    for images, message in (
        (["nowhere.png"], "cannot decode image nowhere.png"),
        ([tmp_path / "a.png"], "no image of a format"),
        ("a.png", "give a list of images"),
        ([], "no images"),
        (torch.rand(2, 1, 5, 5), "inputs must have the shape"),
    ):
        with pytest.raises(UserError, match=message):
            network.predict(images)
    for source, message in (("nowhere", "no file nowhere"), (tmp_path, "no file")):
        with pytest.raises(UserError, match=message):
            load_model(source)
    with pytest.raises(UserError, match="no device cuda:77 here; there are: cpu"):
        load_model(folder, "cuda:77")


def test_predict_takes_a_device(folder, tmp_path, capsys):
    Image.new("RGB", (28, 28)).save(tmp_path / "a.png")
    command = ["predict", "--model", str(folder), "--images", str(tmp_path)]
    assert main([*command, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith(f"{Path(tmp_path, 'a.png')},")
    assert main([*command, "--device", "tpu9"]) == 2
    assert "no device tpu9 here; there are: cpu" in capsys.readouterr().err
