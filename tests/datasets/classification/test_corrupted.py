"""CIFAR-10-C and CIFAR-100-C: an environment for each severity, read lazily, and one line for each wrong file."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import CIFAR_CORRUPTIONS, CIFAR_EXTRA, get_card
from domainbed_adm.datasets.classification import cifar
from domainbed_adm.errors import UserError
from tests.datasets.classification.files import SMALL, write_binary, write_corrupted


def load(data_dir: Path, name: str = "CIFAR10C") -> Any:
    return get_dataset_class(name)(str(data_dir), [*get_card(name).test_envs], {})


@pytest.fixture
def data_dir(tmp_path: Path, small: None) -> Path:
    write_binary(tmp_path / "cifar-10-batches-bin", "CIFAR10")
    return tmp_path


@pytest.mark.parametrize("name", ["CIFAR10C", "CIFAR100C", "CIFAR10CExtra", "CIFAR100CExtra"])
def test_each_corruption_and_severity_is_an_environment(tmp_path: Path, small: None, name: str) -> None:
    card, corruptions = get_card(name), CIFAR_EXTRA if name.endswith("Extra") else CIFAR_CORRUPTIONS
    clean = get_card(card.train_of)
    train = write_binary(tmp_path / clean.directory, clean.name)["train"]
    written = write_corrupted(tmp_path / card.directory, corruptions, card.num_classes)
    dataset = load(tmp_path, name)
    assert dataset.environments == ["train", *(f"{c}-{s}" for c in corruptions for s in range(1, 6))]
    assert dataset[0].targets.tolist() == train[1].tolist()
    for i, environment in enumerate(dataset.environments[1:], 1):
        corruption, severity = environment.split("-")
        own = slice(SMALL * (int(severity) - 1), SMALL * int(severity))
        assert dataset[i].targets.tolist() == written["labels"][own].tolist()
        for k in (0, SMALL - 1):
            pixels, target = dataset[i].compact_item(k, training=False)
            assert (pixels.numpy() == written[corruption][own][k].transpose(2, 0, 1)).all()
            assert target == written["labels"][own][k]
    assert dataset.normalization == clean.normalization
    assert len({environment.fingerprint for environment in dataset}) == len(dataset)


def test_there_are_fifteen_corruptions_and_four_more() -> None:
    assert (len(set(CIFAR_CORRUPTIONS)), len(set(CIFAR_EXTRA) - set(CIFAR_CORRUPTIONS))) == (15, 4)
    assert len(get_card("CIFAR10C").environments) == 76


def test_nothing_is_read_before_it_is_asked_for(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The arrays are maps of the files, in this process and in one that loads; a file's change is seen."""
    write_corrupted(data_dir / "CIFAR-10-C", CIFAR_CORRUPTIONS, 10)
    dataset = load(data_dir)
    path = data_dir / "CIFAR-10-C" / "fog.npy"
    first = dataset.environments.index("fog-1")
    handed_over = pickle.dumps(dataset[first])
    assert len(handed_over) < 3000
    there = pickle.loads(handed_over)
    with path.open("r+b") as file:
        file.seek(-5 * SMALL * 3072, os.SEEK_END)
        file.write(bytes([7, 8, 9]))
    for environment in (dataset[first], there):
        assert isinstance(base_of(environment.pixels), np.memmap)
        assert environment.compact_item(0, training=False)[0][:, 0, 0].tolist() == [7, 8, 9]
    assert there.fingerprint == dataset[first].fingerprint
    assert there.normalization == dataset[first].normalization


def base_of(array: Any) -> Any:
    while not isinstance(array, np.memmap):
        array = array.base
    return array


def test_the_published_shape(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "CORRUPTED_IMAGES", 10_000)
    folder = data_dir / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.zeros(50_000, np.uint8))
    whole = np.lib.format.open_memmap(folder / "fog.npy", "w+", np.uint8, (50_000, 32, 32, 3))  # no page is written
    del whole
    for name in CIFAR_CORRUPTIONS:
        if name != "fog":
            (folder / f"{name}.npy").symlink_to(folder / "fog.npy")
    dataset = load(data_dir)
    assert {len(environment) for environment in list(dataset)[1:]} == {10_000}
    assert dataset[75].pixels.shape == (10_000, 3, 32, 32)


