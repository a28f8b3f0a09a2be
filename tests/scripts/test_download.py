"""The command download: fetch, unpack, verify, over a server that drops connections."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from domainbed_adm.cli import main as cli
from tests.datasets.downloading.server import Page, serving


@pytest.fixture
def archive(image_folder: Path) -> bytes:
    """The zip of a folder dataset, its top folder named otherwise."""
    root = image_folder / "Shapes"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path in sorted(root.rglob("*.*")):
            file.write(path, Path("packed") / path.relative_to(root))
    return buffer.getvalue()


def mirrors(folder: Path, *urls: str) -> str:
    table = {"Shapes2": {"archives": [{"file": "shapes.zip", "urls": urls}], "root": "packed"}}
    (folder / "mirrors.yaml").write_text(json.dumps(table))
    return str(folder / "mirrors.yaml")


def flags(folder: Path, table: str, *more: str) -> list[str]:
    return ["download", "--dataset", "Shapes2", "--data_dir", str(folder / "new"), "--mirrors", table, *more]


def test_download_ends_in_verify_data(
    tmp_path: Path, archive: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr("domainbed_adm.datasets.downloading.mirrors._sleep", lambda seconds: None)
    page = Page(archive, statuses=[503])
    with serving({"/s.zip": page}) as address:
        table = mirrors(tmp_path, f"{address}/gone.zip", f"{address}/s.zip")
        assert cli(flags(tmp_path, table)) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith("30 images, 3 domains, 2 classes: nothing wrong")
        assert cli(flags(tmp_path, table)) == 0
    assert "is there, nothing fetched" in capsys.readouterr().out
    assert page.asked == [None, None]


def test_a_fault_in_what_was_fetched_is_exit_code_1(
    tmp_path: Path, archive: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "s.zip", "w") as file:
        for name in ("one", "two"):
            file.writestr(f"packed/{name}/class/a.png", f"no image {name}")
    assert cli(flags(tmp_path, mirrors(tmp_path, "http://127.0.0.1:1/"), "--archive", str(tmp_path / "s.zip"))) == 1
    assert capsys.readouterr().out.count("broken: ") == 2


def test_a_site_that_asks_for_a_confirmation_says_what_to_do(
    tmp_path: Path, archive: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    page = Page(b"<html>Virus scan warning</html>", headers={"Content-Type": "text/html; charset=utf-8"})
    with serving({"/s.zip": page}) as address:
        table = mirrors(tmp_path, f"{address}/s.zip")
        assert cli(flags(tmp_path, table)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{address}/s.zip: shapes.zip is a web page" in error
    assert "fetch the file with a browser and give it as --archive shapes.zip" in error
    (tmp_path / "shapes.zip").write_bytes(archive)
    assert cli(flags(tmp_path, table, "--archive", str(tmp_path / "shapes.zip"))) == 0


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset", "PAX"], "unknown dataset in the table of mirrors 'PAX'. Did you mean PACS?"),
        (["--dataset", "PACS", "VLCS", "--archive", "a.zip"], "--archive goes with one --dataset"),
        (["--retries", "0"], "--retries and --workers must be 1 or more"),
        (["--data_dir", "~nobody-of-this-name/data"], "~nobody-of-this-name/data: there is no such user"),
        (["--mirrors", "gone.yaml"], "mirrors gone.yaml cannot be read"),
        (["--archive", "gone.zip"], "no file gone.zip: --archive is the archive shapes.zip"),
        (["--data_dir", "/dev/null/x"], "data_dir /dev/null/x cannot be made: Not a directory"),
    ],
)
def test_bad_flags_exit_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    try:
        code: object = cli(flags(tmp_path, mirrors(tmp_path, "http://127.0.0.1:1/"), *more))
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
