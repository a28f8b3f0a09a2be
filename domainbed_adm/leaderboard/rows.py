"""A board as rows for programs: CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from domainbed_adm.leaderboard.board import Board, Entry, seeds, versions
from domainbed_adm.model_selection import LAST_EPOCH, SelectionMethod, applies


def tidy_rows(board: Board, selections: Iterable[SelectionMethod], everywhere: bool = True) -> list[dict[str, Any]]:
    """A row for each selection method, dataset, algorithm and test environment (see ``tidy_row``).

    Unless ``everywhere``, for the datasets alone that a selection method is meant for.
    """
    return [
        tidy_row(board, selection, dataset, algorithm, board.cell(selection, dataset, algorithm, env), env)
        for selection in selections
        for dataset, names in board.environments.items()
        if everywhere or applies(selection, dataset)
        for algorithm in board.algorithms
        for env in names
    ]


def tidy_row(
    board: Board, selection: SelectionMethod, dataset: str, algorithm: str, entry: Entry, env: int | None = None
) -> dict[str, Any]:
    """One number and what made it: the trials, seeds, splits and versions.

    ``mean`` and ``sem`` are in the ``unit``: both None where ``n``, the number of trials, is 0; ``sem`` None where it
    is 1.
    Without ``env``, the number is the average over all test environments, over the trials that have all of them.
    """
    names = board.environments[dataset]
    envs = list(names) if env is None else [env]
    runs = [run for i in envs for run in board.runs_of.get((dataset, algorithm, i), [])]
    known = selection.key in board.scores
    trials = set.intersection(*(set(board.trials(selection, dataset, algorithm, i)) for i in envs)) if known else set()
    return {
        "selection": selection.key,
        "dataset": dataset,
        "algorithm": algorithm,
        "environment": "Avg" if env is None else names[env],
        "environment_index": env,
        "quantity": "accuracy",
        "unit": "%",
        "measured_on": dataset,
        "attack": "",
        "mean": entry.mean,
        "sem": entry.sem,
        "n": entry.n,
        "trial_seeds": sorted(trials),
        "hparams_seeds": seeds(runs, "hparams_seed"),
        "selection_splits": selection.splits,
        "versions": versions(runs),
    }


def figure_row(
    board: Board,
    dataset: str,
    algorithm: str,
    values: Mapping[int, float],
    quantity: str,
    unit: str,
    measured_on: str = "",
    attack: str = "",
    environment: str = "Avg",
) -> dict[str, Any]:
    """As ``tidy_row``, of another number of each trial's last model, ``values``, in ``unit``."""
    entry = Entry.over(list(values.values()))
    row = tidy_row(board, LAST_EPOCH, dataset, algorithm, entry)
    return row | {
        "environment": environment,
        "quantity": quantity,
        "unit": unit,
        "measured_on": measured_on or dataset,
        "attack": attack,
        "trial_seeds": sorted(values),
        "selection_splits": "the last model",
    }


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV with a heading; seeds are separated by blanks, an unknown number is empty.

    A text that a spreadsheet would run as a formula (it begins with = or @) gets an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _csv_cell(value) for name, value in row.items()})
    return text.getvalue()


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "@")) else value
