"""``train --devices``: the data and results of one device, whoever is killed, and what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image

import domainbed_adm
from domainbed_adm.cli import main
from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.errors import UserError
from domainbed_adm.method.ranks import Ranks
from domainbed_adm.run_args import RunArgs
from domainbed_adm.training import devices
from domainbed_adm.training.batches import TaskDataset, TrainTask
from domainbed_adm.training.model_file import read_model
from domainbed_adm.training.resume import saved_step
from domainbed_adm.training.setup import set_up
from tests.runs import read_records

STEPS = 40
FLAGS = ["--dataset", "RotatedDigits", "--algorithm", "FSAM", "--steps", str(STEPS), "--checkpoint_freq", "20"]
FLAGS += ["--checkpoint_every", "1", "--hparams", json.dumps({"cnn_width": 8, "batch_size": 5})]


def command(folder, *more):
    return ["train", *FLAGS, "--output_dir", str(folder), *more]


def started(folder, *more):
    child = subprocess.Popen(
        [sys.executable, "-m", "domainbed_adm", *command(folder, *more)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(domainbed_adm.__file__).parents[1])},
    )
    before = (folder / "checkpoint.pkl").stat().st_mtime_ns if (folder / "checkpoint.pkl").exists() else 0
    while not (folder / "checkpoint.pkl").exists() or (folder / "checkpoint.pkl").stat().st_mtime_ns == before:
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    return child, [int(pid) for pid in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]


def gone(pid):
    """Whether the process has ended; one that nobody has asked for yet, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a run in /proc")
def test_killed_and_interrupted_runs_go_on_with_another_number_of_devices(tmp_path):
    """A rank killed, the run interrupted, then one device: the results are one device's."""
    folder = tmp_path / "two"
    child, (_, second) = started(folder, "--devices", "2")
    os.kill(second, signal.SIGKILL)
    _, errors = child.communicate(timeout=60)
    step = saved_step(folder / "checkpoint.pkl")
    assert (
        errors == "domainbed-adm: error: process 2 of the run's 2 was killed by SIGKILL, perhaps for want of memory\n"
    )
    assert child.returncode == 1
    assert (folder / "err.txt").read_text().endswith("perhaps for want of memory\n")

    child, ranks = started(folder, "--devices", "2")
    child.terminate()
    _, errors = child.communicate(timeout=60)
    assert saved_step(folder / "checkpoint.pkl") > step
    step = saved_step(folder / "checkpoint.pkl")
    assert errors == f"domainbed-adm: interrupted: the same command goes on from step {step}\n"
    assert child.returncode == 130
    assert all(gone(rank) for rank in ranks)

    assert main(command(folder)) == 0
    assert main(command(tmp_path / "one")) == 0
    ours, theirs = (read_records(path) for path in (folder, tmp_path / "one"))
    assert [record["step"] for record in ours] == [record["step"] for record in theirs] == [0, 20, 39]
    accuracies = [name for name in theirs[0] if name.endswith("_acc")]
    assert {name: ours[0][name] for name in accuracies} == {name: theirs[0][name] for name in accuracies}
    assert ours[-1]["loss"] == pytest.approx(theirs[-1]["loss"], rel=1e-2)
    models = [read_model(path / "model.pkl")["model_dict"] for path in (folder, tmp_path / "one")]
    for name, tensor in models[0].items():
        torch.testing.assert_close(tensor, models[1][name], rtol=0, atol=2e-2)


def test_a_rank_ends_with_the_process_that_started_it(tmp_path):
    """Here while it waits for another one that never comes."""
    args = vars(RunArgs(devices=2, output_dir=str(tmp_path / "run")))
    told, theirs = os.pipe()
    order = {"args": args, "rank": 0, "meeting": str(tmp_path / "meeting"), "pipe": theirs}
    with subprocess.Popen(
        [sys.executable, "-m", "domainbed_adm.training.rank"], stdin=subprocess.PIPE, pass_fds=[theirs]
    ) as child:
        os.close(theirs)
        child.stdin.write(json.dumps(order).encode() + b"\n")
        child.stdin.flush()
        while not (tmp_path / "meeting").exists():
            assert child.poll() is None
            time.sleep(0.05)
        child.stdin.close()
        assert child.wait(30) == 1
    assert os.read(told, 1) == b""
    os.close(told)


