"""Algorithms of a board compared in pairs, the same trial seed and the same environment held out; as table, as rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.comparison import (
    LEVEL,
    PairedDifference,
    benjamini_hochberg,
    paired_difference,
    smallest_p,
)
from domainbed_adm.leaderboard.footnotes import selection_line
from domainbed_adm.leaderboard.origins import versions
from domainbed_adm.leaderboard.sheets import Listing
from domainbed_adm.model_selection import SelectionMethod

#: Stands for a dataset's name where the pairs of all of them count.
ALL = "all datasets"
_CORRECTED, _REMARK = "p (Benjamini-Hochberg)", "remark"
#: Fewest environments that differ for which p can be below ``LEVEL``.
_FEWEST = next(n for n in range(1, 99) if smallest_p(n) < LEVEL)


@dataclass(frozen=True)
class Comparison:
    """One method against the baseline on one dataset.

    Attributes:
        dataset: its name, or ``ALL``.
        method: name of the algorithm.
        baseline: name of the algorithm it is compared with.
        left_out: number of (test environment, trial seed) that only one of the two has.
        difference: method - baseline, over the test environments, in percentage points.
        corrected: p corrected over the list that this one comes in.
    """

    dataset: str
    method: str
    baseline: str
    left_out: int
    difference: PairedDifference
    corrected: float | None = None


def comparisons(board: Board, selection: SelectionMethod, baseline: str, methods: Iterable[str]) -> list[Comparison]:
    """Each method against the baseline: on each dataset, then, where several have pairs, over those of all.

    The corrected p are Benjamini and Hochberg's over all p of the list.
    """
    methods = list(methods)

    def compare(label: str, method: str, datasets: Sequence[str]) -> Comparison:
        ours, theirs = (_accuracies(board, selection, name, datasets) for name in (method, baseline))
        pairs = sorted(ours.keys() & theirs.keys())
        a, b = ([100 * side[pair] for pair in pairs] for side in (ours, theirs))
        difference = paired_difference(a, b, [pair[:2] for pair in pairs])
        return Comparison(label, method, baseline, len(ours.keys() ^ theirs.keys()), difference)

    rows = [compare(dataset, method, [dataset]) for dataset in board.environments for method in methods]
    for method in methods:
        if sum(row.method == method and row.difference.n > 0 for row in rows) > 1:
            rows.append(compare(ALL, method, list(board.environments)))
    corrected = benjamini_hochberg([row.difference.p for row in rows])
    return [replace(row, corrected=p) for row, p in zip(rows, corrected, strict=True)]


def _accuracies(
    board: Board, selection: SelectionMethod, algorithm: str, datasets: Sequence[str]
) -> dict[tuple[str, int, int], float]:
    """The accuracy, a fraction, of each (dataset, test environment, trial seed) of an algorithm."""
    return {
        (dataset, env, trial): accuracy
        for dataset in datasets
        for env in range(len(board.environments[dataset]))
        for trial, accuracy in board.trials(selection, dataset, algorithm, env).items()
    }


def compared(
    board: Board, selections: Iterable[SelectionMethod], names: Sequence[str]
) -> dict[SelectionMethod, list[Comparison]]:
    """What ``comparisons`` finds under each selection method; the first of ``names`` is the baseline.

    Raises:
        UserError: there are fewer than two names, one comes twice, the records lack one, or one has no pair anywhere.
    """
    if len(names) < 2:
        raise UserError("--compare needs two algorithms or more, the baseline first: --compare SAM SAM_SSPL_ADM")
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--compare has {name} twice")
        if name not in board.algorithms:
            raise UserError(f"--compare, in these records: {unknown_name(board.algorithms, name, 'algorithm')}")
    baseline, *methods = names
    by_selection = {selection: comparisons(board, selection, baseline, methods) for selection in selections}
    for method in methods:
        if not any(row.method == method and row.difference.n for rows in by_selection.values() for row in rows):
            raise UserError(
                f"--compare: {method} and {baseline} have no accuracy of the same dataset, trial seed and test "
                "environment; --missing without --compare lists the runs there are not"
            )
    return by_selection


def comparison_sheet(board: Board, selection: SelectionMethod, rows: Sequence[Comparison]) -> Listing:
    """The table of ``comparisons``; corrected p only where there are several, remarks where there is one."""
    columns = ["pairs", "environments", "difference", "95 % interval", "coverage", "p", _CORRECTED, _REMARK]
    cells = [dict(zip(columns, _cells(row), strict=True)) for row in rows]
    if _family_size(rows) < 2:
        columns.remove(_CORRECTED)
    if not any(row.difference.remarks for row in rows):
        columns.remove(_REMARK)
    return Listing(
        f"Comparison with {rows[0].baseline}, model selection method: {selection.name}",
        ("Dataset", "Method", "Baseline"),
        tuple(columns),
        tuple(
            (row.dataset, row.method, row.baseline, *(of_row[column] for column in columns))
            for row, of_row in zip(rows, cells, strict=True)
        ),
        _note(board, selection, rows),
        prose=(_REMARK,) if _REMARK in columns else (),
    )


def _cells(row: Comparison) -> tuple[str, ...]:
    difference = row.difference
    return (
        str(difference.n),
        str(difference.n_environments),
        "-" if difference.mean is None else f"{difference.mean:+.2f}",
        "{:+.2f} to {:+.2f}".format(*difference.interval) if difference.interval else "-",
        "{:.0f} to {:.0f} %".format(*difference.coverage) if difference.coverage else "-",
        *("-" if p is None else "<0.0001" if p < 0.0001 else f"{p:.2g}" for p in (difference.p, row.corrected)),
        "; ".join(difference.remarks),
    )


def _family_size(rows: Sequence[Comparison]) -> int:
    """Number of p that are corrected together."""
    return sum(row.difference.p is not None for row in rows)


def _note(board: Board, selection: SelectionMethod, rows: Sequence[Comparison]) -> str:
    size = _family_size(rows)
    left_out = sum(row.left_out for row in rows if row.dataset != ALL)
    all_rows = f" and the rows of {ALL}" if any(row.dataset == ALL for row in rows) else ""
    correction = (
        f"Corrected by Benjamini and Hochberg over the {size} p of this table, every method and dataset{all_rows}. "
    )
    return (
        f"Difference: method - {rows[0].baseline} in percentage points. Pairs of the same trial seed and test "
        "environment are averaged over trials within an environment, then over environments, each counting the same; "
        f"{left_out} left out because one side lacks them. Interval: Student's t over environments, "
        "as if these were drawn at random. Coverage: how often such an interval holds the mean, simulated for as many "
        "environments, the lowest and highest of normal, heavy-tailed and skewed differences "
        "(benchmarks/interval_coverage.py). p: Wilcoxon's signed-rank test, two-sided, over the environments that "
        f"differ; fewer than {_FEWEST} cannot give p below {LEVEL} and have none. "
        f"{correction if size > 1 else ''}{selection_line(selection)} {board.sweep_line}"
    )


def comparison_rows(board: Board, selection: SelectionMethod, rows: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A row for each comparison: differences in percentage points, coverage in %, None where the table has "-"."""
    unknown = (None, None)
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
            **dict(zip(("low", "high"), row.difference.interval or unknown, strict=True)),
            **dict(zip(("coverage_low", "coverage_high"), row.difference.coverage or unknown, strict=True)),
            "p": row.difference.p,
            "p_benjamini_hochberg": row.corrected,
            "corrected_over": _family_size(rows),
            "remark": "; ".join(row.difference.remarks),
            "interval": "95 %, Student's t over test environments",
            "test": "Wilcoxon signed-rank, two-sided, over test environments",
            "selection_splits": selection.splits,
            "versions": versions(board.runs),
        }
        for row in rows
    ]