class Harmless:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


FAULTS = {
    "no array": (lambda f: (f / "fog.npy").unlink(), r"fog\.npy cannot be read as an array \(\.npy\): No such file"),
    "no labels": (lambda f: (f / "labels.npy").unlink(), r"labels\.npy cannot be read .*: No such file"),
    "cut": (lambda f: os.truncate(f / "fog.npy", 5 * SMALL * 3072), r"fog\.npy cannot be read as an array"),
    "cut in its head": (lambda f: os.truncate(f / "fog.npy", 20), r"fog\.npy cannot be read as an array"),
    "empty": (lambda f: os.truncate(f / "fog.npy", 0), r"fog\.npy cannot be read as an array"),
    "few images": (
        lambda f: np.save(f / "fog.npy", np.zeros((SMALL, 32, 32, 3), np.uint8)),
        r"fog\.npy is uint8 of shape \(20, 32, 32, 3\), uint8 of shape \(100, 32, 32, 3\) is expected",
    ),
    "channels first": (
        lambda f: np.save(f / "fog.npy", np.zeros((5 * SMALL, 3, 32, 32), np.uint8)),
        r"fog\.npy is uint8 of shape \(100, 3, 32, 32\), uint8 of shape \(100, 32, 32, 3\) is expected",
    ),
    "floats": (
        lambda f: np.save(f / "fog.npy", np.zeros((5 * SMALL, 32, 32, 3), np.float32)),
        r"fog\.npy is float32 of shape \(100, 32, 32, 3\), uint8 of shape .* is expected",
    ),
    "float labels": (
        lambda f: np.save(f / "labels.npy", np.zeros(5 * SMALL)),
        r"labels\.npy: labels are float64 of shape \(100,\), 100 integers are expected",
    ),
    "few labels": (
        lambda f: np.save(f / "labels.npy", np.zeros(SMALL, np.int64)),
        r"labels\.npy is int64 of shape \(20,\), integers of shape \(100,\) are expected",
    ),
    "label 10": (
        lambda f: np.save(f / "labels.npy", np.full(5 * SMALL, 10)),
        r"labels\.npy: the label of image 0 is 10, labels are 0 to 9",
    ),
    "an archive": (
        lambda f: np.savez(f / "other", a=np.zeros(3)) or (f / "other.npz").rename(f / "fog.npy"),
        r"fog\.npy cannot be read as an array \(\.npy\): the magic string is not correct",
    ),
    "a pickle": (
        lambda f: (f / "fog.npy").write_bytes(pickle.dumps(Harmless())),
        r"fog\.npy cannot be read as an array .*the magic string is not correct",
    ),
    "objects": (
        lambda f: np.save(f / "labels.npy", np.array([Harmless()] * 100), allow_pickle=True),
        r"labels\.npy cannot be read as an array .*objects",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_file_is_one_line_and_runs_nothing(data_dir: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(data_dir)
    folder = data_dir / "CIFAR-10-C"
    write_corrupted(folder, CIFAR_CORRUPTIONS, 10)
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(UserError, match=message) as caught:
        load(data_dir)
    assert "\n" not in str(caught.value)
    assert not (data_dir / "ran").exists()


def test_train_comes_from_the_clean_set(data_dir: Path) -> None:
    write_corrupted(data_dir / "CIFAR-10-C", CIFAR_CORRUPTIONS, 10)
    (data_dir / "cifar-10-batches-bin").rename(data_dir / "elsewhere")
    with pytest.raises(UserError, match=r"dataset CIFAR10: no folder .*cifar-10-batches-bin"):
        load(data_dir)


def test_the_extra_corruptions_need_not_be_there(data_dir: Path) -> None:
    write_corrupted(data_dir / "CIFAR-10-C", CIFAR_CORRUPTIONS, 10)
    assert len(load(data_dir)) == 76
    with pytest.raises(UserError, match=r"speckle_noise\.npy cannot be read"):
        load(data_dir, "CIFAR10CExtra")
