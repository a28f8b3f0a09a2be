"""A run from files in the official formats: CIFAR in both, a corrupted set, image files of an official split."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainbed_adm.cli import main as cli
from domainbed_adm.datasets.cards import CIFAR_EXTRA, get_card
from tests.datasets.classification.files import write_binary, write_corrupted, write_pickles
from tests.datasets.classification.test_fine_grained import written
from tests.runs import read_records


def train(dataset: str, data_dir: Path, *more: str, **hparams: object) -> list[dict]:
    given = json.dumps({"batch_size": 4, **hparams})
    flags = ["--dataset", dataset, "--data_dir", str(data_dir), "--algorithm", "SAM_SSPL_ADM", "--steps", "2"]
    output = data_dir / "run" / dataset
    assert cli(["train", *flags, "--hparams", given, "--output_dir", str(output), "--skip_model_save", *more]) == 0
    return read_records(output)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "write"), [("CIFAR10", write_binary), ("CIFAR100", write_pickles)])
def test_cifar_trains_with_its_own_normalisation(tmp_path: Path, name: str, write: object) -> None:
    card = get_card(name)
    write(tmp_path / (card.directory if write is write_binary else card.other_directory), name)
    for record in train(name, tmp_path):
        assert record["hparams"]["input_std"] == list(card.normalization.std)
        assert (record["env1_in_acc"] * 20) % 1 == pytest.approx(0, abs=1e-9)
        assert record["env1_out_acc"] is None
        assert record["provenance"]["samples"] == [100 if name == "CIFAR10" else 20, 20]


@pytest.mark.usefixtures("small")
def test_a_corrupted_set_is_evaluated_whole_environment_by_environment(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin", "CIFAR10")
    write_corrupted(tmp_path / "CIFAR-10-C", CIFAR_EXTRA, 10)
    last = train("CIFAR10CExtra", tmp_path)[-1]
    assert last["args"]["test_envs"] == list(range(1, 21))
    assert all(last[f"env{i}_out_acc"] is None and 0 <= last[f"env{i}_in_acc"] <= 1 for i in range(1, 21))
    assert last["provenance"]["environments"][:2] == ["train", "speckle_noise-1"]


@pytest.mark.parametrize("more", [(), ("--cache",)])
def test_image_files_of_an_official_split_train(tmp_path: Path, more: tuple[str, ...]) -> None:
    written("CUB200", tmp_path)
    last = train("CUB200", tmp_path, *more, "--workers", "0", image_size=32, image_channels=3)[-1]
    assert last["provenance"]["samples"] == [3, 3]
    assert last["env1_in_acc"] * 3 == pytest.approx(round(last["env1_in_acc"] * 3))


@pytest.mark.usefixtures("small")
def test_a_damaged_file_is_one_line_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin", "CIFAR10")
    (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").write_bytes(b"")
    flags = ["--dataset", "CIFAR10", "--data_dir", str(tmp_path), "--output_dir", str(tmp_path / "run")]
    assert cli(["train", *flags]) == 2
    told = capsys.readouterr().err
    assert told.startswith("domainbed-adm: error: ")
    assert "test_batch.bin has 0 bytes" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "run").exists()
