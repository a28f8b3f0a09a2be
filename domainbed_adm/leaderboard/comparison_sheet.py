"""Comparisons as a table, and as rows for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.comparison import RESAMPLES, SEED
from domainbed_adm.leaderboard.footnotes import selection_line
from domainbed_adm.leaderboard.origins import versions
from domainbed_adm.leaderboard.paired import ALL, Comparison
from domainbed_adm.leaderboard.sheets import Listing
from domainbed_adm.model_selection import SelectionMethod

_CORRECTED = "p (Benjamini-Hochberg)"
_REMARK = "remark"


def comparison_sheet(board: Board, selection: SelectionMethod, found: Sequence[Comparison]) -> Listing:
    """The table of what ``comparisons`` found; a corrected p only where there are several."""
    corrected = (_CORRECTED,) if family_size(found) > 1 else ()
    remark = (_REMARK,) if any(one.difference.remarks for one in found) else ()
    rows = []
    for one in found:
        difference = one.difference
        cells = [one.dataset, one.method, one.baseline, str(difference.n), _signed(difference.mean)]
        cells += [
            "-" if difference.interval is None else f"{difference.interval[0]:+.2f} to {difference.interval[1]:+.2f}"
        ]
        cells += [_probability(difference.p), *(_probability(one.corrected) for _ in corrected)]
        rows.append((*cells, *("; ".join(difference.remarks) for _ in remark)))
    return Listing(
        f"Comparison with {found[0].baseline}, model selection method: {selection.name}",
        ("Dataset", "Method", "Baseline"),
        ("pairs", "difference", "95 % interval", "p", *corrected, *remark),
        tuple(rows),
        _note(board, selection, found),
        prose=remark,
    )


def family_size(found: Sequence[Comparison]) -> int:
    """Number of p that are corrected together."""
    return sum(one.difference.p is not None for one in found)


def _signed(number: float | None) -> str:
    return "-" if number is None else f"{number:+.2f}"


def _probability(p: float | None) -> str:
    return "-" if p is None else "<0.0001" if p < 0.0001 else f"{p:.4f}"


def _note(board: Board, selection: SelectionMethod, found: Sequence[Comparison]) -> str:
    baseline, size = found[0].baseline, family_size(found)
    left_out = sum(one.left_out for one in found if one.dataset != ALL)
    family = (
        f"Corrected by Benjamini and Hochberg over the {size} p of this table, every method and dataset"
        f"{f' and the rows of {ALL}' if any(one.dataset == ALL for one in found) else ''}. "
    )
    return (
        f"Difference: method - {baseline} in percentage points, mean over pairs of the same trial seed and test "
        f"environment, each pair counting the same; {left_out} left out because one side lacks them. "
        f"Interval: BCa bootstrap over pairs ({RESAMPLES} resamples, seed {SEED}). "
        "p: Wilcoxon's signed-rank test, two-sided, over the pairs that differ; fewer than 6 of them cannot give p "
        f"below 0.05. {family if size > 1 else ''}"
        "Pairs that share a test environment are not independent: p is too small and the interval too narrow, the "
        f"interval also where pairs are few. {selection_line(selection)} {board.sweep_line}"
    )


def comparison_rows(board: Board, selection: SelectionMethod, found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A row for each comparison: differences in percentage points, None where the table has "-"."""
    return [
        {
            "selection": selection.key,
            "dataset": one.dataset,
            "method": one.method,
            "baseline": one.baseline,
            "n": one.difference.n,
            "left_out": one.left_out,
            "mean_difference": one.difference.mean,
            "low": one.difference.interval[0] if one.difference.interval else None,
            "high": one.difference.interval[1] if one.difference.interval else None,
            "p": one.difference.p,
            "p_benjamini_hochberg": one.corrected,
            "corrected_over": family_size(found),
            "remark": "; ".join(one.difference.remarks),
            "interval": f"95 %, BCa bootstrap, {RESAMPLES} resamples, seed {SEED}",
            "test": "Wilcoxon signed-rank, two-sided",
            "selection_splits": selection.splits,
            "versions": versions(board.runs),
        }
        for one in found
    ]
