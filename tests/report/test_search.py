"""The page's section on a search, and what tables say of one."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from domainbed_adm.cli import main
from domainbed_adm.leaderboard import Board
from domainbed_adm.records import load_runs
from domainbed_adm.run_files import JOURNAL, PRUNED
from domainbed_adm.sweeping.jobs import Job
from tests.sweeping.searching import FLAGS, stand_in

pytest.importorskip("optuna", reason="the extra [search]")
SPACE = '{"lr": {"low": 1e-4, "high": 1e-2, "log": true}, "rho": {"low": 0.1, "high": 0.2}, "nesterov": [true, false]}'


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """A search of eight trials, of which the last counts as stopped early."""
    monkeypatch.setattr(Job, "command", stand_in())
    flags = ["--search_space", SPACE, "--n_trials", "8", "--sampler", "random", "--jobs", "2", "--prune"]
    assert main(["search", *FLAGS, *flags, "--output_dir", str(tmp_path)]) == 0
    capsys.readouterr()
    return tmp_path


def pruned(study: Path) -> str:
    """Make one run a pruned one, where none is, and return its folder's name."""
    marked = [path.parent.name for path in study.glob(f"*/{PRUNED}")]
    if not marked:
        run = next(study.glob("*/done")).parent
        (run / "done").unlink()
        (run / PRUNED).write_text("{}")
        marked = [run.name]
    return marked[0]


def section(page: str) -> str:
    found = re.search(r'<section id="search">.*?</section>', page, re.DOTALL)
    assert found
    return found[0]


def test_the_page_shows_history_importance_and_parallel_coordinates(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = pruned(study)
    assert main(["report", str(study)]) == 0
    assert capsys.readouterr().err == ""
    page = (study / "report.html").read_text()
    shown = section(page)
    assert shown.count("<svg") == 3
    for title in ("Trials", "Importance", "Parallel coordinates", "Best trials", "nesterov", "fANOVA"):
        assert title in shown
    assert "were searched: random, 8 trials" in shown
    assert '<a href="#search">' in page
    assert re.search(r"<strong>\d</strong> stopped early", page)
    missing = page[page.index('<section id="missing">') :].partition("</section>")[0]
    assert name not in missing
    assert "Not in the records" not in missing


def test_tables_say_that_hparams_were_searched_and_runs_stopped(
    study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pruned(study)
    assert main(["collect_results", "--input_dir", str(study), "--missing"]) == 0
    told = capsys.readouterr().err
    assert "Hparams of SAM on RotatedDigits were searched: random, 8 trials" in told
    assert re.search(r"\d of its 8 runs were stopped early \(--prune\)", told)
    assert told.endswith("nothing is missing\n")
    board = Board(load_runs(study), [])
    assert "were searched: random, 8 trials" in board.sweep_line


def test_a_search_that_cannot_be_read_is_left_out_with_a_warning(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "optuna", None)
        assert main(["report", str(study)]) == 0
    assert "the search is left out: a search needs Optuna" in capsys.readouterr().err
    (study / JOURNAL).write_text(json.dumps({"op_code": 99}) + "\n\n")
    assert main(["report", str(study)]) == 0
    assert "is no journal of Optuna" in capsys.readouterr().err
    assert '<section id="search">' not in (study / "report.html").read_text()
