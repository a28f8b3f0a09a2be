"""Tables for programs: one row per (selection method, dataset, algorithm, environment), as CSV or JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.origins import seeds, versions
from domainbed_adm.model_selection import SelectionMethod


def tidy_rows(board: Board, selections: Iterable[SelectionMethod]) -> list[dict[str, Any]]:
    """The rows. ``mean`` and ``sem`` are in %, and None where ``n``, the number of trials, is 0."""
    return [
        _row(board, selection, dataset, algorithm, env)
        for selection in selections
        for dataset, names in board.environments.items()
        for algorithm in board.algorithms
        for env in range(len(names))
    ]


def _row(board: Board, selection: SelectionMethod, dataset: str, algorithm: str, env: int) -> dict[str, Any]:
    entry = board.cell(selection, dataset, algorithm, env)
    return {
        "selection": selection.key,
        "dataset": dataset,
        "algorithm": algorithm,
        "environment": board.environments[dataset][env],
        "environment_index": env,
        "mean": entry.mean,
        "sem": entry.sem,
        "n": entry.n,
        **facts_of(board, selection, dataset, algorithm, [env]),
    }


def facts_of(
    board: Board, selection: SelectionMethod, dataset: str, algorithm: str, envs: Iterable[int]
) -> dict[str, Any]:
    """What made a number: the trials that have all of these test environments, the seeds, splits and versions."""
    keys = [(dataset, algorithm, env) for env in envs]
    runs = [run for key in keys for run in board.runs_of.get(key, [])]
    trials = set.intersection(*(set(board.scores[selection.key].get(key, {})) for key in keys))
    return {
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
