"""The command verify_data: exit codes, one line a fault, JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainbed_adm.cli import main as cli


def flags(data_dir: Path, *more: str) -> list[str]:
    return ["verify_data", "--dataset", "Shapes", "--data_dir", str(data_dir), *more]


def test_a_clean_folder_exits_with_0(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(flags(image_folder)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Shapes: 30 images, 3 domains, 2 classes: nothing wrong"
    rows = [line.split() for line in lines if line.strip()]
    assert ["class", "dark", "light", "tinted", "all"] in rows
    assert ["circle", "5", "5", "5", "15"] in rows
    assert ["all", "10", "10", "10", "30"] in rows


def test_a_fault_is_a_line_and_exit_code_1(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = image_folder / "Shapes" / "dark" / "circle" / "0.jpg"
    bad.write_bytes(b"")
    (bad.parent / ".hidden").touch()
    assert cli(flags(image_folder)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert f"empty: {bad}: file of 0 bytes: remove it or get it anew" in lines
    assert "note: 1 hidden files or folders ignored" in lines
    assert lines[-1].endswith("2 classes: 0 unreadable, 0 duplicates, 1 empty")


def test_json_is_one_report_a_dataset(image_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(flags(image_folder, "--json")) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["dataset"] == "Shapes"
    assert report["counts"]["light"] == {"circle": 5, "square": 5}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--workers", "0"], "--workers must be 1 or more"),
        (["--dataset", "RotatedDigits"], "RotatedDigits is no folder of images"),
        (["--dataset", "Shape"], "Did you mean Shapes?"),
        (["--dataset", "../Shapes"], "dataset must be a known name or the name of one folder"),
        (["--data_dir", "nowhere"], "data_dir nowhere is no folder"),
    ],
)
def test_bad_flags_exit_with_2_and_one_line(
    image_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    try:
        code: object = cli(flags(image_folder, *more))
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
