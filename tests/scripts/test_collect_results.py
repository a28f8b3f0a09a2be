from __future__ import annotations

import csv
import io
import json
import pty
import re
import subprocess
import sys
from os import close, read
from pathlib import Path

import pytest

from domainbed_adm.cli import main as cli
from tests.runs import DATA, record, write

SWEEP = DATA / "domainbed_sweep"


@pytest.fixture
def smoke(tmp_path: Path) -> Path:
    """ERM and SAM_SSPL_ADM on two environments, single test environments only."""
    for algorithm, accuracy in (("ERM", 0.5), ("SAM_SSPL_ADM", 0.75)):
        for env in range(2):
            one = record((accuracy, 0.5), (accuracy, 0.5), test_envs=(env,), algorithm=algorithm, dataset="Mine")
            write(tmp_path / f"{algorithm}{env}", one)
    return tmp_path


def collect(capsys: pytest.CaptureFixture[str], folder: Path, *flags: str) -> tuple[str, str]:
    assert cli(["collect_results", "--input_dir", str(folder), *flags]) == 0
    return tuple(capsys.readouterr())


def test_default_output_is_domainbeds_to_the_byte(capsys: pytest.CaptureFixture[str]) -> None:
    assert collect(capsys, SWEEP) == ((DATA / "domainbed_sweep_tables.txt").read_text(), "")


def test_missing_numbers_are_x_and_explained_on_the_error_stream(
    smoke: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, errors = collect(capsys, smoke)
    assert "ERM                   X                     X                     X                    \n" in out
    assert errors.count("\n") == 1
    assert errors.startswith(
        "warning: leave-one-domain-out cross-validation: no number for ERM on Mine, SAM_SSPL_ADM on"
    )


def test_one_selection_method_only(capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = collect(capsys, SWEEP, "--selection", "oracle")
    assert "oracle" in out
    assert "training-domain" not in out


def test_csv_and_json_are_alone_on_the_output(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    as_json, _ = collect(capsys, smoke, "--json")
    as_csv, errors = collect(capsys, smoke, "--csv")
    rows = json.loads(as_json)
    assert len(rows) == len(list(csv.DictReader(io.StringIO(as_csv)))) == 3 * 2 * 2
    assert errors


def test_latex_of_both_layouts(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = collect(capsys, smoke, "--latex", "--selection", "oracle")
    assert r"SAM\_SSPL\_ADM & \textbf{75.0 $\pm$ 0.0}" in out
    out, _ = collect(capsys, smoke, "--latex", "--layout", "paper", "--selection", "oracle")
    assert r"SAM & SSPL & ADM & \textbf{75.00} & \textbf{75.00} \\" in out


def test_paper_layout_prints_rows_and_a_note(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = collect(capsys, smoke, "--layout", "paper", "--selection", "training-domain")
    rows = [line.split() for line in out.splitlines()]
    assert ["Opt.", "Curr.", "Diff.", "Mine", "Avg"] in rows
    assert ["Adam", "ERM", "-", "50.00", "50.00"] in rows
    assert ["SAM", "SSPL", "ADM", "75.00", "75.00"] in rows
    assert out.splitlines()[-1].startswith("Selected by training-domain validation set: out-splits of the source")
    assert "\x1b" not in out


def test_paper_layout_sets_the_best_in_bold_on_a_terminal(smoke: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "domainbed_adm.scripts.collect_results", "--input_dir", str(smoke)]
    environment = {"PATH": "/usr/bin:/bin", "TERM": "xterm", "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([*command, "--layout", "paper", "--selection", "oracle"], stdout=theirs, env=environment, check=True)
    close(theirs)
    shown = read(ours, 65536).decode()
    close(ours)
    bold = re.findall(r"\x1b\[1m([0-9.±]+)", shown)
    assert bold == ["75.00", "75.00"]
    assert "50.00" in shown


def test_no_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["collect_results", "--input_dir", str(tmp_path / "none")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"domainbed-adm: error: no folder {tmp_path}/none: --input_dir is")
    assert errors.count("\n") == 1


def test_one_format_at_a_time() -> None:
    with pytest.raises(SystemExit) as caught:
        cli(["collect_results", "--input_dir", "x", "--csv", "--json"])
    assert caught.value.code == 2
