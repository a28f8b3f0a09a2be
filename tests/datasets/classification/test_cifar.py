"""CIFAR-10 and CIFAR-100 in both formats: what is read, and one line for each way in which a file can be wrong."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from domainbed_adm.datasets import get_dataset_class
from domainbed_adm.datasets.cards import get_card
from domainbed_adm.datasets.classification.pickles import load_pickle
from domainbed_adm.errors import UserError
from tests.datasets.classification.files import SMALL, binary_records, draw, python2_pickle, write_binary, write_pickles

NAMES = ("CIFAR10", "CIFAR100")
WRITERS = {"directory": write_binary, "other_directory": write_pickles}


def load(name: str, data_dir: Path) -> Any:
    return get_dataset_class(name)(str(data_dir), [1], {})


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", WRITERS)
def test_what_was_written_is_read(tmp_path: Path, name: str, form: str) -> None:
    card = get_card(name)
    written = WRITERS[form](tmp_path / getattr(card, form), name)
    dataset = load(name, tmp_path)
    assert dataset.classes == [f"class_{i}" for i in range(card.num_classes)]
    assert len(dataset[0]) == SMALL * (5 if name == "CIFAR10" else 1)
    assert len(dataset[1]) == SMALL
    for environment, (pixels, labels) in zip(dataset, written.values(), strict=True):
        assert environment.targets.dtype == np.int64
        assert environment.targets.tolist() == labels.tolist()
        for i in (0, len(labels) - 1):
            compact, target = environment.compact_item(i, training=False)
            assert compact.dtype == torch.uint8
            assert compact.is_contiguous()
            assert (compact.numpy() == pixels[i]).all()
            assert target == labels[i]
            mean, std = (np.array(value)[:, None, None] for value in (card.normalization.mean, card.normalization.std))
            np.testing.assert_allclose(environment[i][0].numpy(), (pixels[i] / 255 - mean) / std, atol=1e-5)


@pytest.mark.usefixtures("small")
def test_binary_files_and_pickles_are_the_same_data(tmp_path: Path) -> None:
    for name in NAMES:
        write_binary(tmp_path / "a" / get_card(name).directory, name)
        write_pickles(tmp_path / "b" / get_card(name).other_directory, name)
        first, second = (load(name, tmp_path / folder) for folder in "ab")
        assert [env.fingerprint for env in first] == [env.fingerprint for env in second]
        assert first[0].fingerprint != first[1].fingerprint


def test_the_published_numbers_of_images(tmp_path: Path) -> None:
    """Files of the published sizes, all zeros: 50,000 and 10,000 images of class 0."""
    for name, folder, sizes in (
        ("CIFAR10", "cifar-10-batches-bin", {f"data_batch_{i}.bin": 30_730_000 for i in range(1, 6)}),
        ("CIFAR100", "cifar-100-binary", {"train.bin": 153_700_000}),
    ):
        (tmp_path / folder).mkdir()
        for file, size in {
            **sizes,
            ("test_batch.bin" if name == "CIFAR10" else "test.bin"): sizes_of_test(name),
        }.items():
            (tmp_path / folder / file).touch()
            os.truncate(tmp_path / folder / file, size)
        dataset = load(name, tmp_path)
        assert tuple(map(len, dataset)) == get_card(name).sizes[0] == (50_000, 10_000)
        assert dataset.classes == [str(i) for i in range(get_card(name).num_classes)]


def sizes_of_test(name: str) -> int:
    return 10_000 * (3073 if name == "CIFAR10" else 3074)


def overwrite(path: Path, position: int, value: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] = value
    path.write_bytes(content)


BINARY_FAULTS = {
    "cut": (
        "CIFAR10",
        lambda folder: os.truncate(folder / "data_batch_3.bin", 61_459),
        r"data_batch_3\.bin has 61,459 bytes, 61,460 are expected \(20 records of 3,073\)",
    ),
    "one record more": (
        "CIFAR100",
        lambda folder: (folder / "train.bin").write_bytes(binary_records(*draw(21, 100), draw(21, 100)[1])),
        r"train\.bin has 64,554 bytes, 61,480 are expected",
    ),
    "no file": (
        "CIFAR10",
        lambda folder: (folder / "test_batch.bin").unlink(),
        r"test_batch\.bin cannot be read: No such file",
    ),
    "no files": (
        "CIFAR100",
        lambda folder: [path.unlink() for path in folder.iterdir()],
        r"train\.bin cannot be read: No such file",
    ),
    "label 10": (
        "CIFAR10",
        lambda folder: overwrite(folder / "data_batch_2.bin", 3073 * 7, 10),
        r"data_batch_2\.bin: the label of image 7 is 10, labels are 0 to 9",
    ),
    "fine label 100": (
        "CIFAR100",
        lambda folder: overwrite(folder / "test.bin", 3074 * 2 + 1, 100),
        r"test\.bin: the label of image 2 is 100, labels are 0 to 99",
    ),
    "names": (
        "CIFAR100",
        lambda folder: (folder / "fine_label_names.txt").write_text("apple\n"),
        r"fine_label_names\.txt names 1 classes, 100 are expected",
    ),
    "names of bytes": (
        "CIFAR10",
        lambda folder: (folder / "batches.meta.txt").write_bytes(b"\xff\xfe"),
        r"batches\.meta\.txt cannot be read: 'utf-8' codec",
    ),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fault", BINARY_FAULTS)
def test_a_wrong_binary_file_is_one_line(tmp_path: Path, fault: str) -> None:
    name, damage, message = BINARY_FAULTS[fault]
    folder = tmp_path / get_card(name).directory
    write_binary(folder, name)
    damage(folder)
    assert_refused(name, tmp_path, message)


def test_a_coarse_label_is_not_looked_at(tmp_path: Path, small: None) -> None:
    folder = tmp_path / "cifar-100-binary"
    labels = write_binary(folder, "CIFAR100")["test"][1]
    overwrite(folder / "test.bin", 0, 255)
    assert load("CIFAR100", tmp_path)[1].targets.tolist() == labels.tolist()


def assert_refused(name: str, data_dir: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load(name, data_dir)
    assert "\n" not in str(caught.value)
    assert str(data_dir) in str(caught.value)


class Code:
    """A pickle that runs a program when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


