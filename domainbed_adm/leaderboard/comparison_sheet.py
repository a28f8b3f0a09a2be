"""Comparisons as a table, and as rows for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.comparison import LEVEL, PairedDifference, smallest_p
from domainbed_adm.leaderboard.footnotes import selection_line
from domainbed_adm.leaderboard.origins import versions
from domainbed_adm.leaderboard.paired import ALL, Comparison
from domainbed_adm.leaderboard.sheets import Listing
from domainbed_adm.model_selection import SelectionMethod

_CORRECTED, _REMARK = "p (Benjamini-Hochberg)", "remark"
#: Fewest environments that differ for which p can be below ``LEVEL``.
_FEWEST = next(n for n in range(1, 99) if smallest_p(n) < LEVEL)
_INTERVAL = "95 %, Student's t over test environments"


def comparison_sheet(board: Board, selection: SelectionMethod, comparisons: Sequence[Comparison]) -> Listing:
    """The table of ``paired.comparisons``; corrected p only where there are several, remarks where there is one."""
    columns = ["pairs", "environments", "difference", "95 % interval", "coverage", "p", _CORRECTED, _REMARK]
    rows = [dict(zip(columns, _cells(row), strict=True)) for row in comparisons]
    if family_size(comparisons) < 2:
        columns.remove(_CORRECTED)
    if not any(row[_REMARK] for row in rows):
        columns.remove(_REMARK)
    return Listing(
        f"Comparison with {comparisons[0].baseline}, model selection method: {selection.name}",
        ("Dataset", "Method", "Baseline"),
        tuple(columns),
        tuple(
            (one.dataset, one.method, one.baseline, *(row[column] for column in columns))
            for one, row in zip(comparisons, rows, strict=True)
        ),
        _note(board, selection, comparisons),
        prose=(_REMARK,) if _REMARK in columns else (),
    )


def _cells(row: Comparison) -> tuple[str, ...]:
    difference = row.difference
    return (
        str(difference.n),
        str(difference.n_environments),
        "-" if difference.mean is None else f"{difference.mean:+.2f}",
        "{:+.2f} to {:+.2f}".format(*difference.interval) if difference.interval else "-",
        coverage_text(difference) or "-",
        _p_text(difference.p),
        _p_text(row.corrected),
        "; ".join(difference.remarks),
    )


def coverage_text(difference: PairedDifference) -> str:
    """The simulated coverage of its interval, "89 to 96 %"; "" without an interval."""
    return "{:.0f} to {:.0f} %".format(*difference.coverage) if difference.coverage else ""


def _p_text(p: float | None) -> str:
    return "-" if p is None else "<0.0001" if p < 0.0001 else f"{p:.2g}"


def family_size(comparisons: Sequence[Comparison]) -> int:
    """Number of p that are corrected together."""
    return sum(row.difference.p is not None for row in comparisons)


def _note(board: Board, selection: SelectionMethod, comparisons: Sequence[Comparison]) -> str:
    baseline, size = comparisons[0].baseline, family_size(comparisons)
    left_out = sum(row.left_out for row in comparisons if row.dataset != ALL)
    all_rows = f" and the rows of {ALL}" if any(row.dataset == ALL for row in comparisons) else ""
    correction = (
        f"Corrected by Benjamini and Hochberg over the {size} p of this table, every method and dataset{all_rows}."
    )
    return (
        f"Difference: method - {baseline} in percentage points. Pairs of the same trial seed and test environment are "
        "averaged over trials within an environment, then over environments, each counting the same; "
        f"{left_out} left out because one side lacks them. Interval: Student's t over environments, "
        "as if these were drawn at random. Coverage: how often such an interval holds the mean, simulated for as many "
        "environments, the lowest and highest of normal, heavy-tailed and skewed differences "
        "(benchmarks/interval_coverage.py). p: Wilcoxon's signed-rank test, two-sided, over the environments that "
        f"differ; fewer than {_FEWEST} cannot give p below {LEVEL} and have none. "
        f"{f'{correction} ' if size > 1 else ''}"
        f"{selection_line(selection)} {board.sweep_line}"
    )


def comparison_rows(
    board: Board, selection: SelectionMethod, comparisons: Sequence[Comparison]
) -> list[dict[str, Any]]:
    """A row for each comparison: differences in percentage points, coverage in %, None where the table has "-"."""
    return [
        {
            "selection": selection.key,
            "dataset": row.dataset,
            "method": row.method,
            "baseline": row.baseline,
            "n": row.difference.n,
            "n_environments": row.difference.n_environments,
            "left_out": row.left_out,
            "mean_difference": row.difference.mean,
            "low": row.difference.interval[0] if row.difference.interval else None,
            "high": row.difference.interval[1] if row.difference.interval else None,
            "coverage_low": row.difference.coverage[0] if row.difference.coverage else None,
            "coverage_high": row.difference.coverage[1] if row.difference.coverage else None,
            "p": row.difference.p,
            "p_benjamini_hochberg": row.corrected,
            "corrected_over": family_size(comparisons),
            "remark": "; ".join(row.difference.remarks),
            "interval": _INTERVAL,
            "test": "Wilcoxon signed-rank, two-sided, over test environments",
            "selection_splits": selection.splits,
            "versions": versions(board.runs),
        }
        for row in comparisons
    ]