@pytest.mark.parametrize("augment_on", ["cpu", "device", "nowhere"])
@pytest.mark.parametrize("count", [2, 3])
def test_shares_are_what_one_device_loads(image_folder, augment_on, count):
    """Bit for bit, augmentation too."""
    hparams = {"resnet18": True, "pretrained": False, "batch_size": 7, "image_size": 32}
    args = RunArgs(
        data_dir=str(image_folder),
        dataset="Shapes",
        augment_on="device" if augment_on == "device" else "cpu",
        uda_holdout_fraction=0.5,
        hparams=json.dumps(hparams | {"data_augmentation": augment_on != "nowhere"}),
    )
    run = set_up(args)

    def load(share):
        tasks = TaskDataset(run.dataset.datasets, run.splits, args.test_envs, 0, run.hparams, share=share)
        return tasks[TrainTask(4)].minibatches(torch.device("cpu"))

    whole, unlabeled = load((0, 1))
    x, y, index = (torch.cat(parts) for parts in zip(*((*b, b.sample_index) for b in whole), strict=True))
    for rank in range(count):
        share, others = load((rank, count))
        own = [torch.cat(parts) for parts in zip(*((*b, b.sample_index) for b in share), strict=True)]
        for ours, theirs in zip(own, (x, y, index), strict=True):
            assert torch.equal(ours, theirs[rank::count])
        before = len(x)
        for ours, theirs in zip(others, unlabeled, strict=True):
            assert torch.equal(ours, theirs[(rank - before) % count :: count])


@pytest.mark.parametrize("crop", [None, "short_side"])
def test_passing_an_image_over_draws_what_augmenting_it_draws(image_folder, crop):
    """Of JPEG, upright or turned, by the header alone; of other formats, and of a cache."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for i, (size, exif) in enumerate([((90, 400), Image.Exif()), ((400, 90), turned)]):
        Image.new("RGB", size).save(image_folder / "Shapes" / "light" / "circle" / f"extreme_{i}.jpg", exif=exif)
    dataset = get_dataset_class("Shapes")(str(image_folder), [0], {"image_size": 32, "image_crop": crop})
    for cached in (False, True):
        if cached:
            dataset.use_cache(None)
        for environment in dataset.datasets:
            for key in range(len(environment)):
                after = []
                for draw in (environment.pass_over, lambda key, one=environment: one.compact_item(key, training=True)):
                    torch.manual_seed(key)
                    draw(key)
                    after.append(torch.rand(1))
                assert torch.equal(*after)


def test_too_few_devices_and_too_small_batches_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="--devices 2: there is 1 GPU here"):
        devices.check_devices(2)
    devices.check_devices(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices.check_devices(64)
    small = RunArgs(hparams='{"batch_size": 2}')
    with pytest.raises(UserError, match="--devices 2 share out the 2 samples of hparam batch_size: .* above 2"):
        set_up(small, Ranks(0, 2))
    rest = {"batch_size": 4, "sampling": "epoch", "drop_last": False}
    with pytest.raises(UserError, match="--devices 3: the last minibatch of an epoch has 2 samples: set hparam drop_l"):
        devices.check_shares(3, rest, [9, 13])
    devices.check_shares(3, rest, [9, 14])
    devices.check_shares(3, rest | {"drop_last": True}, [9, 13])


def test_each_device_is_its_ranks_own_and_gpus_talk_by_nccl(monkeypatch):
    assert devices.device_of(Ranks(1, 2)) == torch.device("cpu")
    assert devices.backend(torch.device("cpu")) == "gloo"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert devices.device_of(Ranks(1, 2)) == torch.device("cuda", 1)
    assert devices.device_of(Ranks()) == torch.device("cuda")
    assert devices.backend(torch.device("cuda", 1)) == "cpu:gloo,cuda:nccl"


def test_what_cannot_be_shared_out_is_named():
    args = RunArgs(algorithm="SAM", hparams='{"cnn_width": 8, "ascent": "local", "backbone": "cifar_resnet18"}')
    with pytest.raises(UserError, match="ascent local computes each device's share by itself, BatchNorm too: give"):
        set_up(args, Ranks(0, 2))

    class Own(torch.nn.Module):
        pass

    with pytest.raises(UserError, match="averages gradients in self.step, and Own does not train by it"):
        devices.share_out(Own(), Ranks(0, 2), "sync")


def test_networks_that_differ_are_named(monkeypatch):
    ranks, model = Ranks(0, 2), torch.nn.Linear(2, 2)
    monkeypatch.setattr(ranks, "every", lambda own: [own, own.clone()])
    devices.check_alike(model, ranks)
    monkeypatch.setattr(ranks, "every", lambda own: [own, own + 1e-12])
    with pytest.raises(UserError, match="the devices' networks differ: Linear does not change it by self.step alone"):
        devices.check_alike(model, ranks)
