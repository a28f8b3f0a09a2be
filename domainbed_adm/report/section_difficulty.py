"""How hard the samples were over training: what ``train --trace_difficulty`` left in the runs' folders."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.errors import UserError
from domainbed_adm.report.analysis_block import AnalysisBlock, charts, datasets, drawn, ordered, pair
from domainbed_adm.report.tables import Row, Table, number
from domainbed_adm.run_files import DIFFICULTY
from domainbed_adm.system.console import warn

#: Name in a row of ``analysis.difficulty.rows``, heading and format.
_TRACED = {
    "runs": ("runs", "d"),
    "median": ("median", ".3g"),
    "variation": ("variation", ".3f"),
    "self_correlation": ("corr. previous", ".3f"),
    "correctness_correlation": ("corr. correct", ".3f"),
    "linear_share": ("pairs linear keeps", ".3f"),
}


def difficulty(root: Path, algorithms: Sequence[str]) -> list[AnalysisBlock]:
    """The difficulty traces below ``root``, by dataset; none where no run has one."""
    folders = [folder for folder in (root, *sorted(root.iterdir())) if (folder / DIFFICULTY).is_file()]
    if not folders:
        return []
    from domainbed_adm.analysis.difficulty import load_traces

    runs = []
    for folder in folders:
        try:
            runs += find_runs([folder])
        except UserError as error:
            warn(f"{folder / DIFFICULTY} left out: {error}")
    methods = ordered(load_traces(runs), algorithms)
    return [_traced(dataset, [one for one in methods if one.dataset == dataset]) for dataset in datasets(methods)]


def _traced(dataset: str, methods: list[Any]) -> AnalysisBlock:
    from domainbed_adm.analysis.difficulty import backwards, rows
    from domainbed_adm.analysis.difficulty_figures import difficulty_panels

    ends = {method.algorithm: int(method.step[-1]) for method in methods}
    last = [row for row in rows(methods) if row["step"] == ends[row["algorithm"]]]
    lines = [
        Row([row["measure"], row["algorithm"]], [number(row[name], form) for name, (_, form) in _TRACED.items()])
        for row in last
    ]
    headings = [heading for heading, _ in _TRACED.values()]
    caption, note = f"{dataset}, last checkpoint", " ".join(backwards(last))
    table = Table(caption, ["Difficulty", "Method"], headings, lines, note)
    shown = pair(methods)
    return AnalysisBlock(dataset, drawn(shown), charts(dataset, partial(difficulty_panels, shown)), table)
