import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from domainbed_adm.analysis import trained_model
from domainbed_adm.analysis.runs import HessianSettings, LandscapeSettings, Settings, find_runs
from domainbed_adm.analysis.trained_model import TrainedModels
from domainbed_adm.datasets.in_memory import DigitsDataset
from domainbed_adm.errors import UserError
from tests.analysis.trained import train


def opened(run, settings=None):
    return TrainedModels([run], settings or Settings()).open(0)


def test_a_model_says_what_it_is_and_leaves_the_run_as_it_was(trained):
    run = find_runs([trained / "SAM"])[0]
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    with opened(run, Settings(samples=8, double=True, seed=3)) as model:
        about = dict(model.about)
        assert about.pop("versions").keys() == {"domainbed_adm", "torch", "numpy", "scipy"}
        assert about == {
            "model": "model.pkl", "algorithm": "SAM", "dataset": "RotatedDigits", "test_envs": [0], "trial_seed": 0,
            "hparams_seed": 0, "samples": 8, "batch_size": 64, "seed": 3, "dtype": "float64",
            "device": "cpu" if model.params[0].device.type == "cpu" else torch.cuda.get_device_name(),
            "mode": "the network has no BatchNorm; no dropout, no augmentation",
        }  # fmt: skip
        assert {param.dtype for param in model.params} == {torch.float64}
        loss = model.loss(model.samples.pooled)
        value, accuracy = loss.value_and_accuracy()
        assert [len(y) for _, y in model.samples.pooled] == [40]
    x = torch.cat([x for x, _ in open_batches(run)])
    y = torch.cat([y for _, y in open_batches(run)])
    logits = model.algorithm.predict(x.to(model.params[0].device).double()).cpu()
    assert value == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-9)
    assert accuracy == (logits.argmax(1) == y).double().mean()
    assert not model.algorithm.training
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def open_batches(run):
    with opened(run, Settings(samples=8, seed=3)) as model:
        return list(model.samples.pooled)


@pytest.mark.parametrize(
    ("hparams", "says"),
    [
        ('"freeze_bn": false', "BatchNorm by the statistics of each mini-batch, as in training"),
        ('"freeze_bn": true', "BatchNorm frozen, by its stored statistics, as in training"),
    ],
)
def test_batch_norm_is_as_training_had_it(tmp_path, image_folder, hparams, says):
    flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--workers", "0"]
    hparams = '{"image_size": 32, "image_channels": 1, "batch_size": 2, ' + hparams + "}"
    run = find_runs([train(tmp_path, "ERM", *flags, hparams=hparams)])[0]
    with opened(run) as model:
        assert model.about["batch_size"] == (64 if "frozen" in says else 2)
    with opened(run, Settings(batch_size=2)) as model:
        assert model.about["mode"] == f"{says}; no dropout, no augmentation"
        frozen = "frozen" in says
        sizes = [len(y) for _, y in model.samples.pooled]
        assert sizes == [4, 4, 4, 4]
        together = model.loss(model.samples.pooled).value()
        buffers = {name: value.clone() for name, value in model.algorithm.named_buffers()}
    with opened(run, Settings(batch_size=8)) as model:
        assert (model.loss(model.samples.pooled).value() == pytest.approx(together, rel=1e-5)) == frozen
        assert all(torch.equal(value, buffers[name]) for name, value in model.algorithm.named_buffers())
    with opened(run, Settings(batch_size=1)) as model:
        if frozen:
            model.loss(model.samples.tests[0]).value()
            return
        with pytest.raises(UserError, match="BatchNorm needs mini-batches of 2 images or more, dark has one of 1"):
            model.loss(model.samples.tests[0])


def test_an_open_run_is_the_trained_model_with_its_data_and_splits(trained):
    run = find_runs([trained / "SAM"])[0]
    with opened(run) as model:
        pass
    weights = torch.load(trained / "SAM" / "model.pkl", weights_only=True)["model_dict"]
    assert all(torch.equal(value.cpu(), weights[name]) for name, value in model.algorithm.state_dict().items())
    assert not model.algorithm.training
    with opened(run, Settings("model_step0.pkl")) as early:
        assert not torch.equal(early.algorithm.classifier.weight, model.algorithm.classifier.weight)


