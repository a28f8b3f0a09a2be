"""``predict``: what training's evaluation saw, whole files, and no code of a file run."""

import os
from pathlib import Path

import pytest
import torch

from domainbed_adm.cli import main
from tests.runs import read_records
from tests.training.test_train import train


def test_predicting_equals_the_evaluation_of_training(tmp_path, image_folder, capsys):
    flags = ["--data_dir", str(image_folder), "--steps", "30", "--holdout_fraction", "0", "--test_envs", "0"]
    assert train(tmp_path, *flags, dataset="Shapes", hparams={"image_size": 28, "lr": 0.01}) == 0
    capsys.readouterr()
    domains = sorted(path for path in (image_folder / "Shapes").iterdir())
    last = read_records(tmp_path)[-1]
    for i, domain in enumerate(domains):
        assert main(["predict", "--model", str(tmp_path / "run/model.pkl"), "--images", str(domain)]) == 0
        rows = [line.split(",") for line in capsys.readouterr().out.splitlines()[1:]]
        right = sum(Path(path).parent.name == predicted for path, predicted, _ in rows)
        assert right / len(rows) == pytest.approx(last[f"env{i}_in_acc"])


def test_predict_writes_a_whole_file_or_none(tmp_path, image_folder, capsys):
    flags = ["--data_dir", str(image_folder), "--steps", "1"]
    assert train(tmp_path, *flags, dataset="Shapes", hparams={"image_size": 28}) == 0
    command = ["predict", "--model", str(tmp_path / "run/model.pkl"), "--images", str(image_folder)]
    output = tmp_path / "predictions.csv"
    assert main([*command, "--output", str(output)]) == 0
    whole = output.read_bytes()
    assert len(whole.splitlines()) == 31
    broken = next(path for path in sorted(image_folder.rglob("*.jpg")))
    broken.write_bytes(b"no image")
    capsys.readouterr()
    assert main([*command, "--output", str(output)]) == 2
    assert str(broken) in capsys.readouterr().err
    assert output.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "predictions.csv", "run"]


@pytest.mark.parametrize(
    ("contents", "message"),
    [(b"no model", "is no file that domainbed-adm saved"), (None, "no file")],
)
def test_predict_refuses_what_is_no_model(tmp_path, capsys, contents, message):
    path = tmp_path / "model.pkl"
    if contents is not None:
        path.write_bytes(contents)
    assert main(["predict", "--model", str(path), "--images", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_predict_executes_nothing(tmp_path, capsys):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    torch.save({"args": Evil()}, tmp_path / "model.pkl")
    assert main(["predict", "--model", str(tmp_path / "model.pkl"), "--images", str(tmp_path)]) == 2
    assert "is no file that domainbed-adm saved" in capsys.readouterr().err
    assert not (tmp_path / "executed").exists()
