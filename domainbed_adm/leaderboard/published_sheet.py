"""Ours beside the published numbers: as a table, and as columns and rows for programs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.footnotes import selection_line
from domainbed_adm.leaderboard.published import PublishedRow, published, published_rows, source
from domainbed_adm.leaderboard.sheets import Listing
from domainbed_adm.leaderboard.text import written
from domainbed_adm.leaderboard.tidy import facts_of
from domainbed_adm.model_selection import SelectionMethod


def published_sheet(board: Board, selection: SelectionMethod) -> Listing | None:
    """The table; None where nothing that the board has is published."""
    rows = published_rows(board, selection)
    if not rows:
        return None
    return Listing(
        f"Ours and published, model selection method: {selection.name}",
        ("Dataset", "Method"),
        ("ours", "n", "published", "difference", "in standard errors"),
        tuple(map(_cells, rows)),
        _note(board, selection, rows),
    )


def _cells(row: PublishedRow) -> tuple[str, ...]:
    return (
        row.dataset,
        row.method,
        written(row.ours, 2, "±"),
        str(row.ours.n),
        written(row.published, 2, "±"),
        "-" if row.difference is None else f"{row.difference:+.2f}",
        row.no_standard_errors or f"{row.standard_errors:+.2f}",
    )


def _note(board: Board, selection: SelectionMethod, rows: list[PublishedRow]) -> str:
    absent = ", ".join(algorithm for algorithm in board.algorithms if algorithm not in published())
    return (
        f"Published: {source()}. It names no backbone, number of steps or model selection method, and does not say "
        f"what ± is: taken as the standard error over {rows[0].published.n} trials, as in DomainBed's tables, of runs "
        f"of {CARDS[rows[0].dataset].n_steps} steps, its default. "
        "Ours: the mean over n trials that have every test environment, ± std / sqrt(n), std with divisor n. "
        "Difference: ours - published, in percentage points, and in standard errors divided by "
        "sqrt(sem_ours^2 + sem_published^2), where sem_ours, unlike ± of ours, is of std with divisor n - 1 and "
        "sem_published is as published; not for one trial, which has no sem_ours, or for other numbers of steps. "
        f"{f'Not published: {absent}. ' if absent else ''}"
        f"{selection_line(selection)} {board.sweep_line}"
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
            "selection": selection.key,
            "dataset": row.dataset,
            "algorithm": row.method,
            "environment": "Avg",
            "environment_index": None,
            "mean": row.ours.mean,
            "sem": row.ours.sem,
            "n": row.ours.n,
            **facts_of(board, selection, row.dataset, row.method, range(len(board.environments[row.dataset]))),
            "published": row.published.mean,
            "published_sem": row.published.sem,
            "difference": row.difference,
            "standard_errors": row.standard_errors,
        }
        for selection in selections
        for row in published_rows(board, selection)
    ]
    return [*({**row, **nothing} for row in rows), *added]
