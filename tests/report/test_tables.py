"""Tables of the page."""

from __future__ import annotations

import pytest

from domainbed_adm.leaderboard import Board, domainbed_sheets
from domainbed_adm.leaderboard.layouts import Sheet
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.report.tables import Cell, of_sheet
from tests.runs import as_runs, record

ORACLE = SELECTION_METHODS["oracle"]


def cells(trials: int) -> list[list[Cell]]:
    records = [
        record((accuracy + trial / 10, 0.5), (0.5, 0.5), algorithm=algorithm, trial_seed=trial)
        for algorithm, accuracy in (("ERM", 0.5), ("SAM", 0.6))
        for trial in range(trials)
    ]
    sheet = domainbed_sheets(Board(as_runs(*records), [ORACLE]), ORACLE)[0]
    return [list(row.cells) for row in of_sheet(sheet).rows]


def test_the_best_is_marked_and_what_is_not_known_has_no_value() -> None:
    erm, sam = cells(trials=3)
    assert (erm[0].text, erm[0].best, sam[0].text, sam[0].best) == ("60.0 ± 4.7", False, "70.0 ± 4.7", True)
    assert sam[0].value == pytest.approx(70)
    assert sam[1] == Cell("–")


def test_one_trial_has_no_error() -> None:
    assert [row[0].text for row in cells(trials=1)] == ["50.0", "60.0"]


def test_written_cells_sort_by_their_number_where_the_whole_column_has_one() -> None:
    rows = (("PACS", "SAM", "+1.2", "-0.5 to +0.1", "<0.0001", "81.2±0.3", "few"), ("VLCS", "SAM", *"--X-", "2"))
    table = of_sheet(Sheet("t", ("Dataset", "Baseline"), tuple("abcde"), rows, "n"), without=("Baseline",))
    assert table.labels == ["Dataset"]
    first, second = table.rows
    assert first.labels == ["PACS"]
    assert [cell.value for cell in first.cells] == [1.2, -0.5, 0.0001, 81.2, None]
    assert [cell.text for cell in second.cells] == ["–", "–", "–", "–", "2"]
    assert [cell.number for cell in first.cells] == [True] * 4 + [False]
