from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.cli import main as cli
from tests.runs import record, write

RECORDS = [record((0.5, 0.5), (0.5, 0.5), test_envs=(env,), dataset="Mine") for env in range(2)]


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for env, one in enumerate(RECORDS):
        write(tmp_path / f"sweep/{env}", one)
    return tmp_path / "sweep"


def test_the_page_is_written_into_the_sweep_and_its_path_printed(sweep: Path, capsys) -> None:
    assert cli(["report", str(sweep)]) == 0
    assert capsys.readouterr() == (f"{sweep}/report.html\n", "")
    text = (sweep / "report.html").read_text(encoding="utf-8")
    assert "<title>Sweep sweep</title>" in text
    assert f"<code>domainbed-adm report {sweep}</code>" in text
    assert cli(["report", str(sweep)]) == 0, "the page is no run of the sweep"


def test_output_title_and_selection(sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "a b.html"
    assert cli(["report", str(sweep), "--output", str(out), "--title", "A & B", "--selection", "oracle"]) == 0
    text = out.read_text(encoding="utf-8")
    assert "<h1>A &amp; B</h1>" in text
    assert f"--output &#39;{out}&#39; --title &#39;A &amp; B&#39;" in text
    assert re.findall(r"<caption><span>(Model .*)</span>", text) == [
        "Model selection: test-domain validation set (oracle)"
    ]
    assert not (sweep / "report.html").exists()


def test_a_title_of_any_bytes_is_written(sweep: Path) -> None:
    assert cli(["report", str(sweep), "--title", "\udc80"]) == 0
    assert r"<h1>\udc80</h1>" in (sweep / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("where", "message"), [("none", "no folder "), ("empty", "found no results.jsonl in ")])
def test_nothing_done_is_one_line_and_exit_code_2(tmp_path: Path, capsys, where: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    assert cli(["report", str(tmp_path / where)]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"domainbed-adm: error: {message}")
    assert errors.count("\n") == 1
    assert not (tmp_path / where / "report.html").exists()


def test_a_file_that_cannot_be_written_is_one_line(sweep: Path, tmp_path: Path, capsys) -> None:
    for output in (tmp_path / "none" / "a.html", tmp_path):
        assert cli(["report", str(sweep), "--output", str(output)]) == 2
        errors = capsys.readouterr().err
        assert errors.startswith("domainbed-adm: error: ")
        assert errors.count("\n") == 1


def test_without_matplotlib_the_extra_is_named(sweep: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert cli(["report", str(sweep)]) == 2
    error = "domainbed-adm: error: figures need matplotlib: pip install matplotlib\n"
    assert capsys.readouterr().err == error


def test_no_torch_is_loaded_where_nothing_was_traced(sweep: Path) -> None:
    code = "import sys; from domainbed_adm.cli import main; main(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code, "report", str(sweep)], check=True, cwd=Path(__file__).parents[2])


def test_help_names_what_the_page_takes_from_the_runs(capsys) -> None:
    with pytest.raises(SystemExit):
        cli(["report", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "comparisons",
        "flatness",
        "landscapes",
        "difficulty",
        "`analyze hessian`",
        "`train --trace_difficulty`",
    ):
        assert part in text
    assert "analyze landscape results/smoke" in text