def test_a_model_of_another_run_is_refused(trained, tmp_path):
    folder = Path(shutil.copytree(trained / "SAM", tmp_path / "SAM"))
    shutil.copy(trained / "ERM" / "model.pkl", folder)
    with pytest.raises(UserError) as told:
        TrainedModels(find_runs([folder]), Settings())
    assert str(told.value) == (
        f"{folder}/model.pkl is another run's: algorithm ERM in the model, SAM in the records. "
        "Put this run's model back, or --restart it"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("image", "images of each environment [10, 10, 10], here [9, 10, 10]"),
        ("class", "class circle, here disc"),
        ("more classes", "classes 2, here 3"),
        ("domain", "source domains 2, here 3"),
    ],
)
def test_data_that_changed_are_refused(tmp_path, image_folder, change, message):
    flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--workers", "0"]
    run = find_runs([train(tmp_path, "ERM", *flags, hparams='{"image_size": 28, "cnn_width": 8, "batch_size": 2}')])[0]
    shapes = image_folder / "Shapes"
    if change == "image":
        (shapes / "dark" / "circle" / "1.png").unlink()
    elif change == "class":
        for domain in shapes.iterdir():
            (domain / "circle").rename(domain / "disc")
    else:
        new = shapes / "dark" / "triangle" if change == "more classes" else shapes / "new" / "circle"
        new.mkdir(parents=True)
        (new / "1.png").write_bytes((shapes / "dark" / "square" / "1.png").read_bytes())
    with pytest.raises(UserError) as told, opened(run):
        pass
    assert str(told.value).startswith(f"{run.folder} was trained on other data: ")
    assert message in str(told.value)


def test_data_that_moved_are_found_by_data_dir(tmp_path, image_folder):
    flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--workers", "0"]
    run = find_runs([train(tmp_path, "ERM", *flags, hparams='{"image_size": 28, "cnn_width": 8, "batch_size": 2}')])[0]
    image_folder.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError), opened(run):
        pass
    with opened(run, Settings(data_dir=str(tmp_path / "elsewhere"))) as model:
        assert [sample.name for sample in model.samples.sources] == ["light", "tinted"]


@pytest.mark.parametrize("command", ["hessian", "landscape"])
def test_a_command_reads_each_model_once_and_builds_each_dataset_once(trained, tmp_path, monkeypatch, command):
    from domainbed_adm.analysis.commands import analyze_hessian, analyze_landscape

    for name in ("ERM", "SAM"):
        shutil.copytree(trained / name, tmp_path / name)
    shutil.copytree(trained / "ERM", tmp_path / "again")
    read, built, network = Counter(), Counter(), Counter()

    def counting(function, counter, key):
        def counted(*args, **kwargs):
            counter[key(args)] += 1
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(torch, "load", counting(torch.load, read, lambda args: args[0]))
    monkeypatch.setattr(DigitsDataset, "__init__", counting(DigitsDataset.__init__, built, lambda args: "digits"))
    restore = counting(trained_model.restore_algorithm, network, lambda args: args[0]["path"])
    monkeypatch.setattr(trained_model, "restore_algorithm", restore)
    runs, settings = find_runs([tmp_path]), Settings(samples=4)
    if command == "hessian":
        analyze_hessian(runs, settings, HessianSettings(1, max_vectors=2, directions=2), None, True)
    else:
        analyze_landscape(runs, settings, LandscapeSettings(3, 3), tmp_path / "landscape.svg")
    models = [tmp_path / name / "model.pkl" for name in ("ERM", "SAM", "again")]
    assert read == dict.fromkeys(models, 1)
    assert network == dict.fromkeys(map(str, models), 1)
    assert built == {"digits": 1}


def test_what_decides_the_images_decides_which_runs_share_a_dataset(tmp_path, image_folder):
    runs = []
    for i, (test_env, channels) in enumerate((("0", 3), ("1", 3), ("0", 1))):
        flags = ["--dataset", "Shapes", "--data_dir", str(image_folder), "--workers", "0", "--test_envs", test_env]
        hparams = f'{{"image_size": 28, "image_channels": {channels}, "cnn_width": 8, "batch_size": 2}}'
        runs += find_runs([train(tmp_path / f"{i}", "ERM", *flags, hparams=hparams)])
    models = TrainedModels(runs, Settings(samples=2))
    shapes = []
    for i in range(3):
        with models.open(i) as model:
            shapes.append(next(iter(model.samples.pooled))[0].shape[1:])
    assert shapes == [(3, 28, 28), (3, 28, 28), (1, 28, 28)]
    assert len(models._datasets.built) == 2