def content(key: str = "labels", **changes: Any) -> dict[str, Any]:
    pixels, labels = draw(SMALL, 10)
    whole = {"data": pixels.reshape(SMALL, -1), key: labels.tolist()} | changes
    return {name: value for name, value in whole.items() if value is not None}


WRONG_PICKLES = {
    "no labels": (content(labels=None), r"has no 'labels', but 'data'"),
    "no pixels": (content(data=None), r"has no 'data', but 'labels'"),
    "a list of pixels": (content(data=[0] * 9), r"'data' is no array but list"),
    "floats": (content(data=np.zeros((SMALL, 3072))), r"its array is of type f8, not of bytes \(u1\)"),
    "too few images": (content(data=np.zeros((19, 3072), np.uint8)), r"'data' has shape \(19, 3072\), \(20, 3072\) is"),
    "another shape": (content(data=np.zeros((SMALL, 3, 32, 32), np.uint8)), r"'data' has shape \(20, 3, 32, 32\)"),
    "too few labels": (content(labels=[1] * 19), r"labels are int64 of shape \(19,\), 20 integers are expected"),
    "no integers": (content(labels=["x"] * SMALL), r"labels are <U1 of shape \(20,\), 20 integers are expected"),
    "none": (content(labels=[None] * SMALL), r"labels are object of shape \(20,\), 20 integers are expected"),
    "ragged": (content(labels=[[1], [1, 2]]), r"labels are float64 of shape \(0,\), 20 integers are expected"),
    "label -1": (content(labels=[0] * 3 + [-1] * 17), r"the label of image 3 is -1, labels are 0 to 9"),
    "label 10": (content(labels=[10] * SMALL), r"the label of image 0 is 10, labels are 0 to 9"),
    "a list": ([1, 2], r"holds no dictionary but list"),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fault", WRONG_PICKLES)
def test_a_wrong_pickle_is_one_line(tmp_path: Path, fault: str) -> None:
    value, message = WRONG_PICKLES[fault]
    folder = tmp_path / "cifar-10-batches-py"
    write_pickles(folder, "CIFAR10")
    (folder / "data_batch_4").write_bytes(python2_pickle(value))
    assert_refused("CIFAR10", tmp_path, message)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("cut", [0, 1, 200, 61_000, -1])
def test_a_cut_pickle_is_one_line(tmp_path: Path, cut: int) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_pickles(folder, "CIFAR10")
    whole = (folder / "test_batch").read_bytes()
    (folder / "test_batch").write_bytes(whole[:cut])
    assert_refused("CIFAR10", tmp_path, r"test_batch cannot be read as a pickle of arrays: ")


@pytest.mark.usefixtures("small")
def test_an_array_whose_bytes_are_cut_is_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    write_pickles(folder, "CIFAR10")
    text = (folder / "test_batch").read_bytes()
    pixels = SMALL * 3072
    short = text.replace(b"T" + pixels.to_bytes(4, "little"), b"T" + (pixels - 1).to_bytes(4, "little"))
    place = short.index(b"T" + (pixels - 1).to_bytes(4, "little")) + 5
    (folder / "test_batch").write_bytes(short[:place] + short[place + 1 :])
    assert_refused("CIFAR10", tmp_path, r"cannot reshape array of size 61439 into shape")


def test_a_pickle_that_wants_to_run_code_runs_none(tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    wanted = {
        "posix.system": pickle.dumps({"data": Code(marker)}),
        "posix.system ": pickle.dumps({"data": Code(marker)}, protocol=0),
        "builtins.eval": b"cbuiltins\neval\n(Vopen('" + str(marker).encode() + b"', 'w')\ntR.",
        "builtins.getattr": b"cbuiltins\ngetattr\n.",
        "numpy.load": b"cnumpy\nload\n.",
        "numpy.core.multiarray.fromfile": b"cnumpy.core.multiarray\nfromfile\n.",
        "numpy.ndarray.tofile": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.",
    }
    for name, text in wanted.items():
        (tmp_path / "data_batch_1").write_bytes(text)
        with pytest.raises(
            UserError, match=f"it asks for {re.escape(name.strip())}, which only a pickle that runs code"
        ):
            load_pickle(tmp_path / "data_batch_1")
    for text in (b"Pa name\n.", b"\x82\x01.", b"cnumpy\nndarray\n(tR."):  # a persistent id, an extension, a call
        (tmp_path / "data_batch_1").write_bytes(text)
        with pytest.raises(UserError, match="cannot be read as a pickle of arrays"):
            load_pickle(tmp_path / "data_batch_1")
    assert not marker.exists()


def test_the_writer_of_pickles_writes_what_python_reads() -> None:
    """So that the tests above stand for real files: pickle itself reads the same from them."""
    written = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [3, 4], "batch_label": "x" * 300}
    read = pickle.loads(python2_pickle(written), encoding="latin1")
    assert read["data"].tolist() == written["data"].tolist()
    assert (read["labels"], read["batch_label"]) == (written["labels"], written["batch_label"])


def test_neither_folder_is_there(tmp_path: Path) -> None:
    assert_refused("CIFAR10", tmp_path, r"dataset CIFAR10: no folder .*cifar-10-batches-bin")
