"""Where predictions go: a file, a pipe, or the standard output, whatever the images are called."""

import io
import os
import sys
import threading

import pytest
from PIL import Image

from domainbed_adm.cli import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    flags = ["--dataset", "Debug28", "--steps", "1", "--hparams", '{"cnn_width": 8, "batch_size": 4}']
    assert main(["train", *flags, "--output_dir", str(folder)]) == 0
    return folder / "model.pkl"


@pytest.fixture
def command(tmp_path, model):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (28, 28)).save(tmp_path / "images/a.png")
    return ["predict", "--model", str(model), "--images", str(tmp_path / "images")]


def test_a_pipe_gets_the_rows_and_stays(tmp_path, command):
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    assert main([*command, "--output", str(pipe)]) == 0
    reader.join(5)
    assert [line.split(",")[0] for line in read[0].splitlines()] == ["path", str(tmp_path / "images/a.png")]
    assert pipe.is_fifo()


def test_a_folder_that_is_not_there_is_one_line(tmp_path, command, capsys):
    output = tmp_path / "nowhere/predictions.csv"
    assert main([*command, "--output", str(output)]) == 2
    assert capsys.readouterr().err == f"domainbed-adm: error: cannot write {output}: No such file or directory\n"


def test_a_name_that_is_no_utf8_is_escaped(tmp_path, command, monkeypatch):
    images = tmp_path / "images"
    (images / "a.png").rename(images / "caf\udce9.png")
    output = tmp_path / "predictions.csv"
    assert main([*command, "--output", str(output)]) == 0
    strict = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", strict)
    assert main(command) == 0
    assert output.read_bytes() == strict.buffer.getvalue()
    assert output.read_text(encoding="utf-8").splitlines()[1].startswith(rf"{images}/caf\udce9.png,")


def test_what_macos_leaves_and_folders_named_as_images_are_none(tmp_path, command, capsys):
    (tmp_path / "images/._a.png").write_bytes(b"\0\5\x16\7")
    (tmp_path / "images/x.jpg").mkdir()
    assert main(command) == 0
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()[1:]] == [str(tmp_path / "images/a.png")]
