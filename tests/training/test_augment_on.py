"""Runs whose images are augmented on the device: the same bits whoever loads them and wherever the pixels lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_adm.datasets import augmentation, folders, get_dataset_class
from domainbed_adm.datasets.base import to_inputs
from domainbed_adm.training import held
from domainbed_adm.training.batches import Schedule, TaskDataset, TrainTask, evaluation_tasks, split_environments
from domainbed_adm.training.loading_processes import open_stream
from tests.runs import read_records
from tests.training import test_resume
from tests.training.test_resume import assert_same, outcome

CPU = torch.device("cpu")
DEVICE = ["--augment_on", "device"]


@pytest.fixture
def pictures(image_folder: Path) -> Path:
    """Small images of several sizes, one that is reduced, one very long."""
    folder = image_folder / "Shapes" / "light" / "circle"
    random = np.random.default_rng(0)
    for name, size in (("large.png", (330, 400)), ("long.png", (20, 900)), ("tall.jpg", (70, 50))):
        Image.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)).save(folder / name)
    return image_folder


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that has room for the dataset."""
    monkeypatch.setattr(held, "_free", lambda device: 2**40)


def train(data_dir: Path, folder: Path, *flags: str, **hparams: Any) -> int:
    words = ["--dataset", "Shapes", "--data_dir", str(data_dir), *flags]
    return test_resume.train(folder, "SAM_SSPL_ADM", *words, **{"image_size": 28, "batch_size": 6, **hparams})


WAYS = {
    "no workers": ["--workers", "0"],
    "a worker": ["--workers", "1"],
    "two workers": ["--workers", "2"],
    "cached": ["--workers", "0", "--cache"],
    "cached, a worker": ["--workers", "1", "--cache"],
}


@pytest.mark.parametrize(("channels", "ways"), [(1, ["no workers", "cached, a worker"]), (3, list(WAYS))])
def test_every_way_gives_the_same_run(pictures: Path, tmp_path: Path, channels: int, ways: list[str]) -> None:
    for name in ways:
        assert train(pictures, tmp_path / name, *DEVICE, *WAYS[name], image_channels=channels) == 0
    for name in ways[1:]:
        assert_same(tmp_path / "no workers", tmp_path / name)
    cached = read_records(tmp_path / "cached, a worker")
    assert [record["provenance"]["reduced_images"] for record in cached] == 3 * [[0, 1, 0]]
    assert train(pictures, tmp_path / "cpu", "--cache", image_channels=channels) == 0
    on_cpu, on_device = outcome(tmp_path / "cpu")[0], outcome(tmp_path / "cached, a worker")[0]
    assert on_cpu[0]["loss"] != on_device[0]["loss"]
    assert on_cpu[0]["loss"] == pytest.approx(on_device[0]["loss"], rel=0.2)


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("workers", ["0", "1"])
def test_images_that_lie_on_the_device_give_the_same_run(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: str
) -> None:
    assert train(pictures, tmp_path / "held", *DEVICE, "--cache", "--workers", workers) == 0
    assert "decoded images on the device: 1 MiB" in capsys.readouterr().out
    for flags in (["--cache"], DEVICE):  # nothing to hold
        assert train(pictures, tmp_path / flags[-1], *flags) == 0
        assert "decoded images on the device" not in capsys.readouterr().out
    assert_same(tmp_path / "device", tmp_path / "held")
    monkeypatch.setattr(held, "_free", lambda device: 2_000_000)  # a quarter is too small
    assert train(pictures, tmp_path / "full", *DEVICE, "--cache", "--workers", workers) == 0
    assert "decoded images on the device" not in capsys.readouterr().out
    assert_same(tmp_path / "full", tmp_path / "held")


def test_a_held_batch_carries_no_pixels(pictures: Path) -> None:
    dataset = build(pictures, cached=True)
    decoded = held.hold(dataset.datasets, CPU)
    assert decoded is None
    splits = split_environments(list(map(len, dataset.datasets)), [0], 0, 0.2)
    copied, kept = (
        TaskDataset(dataset.datasets, splits, [0], 3, {"batch_size": 6, "class_balanced": False}, held=on)[TrainTask(1)]
        for on in (False, True)
    )
    assert kept.raw is not None
    assert kept.raw.pixels is None
    assert sum(tensor.nbytes for tensor in kept.tensors) == 12 * 2 * 8
    everything = dataset.datasets[1].decoded
    assert everything is not None
    assert torch.equal(kept.inputs(CPU, everything.on(CPU)), copied.inputs(CPU))


def build(data_dir: Path, cached: bool = False, **hparams: Any) -> Any:
    dataset = get_dataset_class("Shapes")(str(data_dir), [0], {"image_size": 28, **hparams})
    if cached:
        dataset.use_cache(None)
    dataset.augment_on_device()
    return dataset


