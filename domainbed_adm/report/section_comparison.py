"""Is a method better than the baseline, and how far from the published numbers: tables under one selection method."""

from __future__ import annotations

from collections.abc import Collection

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.comparison import comparison_sheet, comparisons
from domainbed_adm.leaderboard.published import published_sheet
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.report.tables import Table, of_sheet

#: What the page compares methods with: SAM, which the curricula were made for, else ERM.
BASELINES = ("SAM", "ERM")


def baseline(names: Collection[str]) -> str | None:
    """The first of ``BASELINES`` among the names; None where there is none."""
    return next((name for name in BASELINES if name in names), None)


def section(board: Board, selection: SelectionMethod) -> tuple[list[Table], list[str]]:
    """Paired comparisons of all methods with the baseline, and ours beside the published numbers.

    Returns:
        The tables, and a line for each that is not there.
    """
    tables, absent = [], []
    base = baseline(board.algorithms)
    methods = [name for name in board.algorithms if name != base]
    if base is None:
        absent.append(f"No comparison: none of {', '.join(BASELINES)} is among the methods.")
    elif not methods:
        absent.append(f"No comparison: {base} is the only method.")
    elif rows := [row for row in comparisons(board, selection, base, methods) if row.difference.n]:
        tables.append(of_sheet(comparison_sheet(board, selection, rows), without=("Baseline",)))
    else:
        absent.append(f"No comparison: no method shares a trial and test environment with {base}.")
    if published := published_sheet(board, selection):
        tables.append(of_sheet(published))
    else:
        absent.append("Nothing here has a published number to stand beside.")
    return tables, absent
