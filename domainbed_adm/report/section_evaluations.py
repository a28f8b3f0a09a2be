"""The section on what ``evaluate`` left in the runs' folders: the table, and the error under each corruption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.evaluations import EvaluatedRuns, corruption_sheets, evaluated_runs, evaluation_sheet
from domainbed_adm.report.section_analyses import AnalysisBlock, charts
from domainbed_adm.report.tables import of_sheet
from domainbed_adm.system import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Width of the figure, height of one corruption and of all around them, in inches.
_WIDTH, _ROW, _AROUND = 3.6, 0.22, 1.0
#: Methods side by side in the legend.
_COLUMNS = 2


def evaluations(board: Board) -> list[AnalysisBlock]:
    """For each dataset that runs were trained on and evaluated, the table and a figure for each corrupted set."""
    return [_block(runs) for runs in evaluated_runs(board)]


def _block(runs: EvaluatedRuns) -> AnalysisBlock:
    drawn = {}
    for dataset, attack in runs.measured():
        errors = {} if attack else runs.error_by_corruption((dataset, attack))
        if errors:
            drawn[dataset] = errors
    notes = [f"Drawn: {dataset}, mean over trials{_left_out(errors)}." for dataset, errors in drawn.items()]
    panels = partial(_panels, drawn)
    more = [of_sheet(replace(sheet, note="")) for sheet in corruption_sheets(runs)]
    table = of_sheet(evaluation_sheet(runs))
    return AnalysisBlock(f"Trained on {runs.dataset}", " ".join(notes), charts(runs.dataset, panels), table, more)


def _left_out(errors: Mapping[str, object]) -> str:
    more = len(errors) - len(figures.COLOURS)
    return f", without the last {more} methods of the table" if more > 0 else ""


def _panels(drawn: Mapping[str, dict[str, dict[str, float]]]) -> list[Figure]:
    return [_figure(dataset, errors) for dataset, errors in drawn.items()]


def _figure(dataset: str, errors: dict[str, dict[str, float]]) -> Figure:
    """A row for each corruption, a dot for each method."""
    names = list(dict.fromkeys(name for by_name in errors.values() for name in by_name))
    shown = dict(list(errors.items())[: len(figures.COLOURS)])

    def panel(axes: Axes) -> None:
        for i, (algorithm, by_name) in enumerate(shown.items()):
            rows = [names.index(name) + 0.5 * ((i + 0.5) / len(shown) - 0.5) for name in by_name]
            values = [100 * value for value in by_name.values()]
            axes.plot(values, rows, "o", color=figures.COLOURS[i], markersize=4, label=algorithm)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("error in %")
        axes.set_title(dataset)

    height = _AROUND + _ROW * (len(names) + -(-len(shown) // _COLUMNS))
    return figures.grid([panel], 1, (_WIDTH, height), legend=_COLUMNS)
