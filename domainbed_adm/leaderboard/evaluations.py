"""What ``evaluate`` measured of a sweep's runs, as a table: clean, corrupted and attacked, mean over trials."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from domainbed_adm.analysis.evaluation_files import Evaluation, corruptions, load_evaluations
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.board import Board, Entry, by_trial
from domainbed_adm.leaderboard.layouts import Sheet, written
from domainbed_adm.leaderboard.rows import figure_row
from domainbed_adm.recorded_run import Run

#: Dataset, and the attack in words or "".
Key = tuple[str, str]
#: Corruptions side by side.
_BLOCK = 8
#: A number of one evaluation of a run; None where it was not measured.
Figure = Callable[[Run, Evaluation], float | None]


@dataclass(frozen=True)
class EvaluatedRuns:
    """The evaluations of the runs on one dataset.

    ``chosen`` are each algorithm's runs by trial, one for each set of test environments that any run here holds out.
    Of several hparams seeds it is the run with the highest accuracy on the out-splits of the source environments at
    the last checkpoint, whose model was measured.
    """

    dataset: str
    environments: dict[int, str]  # names of those to test on
    chosen: dict[str, dict[int, list[Run]]]
    found: dict[Run, dict[Key, Evaluation]]

    def measured(self) -> list[Key]:
        """What there is, in the order of the table: clean before attacked, the runs' own dataset first."""
        places = {name: i for i, name in enumerate((self.dataset, *CARDS))}
        keys = {key for by_key in self.found.values() for key in by_key}
        return sorted(keys, key=lambda key: (key[1] != "", places.get(key[0], len(places)), key))

    def over_trials(self, algorithm: str, key: Key, figure: Figure) -> dict[int, float]:
        """Each trial's mean over its test environments; trials that lack one are left out."""
        values: dict[int, float] = {}
        for trial, runs in self.chosen[algorithm].items():
            own = [figure(run, self.found[run][key]) if key in self.found.get(run, {}) else None for run in runs]
            known = [value for value in own if value is not None]
            values |= {trial: mean(known)} if len(known) == len(own) else {}
        return values

    def of_environments(self, key: Key, name: str) -> Figure:
        """The mean of ``name`` ("accuracy", "nll" or "ece") over the environments that were tested on."""
        tested = CARDS[key[0]].test_envs if key[0] in CARDS else None
        measured = [one.name for by_key in self.found.values() if key in by_key for one in by_key[key].environments]
        official = {(CARDS[key[0]].environments or ())[i] for i in tested} if tested else set(measured)

        def figure(run: Run, evaluation: Evaluation) -> float | None:
            names = {self.environments[i] for i in run.test_envs} if key[0] == self.dataset else official
            own = [one for one in evaluation.environments if one.name in names]
            return mean(getattr(one, name) for one in own) if len(own) == len(names) else None

        return figure

    def error_by_corruption(self, key: Key) -> dict[str, dict[str, float]]:
        """The error of each algorithm under each corruption, a fraction: mean over trials."""
        names = corruptions(key[0])
        values = {one: {name: self.over_trials(one, key, _error(name)) for name in names} for one in self.chosen}
        means = {
            one: {name: mean(own.values()) for name, own in by_name.items() if own} for one, by_name in values.items()
        }
        return {one: by_name for one, by_name in means.items() if by_name}


def evaluated_runs(board: Board) -> list[EvaluatedRuns]:
    """For each dataset of the board that some run has evaluations of."""
    found: dict[Run, dict[Key, Evaluation]] = {}
    for run in board.runs:
        own = load_evaluations(run) if run.alone else []
        if own:
            found[run] = {(one.dataset, str(one.attack or "")): one for one in own}
    datasets = []
    for dataset, environments in board.environments.items():
        own_found = {run: by_key for run, by_key in found.items() if run.dataset == dataset}
        if own_found:
            datasets.append(EvaluatedRuns(dataset, environments, chosen_runs(board, dataset, own_found), own_found))
    return datasets


def chosen_runs(board: Board, dataset: str, measured: Iterable[Run]) -> dict[str, dict[int, list[Run]]]:
    """``EvaluatedRuns.chosen``, where some of the runs have been measured."""
    runs = [run for run in board.runs if run.dataset == dataset and run.alone]
    places = sorted({tuple(run.test_envs) for run in measured})
    chosen = {}
    for algorithm in board.algorithms:
        trials = by_trial(run for run in runs if run.algorithm == algorithm)
        picked = {trial: _picked(own, places) for trial, own in trials.items()}
        chosen[algorithm] = {trial: own for trial, own in picked.items() if len(own) == len(places)}
    return chosen


def _picked(runs: Iterable[Run], places: Iterable[tuple[int, ...]]) -> list[Run]:
    by_place: dict[tuple[int, ...], list[Run]] = {}
    for run in runs:
        by_place.setdefault(tuple(run.test_envs), []).append(run)
    return [max(by_place[place], key=_source_accuracy) for place in places if place in by_place]