def test_decoded_in_pieces(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = build(pictures, cached=True).datasets[1].decoded
    whole = decoded.on(CPU)
    monkeypatch.setattr("domainbed_adm.datasets.decoded._PIECE", 1001)
    assert torch.equal(decoded.on(CPU), whole)
    assert whole.numpy().tobytes() == decoded.path.read_bytes()[: decoded.size]


@pytest.mark.usefixtures("room")
@pytest.mark.parametrize("flags", [[], ["--cache"], ["--workers", "1"]])
def test_resumes_exactly(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    """Held on the device where there is a cache, also where only a part of the run had one."""
    data = ["--dataset", "Shapes", "--data_dir", str(pictures), *DEVICE, "--checkpoint_every", "1"]
    assert train(pictures, tmp_path / "whole", *DEVICE) == 0
    for step in (2, 4):
        folder = tmp_path / str(step)
        options = {"image_size": 28, "batch_size": 6}
        test_resume.train_killed(monkeypatch, step, folder, "SAM_SSPL_ADM", *data, *flags, **options)
        assert train(pictures, folder, *DEVICE, "--checkpoint_every", "1") == 0
        assert_same(tmp_path / "whole", folder)


def test_another_place_is_another_run(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"image_size": 28, "batch_size": 6}
    data = ["--dataset", "Shapes", "--data_dir", str(pictures), "--cache"]
    test_resume.train_killed(monkeypatch, 4, tmp_path / "run", "SAM_SSPL_ADM", *data, **options)
    capsys.readouterr()
    assert train(pictures, tmp_path / "run", "--cache", *DEVICE) == 2
    error = capsys.readouterr().err
    assert "another run: --augment_on (cpu there, device here). Give another --output_dir" in error
    assert error.count("\n") == 1
    line = (tmp_path / "run/results.jsonl").read_text().splitlines()[0]
    assert json.loads(line)["args"]["augment_on"] == "cpu"


def test_what_is_not_augmented_is_as_it_was(pictures: Path, tmp_path: Path) -> None:
    """Without augmentation, and digits: the flag moves nothing."""
    for name, flags in {"cpu": [], "device": DEVICE}.items():
        assert train(pictures, tmp_path / name, *flags, data_augmentation=False) == 0
        assert test_resume.train(tmp_path / f"{name}-digits", "ERM", "--dataset", "RotatedDigits", *flags) == 0
    assert_same(tmp_path / "cpu", tmp_path / "device")
    assert_same(tmp_path / "cpu-digits", tmp_path / "device-digits")


@pytest.mark.parametrize("workers", [0, 1])
def test_unlabeled_images_are_not_augmented(pictures: Path, workers: int) -> None:
    dataset = build(pictures)
    splits = split_environments(list(map(len, dataset.datasets)), [0], 0, 0.2, 0.5)
    data = TaskDataset(dataset.datasets, splits, [0], 3, {"batch_size": 6, "class_balanced": False})
    for batch in open_stream(data, Schedule(2, 2, evaluation_tasks(splits)), workers, pin_memory=False):
        minibatches, unlabeled = batch.minibatches(CPU)
        if isinstance(batch.task, TrainTask):
            assert [len(x) for x in unlabeled] == [6]
            known = [dataset.datasets[0][key][0] for key in splits[0].uda]
            assert all(any(torch.equal(x, other) for other in known) for x in unlabeled[0])
            for number, (x, y) in zip((1, 2), minibatches, strict=True):
                environment, offset = dataset.datasets[number], int(data.offsets[number])
                keys = [index - offset for index in minibatches[number - 1].sample_index.tolist()]
                assert y.tolist() == environment.targets[keys].tolist()
                assert not any(torch.equal(one, environment[key][0]) for one, key in zip(x, keys, strict=True))
        else:
            environment = dataset.datasets[batch.task.environment]
            assert torch.equal(minibatches[0][0], torch.stack([environment[key][0] for key in batch.task.keys]))


def test_an_image_is_drawn_as_it_is_and_not_mixed_up(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With draws that change nothing but the size, what comes out is the image that the index names."""

    def whole(sizes: np.ndarray, *key: object) -> Any:
        n = len(sizes)
        boxes = np.concatenate([np.zeros_like(sizes), sizes], 1)
        no = np.zeros(n, dtype=bool)
        factors = np.tile([1.0, 1.0, 1.0, 0.0], (n, 1))
        return augmentation.Draws(boxes, no, np.tile(np.arange(4), (n, 1)), factors, no)

    monkeypatch.setattr(folders, "draw", whole)
    dataset = build(pictures)
    splits = split_environments(list(map(len, dataset.datasets)), [0], 0, 0.2)
    data = TaskDataset(dataset.datasets, splits, [0], 3, {"batch_size": 20, "class_balanced": False})
    batch = data[TrainTask(0)]
    assert batch.raw is not None
    pixels = batch.raw.augmented(CPU)
    assert torch.equal(to_inputs(pixels, batch.normalization), batch.inputs(CPU))
    everything = [
        environment.compact_item(k, training=False)[0] for environment in dataset for k in range(len(environment))
    ]
    for image, index in zip(pixels, batch.index.tolist(), strict=True):
        errors = [(image.float() - other.float()).abs().mean() for other in everything]
        assert int(np.argmin(errors)) == index
        assert errors[index] < 3
