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
    assert errors.count("\n") == 2
    assert errors.startswith(
        "warning: leave-one-domain-out cross-validation: no number for ERM on Mine, SAM_SSPL_ADM on"
    )
    assert "warning: one trial: +/- 0.0, as DomainBed prints it, is no error" in errors


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
    assert r"SAM\_SSPL\_ADM & \textbf{75.0} &" in out
    out, _ = collect(capsys, smoke, "--latex", "--layout", "paper", "--selection", "oracle")
    assert r"SAM & SSPL & ADM & \textbf{75.00} & \textbf{75.00} \\" in out


def test_paper_layout_prints_rows_and_a_note(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = collect(capsys, smoke, "--layout", "paper", "--selection", "training-domain")
    rows = [line.split() for line in out.splitlines()]
    assert ["Method", "Opt.", "Curr.", "Diff.", "Mine", "Avg"] in rows
    assert ["ERM", "Adam", "-", "-", "50.00", "50.00"] in rows
    assert ["SAM_SSPL_ADM", "SAM", "SSPL", "ADM", "75.00", "75.00"] in rows
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
    assert errors.startswith(f"domainbed-adm: error: no folder {tmp_path}/none: give the output_dir")
    assert errors.count("\n") == 1


def test_one_format_at_a_time() -> None:
    with pytest.raises(SystemExit) as caught:
        cli(["collect_results", "--input_dir", "x", "--csv", "--json"])
    assert caught.value.code == 2


PAIR = ("--compare", "ERM", "SAM_SSPL_ADM")


def test_compare_is_a_table_after_the_others(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, _ = collect(capsys, smoke)
    out, _ = collect(capsys, smoke, *PAIR)
    assert out.startswith(before)
    assert out.count("Comparison with ERM, model selection method: ") == 3
    out, _ = collect(capsys, smoke, *PAIR, "--layout", "paper", "--selection", "oracle")
    rows = [line.split() for line in out.splitlines()]
    assert ["Mine", "SAM_SSPL_ADM", "ERM", "2", "2", "+25.00", "-", "-", "-", "all"] in [row[:10] for row in rows]
    out, _ = collect(capsys, smoke, *PAIR, "--latex", "--selection", "oracle")
    assert (
        r"Mine & SAM\_SSPL\_ADM & ERM & 2 & 2 & +25.00 & - & - & - & all environments differ by the same: no interval;"
        in out
    )


def test_compare_as_csv_and_json_has_its_own_rows(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(collect(capsys, smoke, *PAIR, "--json")[0])
    lines = list(csv.DictReader(io.StringIO(collect(capsys, smoke, *PAIR, "--csv")[0])))
    assert [row["selection"] for row in rows] == ["training-domain", "leave-one-domain-out", "oracle"]
    assert [line["mean_difference"] for line in lines] == ["25.0", "", "25.0"]
    assert [row["n"] for row in rows] == [2, 0, 2]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--compare", "ERM"], "--compare needs two algorithms or more, the baseline first"),
        (["--compare", "ERM", "ERM"], "--compare has ERM twice"),
        (["--compare", "ERM", "SAM_SSPL"], "unknown algorithm 'SAM_SSPL'. Did you mean SAM_SSPL_ADM? Valid: ERM, SAM"),
        ([*PAIR, "--selection", "leave-one-domain-out"], "SAM_SSPL_ADM and ERM have no accuracy of the same dataset"),
        ([*PAIR, "--with-published", "--csv"], "--compare and --with-published make different rows"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    smoke: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    assert cli(["collect_results", "--input_dir", str(smoke), *flags]) == 2
    out, errors = capsys.readouterr()
    assert out == ""
    assert message in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("flag", ["--with-published", "--with_published"])
def test_published_numbers_are_a_table_after_the_others(capsys: pytest.CaptureFixture[str], flag: str) -> None:
    out, errors = collect(capsys, SWEEP, flag)
    assert out.startswith((DATA / "domainbed_sweep_tables.txt").read_text())
    assert out.count("Ours and published, model selection method: ") == 3
    assert ["VLCS", "ERM", "78.34±0.01", "2", "75.35±1.02", "+2.99", "not", "comparable:", "1001", "steps"] in [
        line.split() for line in out.splitlines()
    ]
    assert errors == ""
    assert (
        r"VLCS & ERM & 78.34$\pm$0.01 & 2 & 75.35$\pm$1.02 & +2.99 & not comparable: 1001 steps \\"
        in collect(capsys, SWEEP, flag, "--latex")[0]
    )
    rows = json.loads(collect(capsys, SWEEP, flag, "--json", "--selection", "oracle")[0])
    assert [(row["environment"], row["published"]) for row in rows[-2:]] == [("V", None), ("Avg", 75.35)]


def test_without_published_numbers_tables_are_as_before(smoke: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, warned = collect(capsys, smoke)
    line = (
        "warning: no published numbers for Mine; there are for PACS, VLCS, OfficeHome, TerraIncognita, StanfordCars, "
    )
    line += "FGVCAircraft, CUB200, Food101, CIFAR100, CIFAR10\n"
    assert collect(capsys, smoke, "--with-published") == (before, line + warned)


def test_runs_that_saw_other_data_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trial, samples in enumerate(([10, 9], [10, 9], [10, 8], None, "10")):
        made = [
            record((0.5, 0.5), (0.5, 0.5), step=step, trial_seed=trial, provenance={"samples": samples})
            for step in (0, 1)
        ]
        write(tmp_path / str(trial), *made)
    assert cli(["collect_results", "--input_dir", str(tmp_path)]) == 0
    told = capsys.readouterr().err
    assert (
        "warning: runs on PACS saw different data, images of each environment: 10 9 (2 runs); 10 8 (1 runs)\n" in told
    )
