"""Learning curves: accuracy and loss over the steps of the runs that a selection method selects, mean over trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.board import by_trial
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Column, Run
from domainbed_adm.report.charts import Chart, Curve, LineStyle, MethodStyles, draw, method_styles

#: A curve with more points is thinned evenly; one with no more than FEW_POINTS keeps its first.
MOST_POINTS, FEW_POINTS = 100, 4
#: A loss beyond it has diverged, and would squeeze every other: it is not drawn, and the page says so.
HIGHEST_LOSS = 1e6


class Measure(NamedTuple):
    """What a curve shows."""

    name: str  # and unit
    of: Callable[[Run, int], Column]  # values over the checkpoints, of a run and a test environment
    accuracy: bool


def _loss(run: Run, test_env: int) -> Column:
    loss = run.column("loss")
    return np.where(np.abs(loss) <= HIGHEST_LOSS, loss, np.nan)


MEASURES = (
    Measure("Test accuracy, %", lambda run, env: 100 * run.accuracy(env, "in"), True),
    Measure("Source accuracy, out-splits, %", lambda run, env: 100 * run.source_accuracy("out"), True),
    Measure("Training loss", _loss, False),
)


class LearningCurves(NamedTuple):
    """What the section shows."""

    selected_by: str
    note: str  # on losses not drawn, or ""
    legend: list[LineStyle]
    datasets: list[tuple[str, list[tuple[str, list[Chart]]]]]  # each dataset's charts by test environment


def section(board: Board, selection: SelectionMethod) -> LearningCurves:
    """The curves of the runs that the selection method selects; what no run recorded has no chart."""
    styles = method_styles(board.algorithms)
    datasets = [(dataset, _dataset(board, selection, dataset, styles)) for dataset in board.environments]
    drawn = [(name, charts) for name, charts in datasets if charts]
    return LearningCurves(selected_by(board, selection), undrawn(board), styles.legend, drawn)


def _dataset(
    board: Board, selection: SelectionMethod, dataset: str, styles: MethodStyles
) -> list[tuple[str, list[Chart]]]:
    names, card = board.environments[dataset], CARDS.get(dataset)
    selected = {
        (env, name): selected_runs(board, selection, dataset, name, env) for env in names for name in board.algorithms
    }
    charts: dict[str, list[Chart]] = {}
    for measure in MEASURES:
        curves = {(env, name): curve(runs, measure, env) for (env, name), runs in selected.items()}
        values = [value for points in curves.values() for _, value in points]
        chance = 100 / card.num_classes if measure.accuracy and card and card.num_classes else None
        for env, tested_on in names.items():
            shown = {name: points for name in board.algorithms if (points := curves[env, name])}
            if shown:
                spoken = f"{measure.name} over training steps, {dataset}, tested on {tested_on}, a line for each method"
                svg = draw(
                    shown, styles, (min(values), max(values)), is_logarithmic=not measure.accuracy, chance=chance
                )
                charts.setdefault(tested_on, []).append(Chart(measure.name, spoken, svg))
    return list(charts.items())


def selected_runs(board: Board, selection: SelectionMethod, dataset: str, algorithm: str, env: int) -> list[Run]:
    """Of each trial, the run with this test environment alone that the selection method selects.

    Where it selects none, the lowest hparams_seed stands in.
    """
    selected = []
    for runs in by_trial(board.runs_of.get((dataset, algorithm, env), [])).values():
        alone = [run for run in runs if run.alone]
        if alone:
            best = selection.chosen(runs, env)
            seed = best[0] if best else min(run.hparams_seed for run in alone)
            selected += [run for run in alone if run.hparams_seed == seed]
    return selected


def curve(runs: Iterable[Run], measure: Measure, env: int) -> Curve:
    """The measure at each step, mean over the runs that recorded it.

    Step 0 shows chance, which would squeeze the rest of the axis: it is left out where enough other steps are there.
    """
    steps: dict[float, list[float]] = {}
    for run in runs:
        for step, value in zip(run.steps.tolist(), measure.of(run, env).tolist(), strict=True):
            if not math.isnan(value):
                steps.setdefault(step, []).append(value)
    points = [(step, float(np.mean(steps[step]))) for step in sorted(steps)]
    if len(points) > FEW_POINTS and points[0][0] == 0:
        points = points[1:]
    stride = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:stride], points[-1]] if points else []


def undrawn(board: Board) -> str:
    """A sentence on the losses that no chart shows; "" where there is none."""
    high = [
        (f"{run.algorithm} on {run.dataset}", int(np.sum(np.abs(run.column("loss")) > HIGHEST_LOSS)))
        for run in board.runs
    ]
    counts = [count for _, count in high if count]
    names = ", ".join(dict.fromkeys(name for name, count in high if count))
    told = f"Not drawn: {sum(counts)} losses above {HIGHEST_LOSS:g}, of {len(counts)} runs that diverged ({names})."
    return told if counts else ""


def selected_by(board: Board, selection: SelectionMethod) -> str:
    """Whose curves they are, in a sentence."""
    seeds = sorted({run.hparams_seed for run in board.runs})
    trials = len({run.trial_seed for run in board.runs})
    alone = f"runs with hparams seed {', '.join(map(str, seeds))}"
    several = f"run of {len(seeds)} hparams seeds that {selection.name} selects"
    return f"Mean over {trials} {'trial' if trials == 1 else 'trials'} of the {several if seeds[1:] else alone}."
