"""Is a method better than the baseline, and how far from the published numbers: tables under one selection method."""

from __future__ import annotations

from dataclasses import dataclass

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.paired import comparison_sheet, comparisons
from domainbed_adm.leaderboard.published import published_sheet
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.report.baseline import BASELINES, baseline
from domainbed_adm.report.section_leaderboard import Table, of_listing


@dataclass(frozen=True)
class Statistics:
    """The section: its tables, and a line for each that is not there."""

    tables: list[Table]
    absent: list[str]


def section(board: Board, selection: SelectionMethod) -> Statistics:
    """Paired comparisons of all methods with the baseline, and ours beside the published numbers."""
    statistics = Statistics([], [])
    base = baseline(board.algorithms)
    methods = [name for name in board.algorithms if name != base]
    if base is None:
        statistics.absent.append(f"No comparison: none of {', '.join(BASELINES)} is among the methods.")
    elif not methods:
        statistics.absent.append(f"No comparison: {base} is the only method.")
    elif rows := [row for row in comparisons(board, selection, base, methods) if row.difference.n]:
        statistics.tables.append(of_listing(comparison_sheet(board, selection, rows), without=("Baseline",)))
    else:
        statistics.absent.append(f"No comparison: no method shares a trial and test environment with {base}.")
    if published := published_sheet(board, selection):
        statistics.tables.append(of_listing(published))
    else:
        statistics.absent.append("Nothing here has a published number to stand beside.")
    return statistics