def _source_accuracy(run: Run) -> float:
    """On the out-splits at the last checkpoint; below all others where it is not known."""
    return float(np.nan_to_num(run.source_accuracy("out")[run.steps.argmax()], nan=-1))


def _error(corruption: str) -> Figure:
    return lambda _, evaluation: evaluation.error_by_corruption().get(corruption)


class _Column(NamedTuple):
    heading: str
    key: Key
    figure: Figure
    quantity: str
    factor: float = 100
    digits: int = 2


def _columns(runs: EvaluatedRuns) -> list[_Column]:
    columns = [_column(runs, key) for key in runs.measured()]
    if (own := (runs.dataset, "")) in runs.measured():
        columns.append(_Column("NLL", own, runs.of_environments(own, "nll"), "nll", 1, 4))
        columns.append(_Column("ECE", own, runs.of_environments(own, "ece"), "ece"))
    return columns


def evaluation_sheet(runs: EvaluatedRuns) -> Sheet:
    """The table: a row for each method and a column for each figure that has a number."""
    columns = _columns(runs)
    values = {name: [runs.over_trials(name, column.key, column.figure) for column in columns] for name in runs.chosen}
    kept = [j for j in range(len(columns)) if any(row[j] for row in values.values())]
    counts = sorted({len(row[j]) for row in values.values() for j in kept} - {0})
    rows = [
        (name, *(_cell(row[j], columns[j]) for j in kept)) for name, row in values.items() if any(row[j] for j in kept)
    ]
    headings = tuple(columns[j].heading for j in kept)
    title = f"Evaluations of the last models, trained on {runs.dataset}"
    return Sheet(title, ("Method",), headings, tuple(rows), _note(runs, counts))


def corruption_sheets(runs: EvaluatedRuns) -> list[Sheet]:
    """For each corrupted set the error under each corruption, mean over severities, and under all of them."""
    sheets = []
    for key in runs.measured():
        figures = {name: _error(name) for name in corruptions(key[0])}
        if not figures:
            continue
        figures["mean"] = _mean_error
        rows: list[tuple[str | Entry, ...]] = []
        for algorithm in runs.chosen:
            values = [runs.over_trials(algorithm, key, figure) for figure in figures.values()]
            rows += [(algorithm, *(Entry.of(list(own.values())) for own in values))] if any(values) else []
        title = f"{', '.join(filter(None, key))}: error in % by corruption, trained on {runs.dataset}"
        counts = sorted({cell.n for row in rows for cell in row[1:] if isinstance(cell, Entry)} - {0})
        sheets.append(
            Sheet(title, ("Method",), tuple(figures), tuple(rows), _note(runs, counts), lowest=True, block=_BLOCK)
        )
    return [sheet for sheet in sheets if sheet.is_known]


def evaluation_rows(board: Board) -> list[dict[str, Any]]:
    """What the two tables say, for programs (see ``figure_row``); errors by corruption have it as environment."""
    rows = []
    for runs in evaluated_runs(board):
        columns = [(column, "Avg") for column in _columns(runs)]
        for key in runs.measured():
            columns += [(_Column("", key, _error(name), "error"), name) for name in corruptions(key[0])]
        for algorithm in runs.chosen:
            for column, environment in columns:
                values = runs.over_trials(algorithm, column.key, column.figure)
                scaled = {trial: column.factor * value for trial, value in values.items()}
                unit = "%" if column.factor == 100 else "nats"
                about = (column.quantity, unit, *column.key, environment)
                rows += [figure_row(board, runs.dataset, algorithm, scaled, *about)] if values else []
    return rows


def _mean_error(_: Run, evaluation: Evaluation) -> float | None:
    return evaluation.mean_corruption_error


def _column(runs: EvaluatedRuns, key: Key) -> _Column:
    title = ", ".join(filter(None, ("" if key[0] == runs.dataset else key[0], key[1])))
    if corruptions(key[0]):
        return _Column(f"{title}: corruption error", key, _mean_error, "error")
    heading = f"{title}: accuracy" if title else "accuracy"
    return _Column(heading, key, runs.of_environments(key, "accuracy"), "accuracy")


def _cell(values: dict[int, float], column: _Column) -> str:
    return written(Entry.over([column.factor * value for value in values.values()]), column.digits, "±")


def _note(runs: EvaluatedRuns, counts: list[int]) -> str:
    evaluations = [one for by_key in runs.found.values() for one in by_key.values()]
    precisions = ", ".join(sorted({one.precision for one in evaluations}))
    devices = ", ".join(sorted({environment.device for one in evaluations for environment in one.environments}))
    n = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) if counts else "0"
    several = len({run.hparams_seed for trials in runs.chosen.values() for own in trials.values() for run in own}) > 1
    chosen = "; of several hparams seeds the run with the highest source accuracy on out-splits" if several else ""
    return (
        "Of model.pkl on whole environments: accuracy, error and ECE in %, NLL in nats; corruption error: 1 - accuracy,"
        f" plain mean over corruptions and severities; mean and std / sqrt(n) over n = {n} trials{chosen}. X: not "
        f"measured. Precision {precisions}, device {devices}."
    )
