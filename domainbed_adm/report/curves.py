"""Learning curves: accuracy and loss over the steps of the runs that a selection method selects, mean over trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.board import by_trial
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Column, Run

#: A curve with more points is thinned evenly.
MOST_POINTS = 100

#: A curve with no more points keeps its first.
FEW_POINTS = 4

#: A loss beyond it has diverged, and would squeeze every other: it is not drawn, and the page says so.
HIGHEST_LOSS = 1e6

#: (step, mean over trials), by step
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Measure:
    """What a curve shows: name and unit, values over the checkpoints of (run, test environment), whether accuracies."""

    name: str
    of: Callable[[Run, int], Column]
    accuracy: bool


def _loss(run: Run, test_env: int) -> Column:
    loss = run.column("loss")
    return np.where(np.abs(loss) <= HIGHEST_LOSS, loss, np.nan)


MEASURES = (
    Measure("Test accuracy, %", lambda run, env: 100 * run.accuracy(env, "in"), True),
    Measure("Source accuracy, out-splits, %", lambda run, env: 100 * run.mean_accuracy("out", without=env), True),
    Measure("Training loss", _loss, False),
)


def selected_runs(board: Board, selection: SelectionMethod, dataset: str, algorithm: str, env: int) -> list[Run]:
    """Of each trial, the run with this test environment alone that the selection method selects.

    Where it selects none, the lowest hparams_seed stands in.
    """
    selected = []
    for runs in by_trial(board.runs_of.get((dataset, algorithm, env), [])).values():
        alone = [run for run in runs if len(run.test_envs) == 1]
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
    high = [(run, int(np.sum(np.abs(run.column("loss")) > HIGHEST_LOSS))) for run in board.runs]
    runs = [f"{run.algorithm} on {run.dataset}" for run, count in high if count]
    count = sum(count for _, count in high)
    if not count:
        return ""
    names = ", ".join(dict.fromkeys(runs))
    return f"Not drawn: {count} losses above {HIGHEST_LOSS:g}, of {len(runs)} runs that diverged ({names})."


def selected_by(board: Board, selection: SelectionMethod) -> str:
    """Whose curves they are, in a sentence."""
    seeds = sorted({run.hparams_seed for run in board.runs})
    trials = len({run.trial_seed for run in board.runs})
    runs = (
        f"the runs with hparams seed {seeds[0]}"
        if len(seeds) == 1
        else f"the run of {len(seeds)} hparams seeds that {selection.name} selects"
    )
    return f"Mean over {trials} {'trial' if trials == 1 else 'trials'} of {runs}."
