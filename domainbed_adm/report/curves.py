"""Learning curves: accuracy and loss over the steps of the runs that a selection method chose, mean over trials."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from domainbed_adm.leaderboard import Board
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.records import Record, accuracy, environment_count

#: A curve with more points is thinned evenly.
MOST_POINTS = 100

#: A curve with no more points keeps its first.
FEW_POINTS = 4

#: A loss beyond it has diverged, and would squeeze every other: it is not drawn.
HIGHEST_LOSS = 1e6

#: (step, mean over trials), by step
Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Measure:
    """What a curve shows: name and unit, value in (record, test environment), whether it is an accuracy."""

    name: str
    of: Callable[[Record, int], float | None]
    accuracy: bool


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * value


def _source_out(record: Record, test_env: int) -> float | None:
    known = [accuracy(record, env, "out") for env in range(environment_count(record)) if env != test_env]
    values = [value for value in known if value is not None]
    return float(np.mean(values)) if values and len(values) == len(known) else None


def _loss(record: Record, test_env: int) -> float | None:
    value = record.get("loss")
    return float(value) if isinstance(value, int | float) and abs(value) <= HIGHEST_LOSS else None


MEASURES = (
    Measure("Test accuracy, %", lambda record, env: _percent(accuracy(record, env, "in")), True),
    Measure("Source accuracy, out-splits, %", lambda record, env: _percent(_source_out(record, env)), True),
    Measure("Training loss", _loss, False),
)


def chosen_records(board: Board, selection: SelectionMethod, dataset: str, algorithm: str, env: int) -> list[Record]:
    """Of each trial, the records of the run with this test environment alone that the selection method chose.

    Where it chose none, the lowest hparams_seed stands in.
    """
    trials: dict[int, list[Record]] = {}
    for record in board.records.get((dataset, algorithm, env), []):
        trials.setdefault(record["args"]["trial_seed"], []).append(record)
    found = []
    for records in trials.values():
        alone = [record for record in records if len(record["args"]["test_envs"]) == 1]
        if alone:
            chosen = selection.chosen(records, env)
            seed = chosen[0] if chosen else min(record["args"]["hparams_seed"] for record in alone)
            found += [record for record in alone if record["args"]["hparams_seed"] == seed]
    return found


def curve(records: Iterable[Record], measure: Measure, env: int) -> Curve:
    """The measure at each step, mean over the runs that recorded it.

    Step 0 shows chance, which would squeeze the rest of the axis: it is left out where enough other steps are there.
    """
    steps: dict[float, list[float]] = {}
    for record in records:
        value = measure.of(record, env)
        if value is not None:
            steps.setdefault(record["step"], []).append(value)
    points = [(step, float(np.mean(steps[step]))) for step in sorted(steps)]
    if len(points) > FEW_POINTS and points[0][0] == 0:
        points = points[1:]
    stride = math.ceil(len(points) / MOST_POINTS)
    return [*points[:-1:stride], points[-1]] if points else []


def what(board: Board, selection: SelectionMethod) -> str:
    """Whose curves they are, in a sentence."""
    records = [record for group in board.records.values() for record in group]
    seeds = sorted({record["args"]["hparams_seed"] for record in records})
    trials = len({record["args"]["trial_seed"] for record in records})
    runs = (
        f"the runs with hparams seed {seeds[0]}"
        if len(seeds) == 1
        else f"the run of {len(seeds)} hparams seeds that {selection.name} selects"
    )
    return f"Mean over {trials} {'trial' if trials == 1 else 'trials'} of {runs}."
