"""Tables for programs: one row per (selection method, dataset, algorithm, environment), as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from domainbed_adm.leaderboard.board import Board, Entry
from domainbed_adm.leaderboard.origins import seeds, versions
from domainbed_adm.model_selection import SelectionMethod


def tidy_rows(board: Board, selections: Iterable[SelectionMethod]) -> list[dict[str, Any]]:
    """A row for each test environment (see ``tidy_row``)."""
    return [
        tidy_row(board, selection, dataset, algorithm, board.cell(selection, dataset, algorithm, env), env)
        for selection in selections
        for dataset, names in board.environments.items()
        for algorithm in board.algorithms
        for env in range(len(names))
    ]


def tidy_row(
    board: Board, selection: SelectionMethod, dataset: str, algorithm: str, entry: Entry, env: int | None = None
) -> dict[str, Any]:
    """One number and what made it: the trials, seeds, splits and versions.

    ``mean`` and ``sem`` are in %: both None where ``n``, the number of trials, is 0; ``sem`` None where it is 1.

    Args:
        board: where the number comes from.
        selection: the selection method.
        dataset: its name.
        algorithm: its name.
        entry: the number.
        env: index of the test environment; None for the average over all, over the trials that have all of them.
    """
    names = board.environments[dataset]
    envs = range(len(names)) if env is None else [env]
    runs = [run for i in envs for run in board.runs_of.get((dataset, algorithm, i), [])]
    trials = set.intersection(*(set(board.trials(selection, dataset, algorithm, i)) for i in envs))
    return {
        "selection": selection.key,
        "dataset": dataset,
        "algorithm": algorithm,
        "environment": "Avg" if env is None else names[env],
        "environment_index": env,
        "mean": entry.mean,
        "sem": entry.sem,
        "n": entry.n,
        "trial_seeds": sorted(trials),
        "hparams_seeds": seeds(runs, "hparams_seed"),
        "selection_splits": selection.splits,
        "versions": versions(runs),
    }


def as_json(rows: list[dict[str, Any]]) -> str:
    """The rows as a JSON list."""
    return json.dumps(rows, indent=1) + "\n"


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
