"""MNIST's files: read where they are, fetched where they are not, and never left half there. No network is used."""

from __future__ import annotations

import gzip
import hashlib
import struct
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torchvision.datasets import MNIST, mnist

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.errors import UserError

SIZES = {"train": 48, "t10k": 12}


def idx_files():
    """MNIST's four files in its own format, with few images."""
    random = np.random.default_rng(0)
    files = {}
    for part, n in SIZES.items():
        images = random.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = (np.arange(n) % 10).astype(np.uint8)
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">IIII", 0x803, n, 28, 28) + images.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">II", 0x801, n) + labels.tobytes()
    return files


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr(mnist, "download_and_extract_archive", refuse)


@pytest.fixture
def data_dir(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, content in idx_files().items():
        (raw / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "shape", "num_classes", "sizes"),
    [("RotatedMNIST", (1, 28, 28), 10, [10] * 6), ("ColoredMNIST", (2, 28, 28), 2, [20] * 3)],
)
def test_attributes_and_items(data_dir, name, shape, num_classes, sizes):
    dataset = get_dataset_class(name)(str(data_dir), [0], {})
    assert (dataset.input_shape, dataset.num_classes, dataset.normalization) == (shape, num_classes, None)
    assert dataset.environments == list(get_card(name).environments)
    assert (dataset.N_STEPS, dataset.CHECKPOINT_FREQ) == (5001, 100)
    assert [len(environment) for environment in dataset] == sizes
    assert dataset[1][0][0].shape == shape


def test_training_images_come_first_and_pixels_end_at_one(data_dir):
    images, digits = get_dataset_class("RotatedMNIST").load(str(data_dir))
    expected = np.frombuffer(idx_files()["train-images-idx3-ubyte"][16:], np.uint8).reshape(-1, 28, 28) / 255
    np.testing.assert_allclose(images[:48].numpy(), expected, atol=1e-7)
    assert images.max() == 1
    np.testing.assert_array_equal(digits, [*(np.arange(48) % 10), *(np.arange(12) % 10)])


def test_no_data_dir():
    with pytest.raises(
        UserError, match=r"RotatedMNIST is read from disk: give --data_dir, .* the files of RotatedMNIST"
    ):
        get_dataset_class("RotatedMNIST")(None, [0], {})


def test_a_failed_download_says_what_to_put_where_and_leaves_nothing(tmp_path):
    with pytest.raises(UserError) as caught:
        get_dataset_class("ColoredMNIST")(str(tmp_path), [0], {})
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in idx_files())
    assert str(tmp_path / "MNIST" / "raw") in message
    assert "Error downloading train-images-idx3-ubyte.gz" in message  # torchvision 0.19 says no more than this
    assert list(tmp_path.iterdir()) == []


def test_broken_files_are_reported_alike(data_dir):
    broken = data_dir / "MNIST" / "raw" / "train-images-idx3-ubyte"
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(UserError, match="put the unpacked files"):
        get_dataset_class("RotatedMNIST").load(str(data_dir))


def test_archives_that_someone_put_there_are_unpacked(tmp_path, monkeypatch):
    monkeypatch.undo()  # the real function, which leaves the network alone where the archive is there
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for name, content in idx_files().items():
        archive = raw / f"{name}.gz"
        archive.write_bytes(gzip.compress(content))
        resources.append((archive.name, hashlib.md5(archive.read_bytes()).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    images, _ = get_dataset_class("RotatedMNIST").load(str(tmp_path))
    assert images.shape == (60, 28, 28)
    assert {path.name for path in raw.iterdir()} == {*idx_files(), *(f"{name}.gz" for name in idx_files())}
    assert [path.name for path in tmp_path.iterdir()] == ["MNIST"]


def test_other_images_have_another_fingerprint(data_dir):
    def fingerprints():
        return [data.fingerprint for data in get_dataset_class("RotatedMNIST")(str(data_dir), [0], {})]

    before = fingerprints()
    assert fingerprints() == before
    file = data_dir / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert sum(a != b for a, b in zip(before, fingerprints(), strict=True)) == 1


def test_no_generator_moves(data_dir):
    before = torch.get_rng_state()
    get_dataset_class("ColoredMNIST")(str(data_dir), [0], {})
    assert torch.equal(before, torch.get_rng_state())
