"""Runs on image files of an official split, resized and cropped as fine-grained recipes do: the same data for all."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from domainbed_adm.analysis.run_data import RunDatasets
from domainbed_adm.cli import main as cli
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.training import held
from domainbed_adm.training.model_file import read_model, restore_algorithm
from tests.datasets.classification import test_fine_grained
from tests.runs import read_records
from tests.training import test_resume
from tests.training.test_resume import assert_same

TIMM = importlib.util.find_spec("timm") is not None
DEVICE = ["--augment_on", "device"]
#: What changes nothing of a run, and what makes it another one.
WAYS = {
    "plain": ["--workers", "0"],
    "workers": ["--workers", "2"],
    "cached": ["--workers", "0", "--cache"],
    "device": [*DEVICE, "--workers", "0"],
    "device, a worker": [*DEVICE, "--workers", "1"],
    "device, cached": [*DEVICE, "--workers", "1", "--cache"],
}
Train = Callable[..., int]


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stanford Cars with 3 and 4 images that are no squares, so that crops differ from what they crop."""

    def image(path: Path, colour: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        size = (30, 70 + colour, 3) if colour % 20 else (350, 330, 3)
        Image.fromarray(np.random.default_rng(colour).integers(0, 256, size, np.uint8)).save(path, "JPEG")

    monkeypatch.setattr(test_fine_grained, "image", image)
    test_fine_grained.written("StanfordCars", tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def train(data_dir: Path) -> Train:
    """Train for five steps on it, into a folder."""
    return lambda folder, *flags, **hparams: test_resume.train(folder, *arguments(data_dir, *flags), **small(hparams))


def arguments(data_dir: Path, *flags: str) -> list[str]:
    return ["SAM_SSPL_ADM", "--dataset", "StanfordCars", "--data_dir", str(data_dir), "--holdout_fraction", "0", *flags]


def small(hparams: dict[str, Any]) -> dict[str, Any]:
    return {"image_size": 28, "batch_size": 2, **hparams}


def test_who_loads_changes_nothing(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Loading processes, the cache, and images that lie on the device; where they are augmented is another run."""
    for name, flags in WAYS.items():
        assert train(tmp_path / name, *flags) == 0
        same_as = "device" if "device" in name else "plain"
        assert_same(tmp_path / same_as, tmp_path / name)
    monkeypatch.setattr(held, "_free", lambda device: 2**40)
    capsys.readouterr()
    assert train(tmp_path / "held", *DEVICE, "--cache") == 0
    assert "decoded images on the device" in capsys.readouterr().out
    assert_same(tmp_path / "device", tmp_path / "held")
    on_cpu, on_device = (read_records(tmp_path / name) for name in ("plain", "device"))
    assert on_cpu[0]["loss"] != on_device[0]["loss"]
    assert {tuple(record["provenance"]["reduced_images"]) for record in (*on_cpu, *on_device)} == {(0, 0)}
    assert on_cpu[0]["hparams"]["image_crop"] == "short_side"


@pytest.mark.parametrize("flags", [["--cache"], DEVICE], ids=["cache", "device"])
def test_resumes_exactly(
    train: Train, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    every = [*flags, "--checkpoint_every", "1"]
    assert train(tmp_path / "whole", *flags) == 0
    test_resume.train_killed(monkeypatch, 4, tmp_path / "broken", *arguments(data_dir, *every), **small({}))
    assert train(tmp_path / "broken", *every, "--workers", "1") == 0
    assert_same(tmp_path / "whole", tmp_path / "broken")
    last = read_records(tmp_path / "broken")[-1]["hparams"]
    named = ("optimizer", "lr_schedule", "sampling", "image_crop", "resize_to")
    assert [last[name] for name in named] == ["sgd", "cosine", "epoch", "short_side", 0]


@pytest.mark.parametrize("crop", ["short_side", "square", None])
def test_evaluate_and_predict_see_what_training_evaluated(
    train: Train, data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], crop: str | None
) -> None:
    run = tmp_path / "run"
    assert train(run, "--workers", "0", image_crop=crop) == 0
    last = read_records(run)[-1]
    assert cli(["evaluate", str(run)]) == 0
    (file,) = run.glob("evaluation*.json")
    (test,) = json.loads(file.read_text())["environments"]
    assert (test["accuracy"], test["nll"]) == (last["env1_in_acc"], last["env1_in_nll"])
    probabilities = predicted(run, data_dir, capsys)
    assert len(probabilities) == 4
    labels = dict(zip(test_fine_grained.EXPECTED["StanfordCars"][2], range(4), strict=True))
    right = [test_fine_grained.CARS[k] == probabilities[f"{stem}.jpg"][0] for (stem, k), _ in labels.items()]
    assert np.mean(right) == pytest.approx(last["env1_in_acc"])
    if crop == "short_side":  # and it matters
        assert train(tmp_path / "other", "--workers", "0", image_crop=crop, resize_to=60) == 0
        assert predicted(tmp_path / "other", data_dir, capsys) != probabilities


def predicted(run: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[str, str]]:
    """Class and probability of each test image, by its name."""
    images = data_dir / get_card("StanfordCars").directory / "cars_test"
    capsys.readouterr()
    assert cli(["predict", "--model", str(run / "model.pkl"), "--images", str(images)]) == 0
    rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
    return {Path(path).name: (name, probability) for path, name, probability in rows}


def test_analyses_keep_runs_of_other_crops_apart(data_dir: Path) -> None:
    datasets, args = RunDatasets(str(data_dir)), {"dataset": "StanfordCars", "test_envs": [1]}
    shown = [
        datasets.get(args, {"image_size": 28, "image_crop": crop, "resize_to": side})[1][0][0]
        for crop, side in (("short_side", 0), ("square", 0), ("square", 28), (None, 0))
    ]
    assert len(datasets.built) == 4
    same = [torch.equal(x, y) for x, y in pairwise(shown)]
    assert same == [False, False, True]  # a square that is not cropped is DomainBed's


@pytest.mark.parametrize(
    ("algorithm", "size", "hparams"),
    [
        ("ERM", 448, {"resnet18": True}),
        ("SAM_SSPL_ADM", 448, {"backbone": "test_vit"}),
        ("SAM_SSPL_ADM", 224, {"backbone": "test_efficientnet"}),
    ],
    ids=["resnet18", "vit", "efficientnet"],
)
@pytest.mark.filterwarnings("default")  # timm's own imports may warn
def test_large_images_train_and_are_evaluated(
    data_dir: Path, tmp_path: Path, algorithm: str, size: int, hparams: dict[str, Any]
) -> None:
    """The recipe's own sizes, from scratch: torchvision's network, and timm's, one of them made for another size."""
    if "backbone" in hparams and not TIMM:
        pytest.skip("timm is not installed")
    given = json.dumps({"image_size": size, "pretrained": False, "batch_size": 2, **hparams})
    flags = ["--dataset", "StanfordCars", "--data_dir", str(data_dir), "--algorithm", algorithm, "--hparams", given]
    assert cli(["train", *flags, "--steps", "1", "--workers", "0", "--output_dir", str(tmp_path / "run")]) == 0
    (record,) = read_records(tmp_path / "run")
    assert np.isfinite([record["loss"], record["env1_in_nll"]]).all()
    x = torch.zeros(2, 3, size, size)
    assert restore_algorithm(read_model(tmp_path / "run/model.pkl")).predict(x).shape == (2, 3)
