"""verify_data and download of sets for classification: what is counted, what is named, and where they come from."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from domainbed_adm.cli import main as cli
from domainbed_adm.datasets.cards import CIFAR_CORRUPTIONS, CIFAR_EXTRA, get_card
from domainbed_adm.datasets.classification import verification
from domainbed_adm.datasets.downloading.mirrors import load_sources
from tests.datasets.classification.files import make_small, write_binary, write_corrupted, write_pickles
from tests.datasets.classification.test_fine_grained import WRITERS, written


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def verify(name: str, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    code = cli(["verify_data", "--dataset", name, "--data_dir", str(data_dir)])
    return code, capsys.readouterr().out.splitlines()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("write", [write_binary, write_pickles])
def test_images_are_counted_by_class(tmp_path: Path, capsys: pytest.CaptureFixture[str], write: object) -> None:
    card = get_card("CIFAR10")
    labels = write(tmp_path / (card.directory if write is write_binary else card.other_directory), "CIFAR10")
    code, lines = verify("CIFAR10", tmp_path, capsys)
    assert code == 0
    assert lines[-1] == "CIFAR10: 120 images, 2 environments, 10 classes: nothing wrong"
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["class"] == ["train", "test", "all"]
    train, test = (np.bincount(labels[split][1], minlength=10) for split in ("train", "test"))
    assert rows["class_3"] == [str(train[3]), str(test[3]), str(train[3] + test[3])]
    assert rows["all"] == ["100", "20", "120"]


def test_the_published_files_are_as_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "cifar-100-binary"
    root.mkdir()
    for name, images in (("train", 50_000), ("test", 10_000)):
        with (root / f"{name}.bin").open("wb") as file:
            file.truncate(images * 3074)
    code, lines = verify("CIFAR100", tmp_path, capsys)
    assert code == 0
    assert lines[-1] == "CIFAR100: 60,000 images, as published, 2 environments, 100 classes: nothing wrong"


@pytest.mark.usefixtures("small")
def test_a_wrong_file_is_a_line_and_the_others_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "cifar-10-batches-bin"
    write_binary(root, "CIFAR10")
    (root / "test_batch.bin").write_bytes(b"short")
    (root / "batches.meta.txt").write_text("one")
    code, lines = verify("CIFAR10", tmp_path, capsys)
    assert code == 1
    assert [line for line in lines if line.startswith("broken")] == [
        f"broken: {root}: batches.meta.txt names 1 classes, 10 are expected: get the file anew",
        f"broken: {root}: test_batch.bin has 5 bytes, 61,460 are expected (20 records of 3,073): get it anew",
    ]
    assert lines[-1] == "CIFAR10: 100 images, 2 environments, 10 classes: 2 unreadable, 0 duplicates"


@pytest.fixture
def published(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CIFAR-10-C whose checksums are the published ones."""
    root = tmp_path / "CIFAR-10-C"
    write_corrupted(root, (*CIFAR_CORRUPTIONS, *CIFAR_EXTRA), 10)
    table = {path.stem: hashlib.md5(path.read_bytes()).hexdigest() for path in root.iterdir()}
    (tmp_path / "checksums.yaml").write_text(yaml.safe_dump({"CIFAR-10-C": table}))
    monkeypatch.setattr(verification, "_CHECKSUMS", tmp_path / "checksums.yaml")
    return root


