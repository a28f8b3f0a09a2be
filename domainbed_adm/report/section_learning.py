"""The page's learning curves: for each dataset and test environment a chart of each measure, and their legend."""

from __future__ import annotations

from dataclasses import dataclass

from domainbed_adm.leaderboard import Board
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.report.charts import Chart, draw, limits
from domainbed_adm.report.curves import MEASURES, Curve, curve, selected_by, selected_runs, undrawn
from domainbed_adm.report.looks import Look, Looks, looks


@dataclass(frozen=True)
class LearningCurves:
    """The section: whose curves, the legend, and the charts of each dataset by the name of the test environment.

    ``note`` tells of losses that are not drawn; "" where all are.
    """

    selected_by: str
    note: str
    legend: list[Look]
    datasets: list[tuple[str, list[tuple[str, list[Chart]]]]]


def section(board: Board, selection: SelectionMethod) -> LearningCurves:
    """The curves of the runs that the selection method selects; what no run recorded has no chart."""
    of = looks(board.algorithms)
    datasets = [(dataset, _dataset(board, selection, dataset, of)) for dataset in board.environments]
    return LearningCurves(
        selected_by(board, selection),
        undrawn(board),
        of.legend,
        [(name, charts) for name, charts in datasets if charts],
    )


def _dataset(board: Board, selection: SelectionMethod, dataset: str, of: Looks) -> list[tuple[str, list[Chart]]]:
    curves: dict[tuple[int, int], dict[str, Curve]] = {}
    names = board.environments[dataset]
    for env in range(len(names)):
        for algorithm in board.algorithms:
            runs = selected_runs(board, selection, dataset, algorithm, env)
            for m, measure in enumerate(MEASURES):
                points = curve(runs, measure, env)
                if points:
                    curves.setdefault((env, m), {})[algorithm] = points
    spans = [
        limits([one for (_, kind), drawn in curves.items() if kind == m for one in drawn.values()])
        for m in range(len(MEASURES))
    ]
    charts = []
    for env, name in enumerate(names):
        drawn = []
        for m, (measure, span) in enumerate(zip(MEASURES, spans, strict=True)):
            if span and (env, m) in curves:
                svg = draw(curves[env, m], of, span, logarithmic=not measure.accuracy)
                spoken = f"{measure.name} over training steps, {dataset}, tested on {name}, a line for each method"
                drawn.append(Chart(measure.name, spoken, svg))
        charts.append((name, drawn))
    return [(name, drawn) for name, drawn in charts if drawn]
