"""What records say of classification beside accuracy: NLL, ECE and seconds an epoch, at the last checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from domainbed_adm.leaderboard.board import Board, Entry, by_trial
from domainbed_adm.leaderboard.layouts import Sheet, written
from domainbed_adm.leaderboard.rows import figure_row
from domainbed_adm.model_selection import LAST_EPOCH
from domainbed_adm.recorded_run import Run, is_official
from domainbed_adm.registry import get_method


class _Figure(NamedTuple):
    heading: str
    quantity: str
    unit: str
    of: Callable[[Run], float]  # NaN where it is not known
    digits: int
    factor: float = 1


def step_time(runs: Iterable[Run]) -> float | None:
    """Median seconds of a step over the records, without those of a run's first step, where there are others."""
    runs = list(runs)
    steps, times = (
        np.concatenate([np.empty(0), *(run.column(name) for run in runs)]) for name in ("step", "step_time")
    )
    timed = (times > 0) & np.isfinite(times)
    later = times[timed & (steps > 0)]
    return float(np.median(later if len(later) else times[timed])) if timed.any() else None


def epoch_time(run: Run) -> float:
    """Seconds of an epoch's steps, evaluation apart: ``step_time`` x steps an epoch; NaN where it is not known."""
    last = int(run.steps.argmax())
    step, epoch, seconds = float(run.steps[last]), float(run.column("epoch")[last]), step_time([run])
    return step / epoch * seconds if epoch > 0 and seconds else math.nan


def last_model_sheets(board: Board) -> list[Sheet]:
    """A table for each set for classification whose records have one of the figures."""
    sheets = []
    for dataset in filter(is_official, board.environments):
        values = _values(board, dataset)
        kept = [i for i in range(len(_FIGURES)) if any(own[i] for own in values.values())]
        rows = tuple(
            (name, _passes(name, board), *(_cell(own[i], _FIGURES[i]) for i in kept)) for name, own in values.items()
        )
        counts = sorted({len(own[i]) for own in values.values() for i in kept})
        if kept:
            title, headings = f"Beside accuracy, {dataset}, last epoch", (_FIGURES[i].heading for i in kept)
            sheets.append(Sheet(title, ("Method",), ("F a step", *headings), rows, _note(counts)))
    return sheets


def last_model_rows(board: Board) -> list[dict[str, Any]]:
    """The numbers of the tables for programs (see ``figure_row``)."""
    return [
        figure_row(board, dataset, name, own, figure.quantity, figure.unit)
        for dataset in filter(is_official, board.environments)
        for name, values in _values(board, dataset).items()
        for own, figure in zip(values, _FIGURES, strict=True)
        if own
    ]


def _values(board: Board, dataset: str) -> dict[str, list[dict[int, float]]]:
    """Of each method and figure, the number of each trial that has it."""
    values = {}
    for name in board.algorithms:
        env = next(iter(board.environments[dataset]))
        runs: dict[int, Run] = {}
        for trial, own in sorted(by_trial(board.runs_of.get((dataset, name, env), [])).items()):
            if chosen := LAST_EPOCH.chosen(own, env):
                runs[trial] = next(run for run in own if run.alone and run.hparams_seed == chosen[0])
        if runs:
            found = [{trial: figure.factor * figure.of(run) for trial, run in runs.items()} for figure in _FIGURES]
            values[name] = [{trial: x for trial, x in own.items() if math.isfinite(x)} for own in found]
    return values


def _on_test_sets(name: str) -> Callable[[Run], float]:
    def figure(run: Run) -> float:
        last = int(run.steps.argmax())
        return mean(float(run.column(f"env{env}_in_{name}")[last]) for env in run.test_envs)

    return figure


_FIGURES = (
    _Figure("NLL", "nll", "nats", _on_test_sets("nll"), 4),
    _Figure("ECE", "ece", "%", _on_test_sets("ece"), 2, 100),
    _Figure("s an epoch", "epoch_time", "s", epoch_time, 2),
)


def _passes(name: str, board: Board) -> str:
    """Of a step, in forward passes; several where hparams differ."""
    try:
        runs = (run for run in board.runs if run.algorithm == name)
        told = " or ".join(dict.fromkeys(f"{get_method(run.method).passes(**run.hparams):g}" for run in runs))
        return "-" if told == "nan" else told
    except ValueError:  # of a package that is not installed
        return "-"


def _cell(values: dict[int, float], figure: _Figure) -> str:
    return written(Entry.over(list(values.values())), figure.digits, "±")


def _note(counts: list[int]) -> str:
    n = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    return (
        "Of the records of the last checkpoint, on the whole official test set: NLL in nats, ECE (15 bins) in %. "
        "s an epoch: median step_time x steps an epoch, evaluation apart, on machines that runs may have shared. F: a "
        f"forward pass of the batch; a plain step takes 3. Mean and std / sqrt(n) over n = {n} trials."
    )