def test_a_corrupted_set_is_counted_by_environment(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, environments in (("CIFAR10C", 75), ("CIFAR10CExtra", 20)):
        code, lines = verify(name, published.parent, capsys)
        assert code == 0
        assert (
            lines[-1] == f"{name}: {20 * environments:,} images, {environments} environments, 10 classes: nothing wrong"
        )
        assert sum(line.split()[-1] == "20" for line in lines if line.strip()) == environments


def test_a_pixel_that_changed_and_a_file_that_is_missing_are_named(
    published: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytearray((published / "fog.npy").read_bytes())
    content[-1] ^= 1
    (published / "fog.npy").write_bytes(content)
    (published / "snow.npy").unlink()
    expected = yaml.safe_load((published.parent / "checksums.yaml").read_text())["CIFAR-10-C"]["fog"]
    found = hashlib.md5(content).hexdigest()
    code, lines = verify("CIFAR10C", published.parent, capsys)
    assert code == 1
    assert [line for line in lines if line.startswith("broken")] == [
        f"broken: {published}: snow.npy cannot be read as an array (.npy): No such file or directory: "
        "get the file anew",
        f"broken: {published / 'fog.npy'}: MD5 {found}, {expected} is published: get the file anew",
    ]


def test_every_file_of_the_corrupted_sets_has_a_checksum() -> None:
    table = yaml.safe_load(verification._CHECKSUMS.read_text())
    names = {"labels", *CIFAR_CORRUPTIONS, *CIFAR_EXTRA}
    assert {folder: set(sums) for folder, sums in table.items()} == {"CIFAR-10-C": names, "CIFAR-100-C": names}
    every = [value for sums in table.values() for value in sums.values()]
    assert len(set(every)) == 40
    assert all(len(value) == 32 and int(value, 16) for value in every)


@pytest.mark.parametrize("name", WRITERS)
def test_fine_grained_images_are_decoded_and_compared_with_the_published_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root = written(name, tmp_path)
    first = sorted(root.rglob("*.jpg"))[0]
    first.write_bytes(b"no image")
    code, lines = verify(name, tmp_path, capsys)
    assert code == 1
    assert any(line.startswith(f"broken: {first}: cannot decode image") for line in lines)
    train, test = get_card(name).sizes[0]
    assert f"{train:,} are published" in "".join(lines)
    assert f"count: {root}: " in "".join(lines)
    assert f"{train + test:,} are published" in "".join(lines)


def test_an_image_that_is_listed_and_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = written("CUB200", tmp_path) / "images" / "001.Bird_1" / "Bird_1_0002_12.jpg"
    gone.unlink()
    code, lines = verify("CUB200", tmp_path, capsys)
    assert code == 1
    assert f"broken: {gone}: cannot be read: No such file or directory" in lines


@pytest.mark.parametrize("name", ["Digits", "DigitsC", "RotatedMNIST"])
def test_what_has_no_folder_cannot_be_verified(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["verify_data", "--dataset", name, "--data_dir", str(tmp_path)]) == 2
    assert f"{name} is no folder of images" in capsys.readouterr().err


@pytest.mark.usefixtures("small")
def test_download_unpacks_an_archive_of_the_authors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_binary(tmp_path / "packed" / "cifar-10-batches-bin", "CIFAR10")
    archive = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "packed" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    flags = ["download", "--dataset", "CIFAR10", "--data_dir", str(tmp_path / "new"), "--archive", str(archive)]
    assert cli(flags) == 2
    found = hashlib.md5(archive.read_bytes()).hexdigest()
    assert f"has the MD5 {found}, c32a1d4ab5d03f1284b67883e8d87530 is expected" in capsys.readouterr().err
    source = {"archives": [{"file": "a.tar.gz", "urls": ["http://127.0.0.1:1/"], "md5": found.upper()}]}
    table = tmp_path / "mirrors.yaml"
    table.write_text(json.dumps({"CIFAR10": {**source, "root": "cifar-10-batches-bin"}}))
    assert cli([*flags, "--mirrors", str(table)]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("120 images, 2 environments, 10 classes: nothing wrong")


def test_cars_are_to_be_had_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["download", "--dataset", "StanfordCars", "--data_dir", str(tmp_path)]
    assert cli(flags) == 2
    told = capsys.readouterr().err
    assert "StanfordCars cannot be fetched: its official links are dead." in told
    assert told.count("\n") == 1
    written("StanfordCars", tmp_path)
    assert cli(flags) == 1  # they are verified: fewer than are published
    assert "is there, nothing fetched" in capsys.readouterr().out


def test_both_names_of_a_corrupted_set_are_one_archive() -> None:
    sources = load_sources([])
    for name in ("CIFAR10C", "CIFAR100C"):
        assert sources[name] == sources[f"{name}Extra"]
        assert sources[name].root == get_card(name).directory == get_card(f"{name}Extra").directory
