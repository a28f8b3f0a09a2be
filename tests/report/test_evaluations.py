"""What ``evaluate`` measured, on the page."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.leaderboard import Board
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from domainbed_adm.report import page, read_sweep
from domainbed_adm.report.section_evaluations import _figure, evaluations
from domainbed_adm.system.figures import COLOURS
from tests.evaluated import add_evaluation, add_run, corrupted

NOW = datetime(2025, 1, 2, 3, 4, tzinfo=timezone.utc)


def test_the_section_has_the_table_and_the_error_by_corruption(tmp_path: Path) -> None:
    for algorithm, error in (("ERM", 0.25), ("SAM", 0.125)):
        folder = add_run(tmp_path, algorithm, 0)
        add_evaluation(folder, "Digits", {"test": (0.9, 0.5, 0.02)})
        add_evaluation(folder, "DigitsC", corrupted(lambda *_, e=error: e))
    (block,) = evaluations(Board(load_runs(tmp_path), []))
    assert block.title == "Trained on Digits"
    assert block.table is not None
    assert [[*row.labels, *(cell.text for cell in row.cells)] for row in block.table.rows] == [
        ["ERM", "90.00", "25.00", "0.5000", "2.00"],
        ["SAM", "90.00", "12.50", "0.5000", "2.00"],
    ]
    assert [cell.value for cell in block.table.rows[1].cells] == [90, 12.5, 0.5, 2]
    (chart,) = block.charts
    assert "pixelate" in chart.svg
    assert "error in %" in chart.svg
    html = _html(tmp_path)
    assert html.count('id="evaluations"') == html.count('href="#evaluations"') == 1
    assert "DigitsC: corruption error" in html


def _html(folder: Path) -> str:
    return page(read_sweep(folder), list(SELECTION_METHODS.values()), "Title", "command", NOW)


def test_without_files_there_is_no_section_and_damaged_ones_are_told(tmp_path: Path) -> None:
    folder = add_run(tmp_path, "ERM", 0)
    assert "evaluations" not in _html(tmp_path)
    (folder / "evaluation_Digits.json").write_text("{")
    html = _html(tmp_path)
    assert 'id="evaluations"' not in html
    assert "evaluation_Digits.json left out: no result of evaluate" in html


def test_the_dots_are_the_errors_of_the_first_methods() -> None:
    errors = {f"m{i}": {"fog": i / 100, "snow": i / 50} for i in range(len(COLOURS) + 2)}
    (axes,) = _figure("CIFAR10C", errors).axes
    assert np.allclose([line.get_xdata() for line in axes.lines], [[i, 2 * i] for i in range(len(COLOURS))])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["fog", "snow"]
    heights = [line.get_ydata() for line in axes.lines]
    assert all(abs(y[k] - k) < 0.26 for y in heights for k in range(2))
