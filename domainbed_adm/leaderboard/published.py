"""Published accuracies, and how far ours are from them: as a table, and as columns and rows for programs.

The numbers stand in ``published.yaml``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.board import Board, Entry
from domainbed_adm.leaderboard.layouts import Sheet, tidy_row, written
from domainbed_adm.leaderboard.notes import selection_line
from domainbed_adm.model_selection import SelectionMethod


@dataclass(frozen=True)
class PublishedRow:
    """One method on one dataset: ours, over the trials that have every environment, and the published accuracy, in %.

    ``unlike_steps`` are training steps of our runs other than DomainBed's default, taken as the published runs'.
    """

    dataset: str
    method: str
    ours: Entry
    published: Entry
    unlike_steps: tuple[int, ...] = ()

    @property
    def difference(self) -> float | None:
        """Ours - published, in percentage points; None where ours is not known."""
        if self.ours.mean is None or self.published.mean is None:
            return None
        return self.ours.mean - self.published.mean

    @property
    def no_standard_errors(self) -> str:
        """Why the difference is not told in standard errors; "" where it is."""
        if self.difference is None:
            return "-"
        if self.unlike_steps:
            return f"not comparable: {', '.join(map(str, self.unlike_steps))} steps"
        return "one trial: no error of ours" if self.ours.n < 2 else ""

    @property
    def standard_errors(self) -> float | None:
        """(ours - published) / sqrt(s^2 + sem_published^2), s^2 = sem_ours^2 n / (n - 1).

        sem_ours has DomainBed's divisor n, too small for few trials; s is the standard error with divisor n - 1. None
        where ``no_standard_errors`` says why.
        """
        if self.no_standard_errors or self.difference is None or self.ours.sem is None:
            return None
        ours = self.ours.sem * math.sqrt(self.ours.n / (self.ours.n - 1))
        return self.difference / math.hypot(ours, self.published.sem or 0.0)


@cache
def _file() -> dict[str, Any]:
    contents: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text(encoding="utf-8"))
    return contents


@cache
def published() -> dict[str, dict[str, Entry]]:
    """The published accuracy of each algorithm on each dataset."""
    return {
        algorithm: {dataset: Entry(mean, sem, _file()["trials"]) for dataset, (mean, sem) in by_dataset.items()}
        for algorithm, by_dataset in _file()["accuracy"].items()
    }


def published_rows(board: Board, selection: SelectionMethod) -> list[PublishedRow]:
    """A row for each dataset and algorithm of the board that has a published number."""
    rows = []
    for dataset, environments in board.environments.items():
        for name in board.algorithms:
            if number := published().get(name, {}).get(dataset):
                ours = board.over_environments(selection, dataset, name, whole_trials=True)
                keys = ((dataset, name, env) for env in environments)
                told = {run.args.get("steps") for key in keys for run in board.runs_of.get(key, [])}
                steps = {int(steps) for steps in told if steps is not None} - {CARDS[dataset].n_steps}
                rows.append(PublishedRow(dataset, name, ours, number, tuple(sorted(steps))))
    return rows


def unpublished_lines(board: Board) -> list[str]:
    """A line on the datasets of the board that have no published number, and one where none of its algorithms has."""
    table = published()
    datasets = list(dict.fromkeys(dataset for by_dataset in table.values() for dataset in by_dataset))
    absent = [dataset for dataset in board.environments if dataset not in datasets]
    lines = [f"no published numbers for {', '.join(absent)}; there are for {', '.join(datasets)}"] if absent else []
    if not table.keys() & set(board.algorithms):
        lines.append(f"no published numbers for {', '.join(board.algorithms)}; there are for {', '.join(table)}")
    return lines


def published_sheet(board: Board, selection: SelectionMethod) -> Sheet | None:
    """The table; None where nothing that the board has is published."""
    rows = published_rows(board, selection)
    if not rows:
        return None
    absent = ", ".join(algorithm for algorithm in board.algorithms if algorithm not in published())
    note = (
        f"Published: {_file()['source']}. It names no backbone, number of steps or model selection method, and does "
        f"not say what ± is: taken as the standard error over {rows[0].published.n} trials, as in DomainBed's tables, "
        f"of runs of {CARDS[rows[0].dataset].n_steps} steps, its default. "
        "Ours: the mean over n trials that have every test environment, ± std / sqrt(n), std with divisor n. "
        "Difference: ours - published, in percentage points, and in standard errors divided by "
        "sqrt(sem_ours^2 + sem_published^2), where sem_ours, unlike ± of ours, is of std with divisor n - 1 and "
        "sem_published is as published; not for one trial, which has no sem_ours, or for other numbers of steps. "
        f"{f'Not published: {absent}. ' if absent else ''}"
        f"{selection_line(selection)} {board.sweep_line}"
    )
    return Sheet(
        f"Ours and published, model selection method: {selection.name}",
        ("Dataset", "Method"),
        ("ours", "n", "published", "difference", "in standard errors"),
        tuple(
            (
                row.dataset,
                row.method,
                written(row.ours, 2, "±"),
                str(row.ours.n),
                written(row.published, 2, "±"),
                "-" if row.difference is None else f"{row.difference:+.2f}",
                row.no_standard_errors or f"{row.standard_errors:+.2f}",
            )
            for row in rows
        ),
        note,
    )


def with_published(
    rows: Iterable[dict[str, Any]], board: Board, selections: Iterable[SelectionMethod]
) -> list[dict[str, Any]]:
    """The tidy rows with four more columns, and a row, environment "Avg", for each published number.

    The columns are ``published`` and ``published_sem`` in %, ``difference`` in percentage points, and
    ``standard_errors``, None where the table says why; only the added rows have them.
    """
    nothing = dict.fromkeys(("published", "published_sem", "difference", "standard_errors"))
    added = [
        {
            **tidy_row(board, selection, row.dataset, row.method, row.ours),
            "published": row.published.mean,
            "published_sem": row.published.sem,
            "difference": row.difference,
            "standard_errors": row.standard_errors,
        }
        for selection in selections
        for row in published_rows(board, selection)
    ]
    return [*({**row, **nothing} for row in rows), *added]
