import pytest
import torch
from torch import nn

from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.analysis.subject import Settings, open_subject
from domainbed_adm.errors import UserError
from tests.analysis.trained import train


def test_a_subject_says_what_it_is_and_leaves_the_run_as_it_was(trained):
    run = find_runs([trained / "SAM"])[0]
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    with open_subject(run, Settings(samples=8, double=True, seed=3)) as subject:
        about = dict(subject.about)
        assert about.pop("versions").keys() == {"domainbed_adm", "torch", "numpy", "scipy"}
        assert about == {
            "model": "model.pkl", "algorithm": "SAM", "dataset": "RotatedDigits", "test_envs": [0], "trial_seed": 0,
            "hparams_seed": 0, "samples": 8, "batch_size": 64, "seed": 3, "dtype": "float64",
            "device": "cpu" if subject.run.device.type == "cpu" else torch.cuda.get_device_name(),
            "mode": "the network has no BatchNorm; no dropout, no augmentation",
        }  # fmt: skip
        assert {param.dtype for param in subject.params} == {torch.float64}
        loss = subject.loss(subject.samples.pooled)
        value, accuracy = loss.value_and_accuracy()
        assert [len(y) for _, y in subject.samples.pooled] == [40]
    x = torch.cat([x for x, _ in open_batches(run)])
    y = torch.cat([y for _, y in open_batches(run)])
    model = nn.Sequential(subject.run.algorithm)
    logits = model[0].predict(x.to(subject.run.device).double()).cpu()
    assert value == pytest.approx(nn.functional.cross_entropy(logits, y).item(), rel=1e-9)
    assert accuracy == (logits.argmax(1) == y).double().mean()
    assert not subject.run.algorithm.training
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before


def open_batches(run):
    with open_subject(run, Settings(samples=8, seed=3)) as subject:
        return list(subject.samples.pooled)


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
    with open_subject(run, Settings()) as subject:
        assert subject.about["batch_size"] == (64 if "frozen" in says else 2)
    with open_subject(run, Settings(batch_size=2)) as subject:
        assert subject.about["mode"] == f"{says}; no dropout, no augmentation"
        frozen = "frozen" in says
        sizes = [len(y) for _, y in subject.samples.pooled]
        assert sizes == [4, 4, 4, 4]
        together = subject.loss(subject.samples.pooled).value()
        buffers = {name: value.clone() for name, value in subject.run.algorithm.named_buffers()}
    with open_subject(run, Settings(batch_size=8)) as subject:
        assert (subject.loss(subject.samples.pooled).value() == pytest.approx(together, rel=1e-5)) == frozen
        assert all(torch.equal(value, buffers[name]) for name, value in subject.run.algorithm.named_buffers())
    with open_subject(run, Settings(batch_size=1)) as subject:
        if frozen:
            subject.loss(subject.samples.tests[0]).value()
            return
        with pytest.raises(UserError, match="BatchNorm needs mini-batches of 2 images or more, dark has one of 1"):
            subject.loss(subject.samples.tests[0])
