"""What ``analyze`` and ``train --trace_difficulty`` left in the runs' folders, as tables and figures of the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.figures import inline
from domainbed_adm.report.charts import Chart
from domainbed_adm.report.tables import UNKNOWN, Row, Table, number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: ``training.difficulty_trace.FILE_NAME``; that module loads torch, which a sweep without a trace does not ask for.
TRACE = "difficulty.npz"
#: The poster compares Adam with SAM; where they are not there, the first two methods that were traced.
_COMPARED = ("ERM", "SAM")
_COLUMNS = {
    "runs": ("runs", "d"),
    "median": ("median", ".3g"),
    "variation": ("variation", ".3f"),
    "self_correlation": ("corr. previous", ".3f"),
    "correctness_correlation": ("corr. correct", ".3f"),
    "linear_share": ("pairs linear keeps", ".3f"),
}


@dataclass(frozen=True)
class Analysis:
    """One dataset's part of a section."""

    dataset: str
    table: Table
    charts: list[Chart] = field(default_factory=list)
    note: str = ""


def difficulty(root: Path) -> list[Analysis]:
    """The difficulty traces below ``root``, by dataset; none where no run has one."""
    folders = [folder for folder in (root, *sorted(root.iterdir())) if (folder / TRACE).is_file()]
    if not folders:
        return []
    from domainbed_adm.analysis.difficulty import load_traces

    methods = load_traces(find_runs(folders))
    return [_traced(dataset, [one for one in methods if one.dataset == dataset]) for dataset in _datasets(methods)]


def _datasets(found: Sequence[Any]) -> list[str]:
    return list(dict.fromkeys(one.dataset for one in found))


def _traced(dataset: str, methods: list[Any]) -> Analysis:
    from domainbed_adm.analysis.difficulty import rows
    from domainbed_adm.analysis.difficulty_figures import difficulty_panels

    last = {method.algorithm: int(method.step[-1]) for method in methods}
    lines = [
        Row([row["measure"], row["algorithm"]], [number(row[name], form) for name, (_, form) in _COLUMNS.items()])
        for row in rows(methods)
        if row["step"] == last[row["algorithm"]]
    ]
    table = Table(f"{dataset}, last checkpoint", ["Difficulty", "Method"], [one for one, _ in _COLUMNS.values()], lines)
    drawn = [one for one in methods if one.algorithm in _COMPARED]
    drawn = drawn if len(drawn) == len(_COMPARED) else methods[: len(_COMPARED)]
    charts = [chart_of(figure) for figure in difficulty_panels(drawn)]
    return Analysis(dataset, table, charts, f"Drawn: {' and '.join(one.algorithm for one in drawn)}.")


def chart_of(figure: Figure) -> Chart:
    """A figure with its titles and axis labels as what is said of it."""
    said = [text for axes in figure.axes for text in (axes.get_ylabel(), axes.get_title()) if text]
    return Chart("", ", ".join(dict.fromkeys(said)) or UNKNOWN, Markup(inline(figure)))
