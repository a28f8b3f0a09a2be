"""Published numbers, and how far ours are from them: as tables, and as columns and rows for programs.

The numbers stand in ``published.yaml``, by source.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.leaderboard.board import Board, Entry
from domainbed_adm.leaderboard.hessian import QUANTITY, Eigenvalues
from domainbed_adm.leaderboard.layouts import Sheet, written
from domainbed_adm.leaderboard.notes import selection_line
from domainbed_adm.leaderboard.rows import figure_row, tidy_row
from domainbed_adm.method.grid import METHODS
from domainbed_adm.model_selection import LAST_EPOCH, SelectionMethod
from domainbed_adm.recipes import epochs
from domainbed_adm.recorded_run import Run, is_official

_COLUMNS = ("ours", "n", "published", "difference", "in standard errors")


@dataclass(frozen=True)
class Table:
    """The numbers of one source, in %; ``epochs`` and ``hparams`` are what runs must have to be comparable.

    ``left_open`` is what the source does not say, in sentences. ``numbers`` have the hparams of their own.
    """

    name: str
    source: str
    left_open: str
    trials: int
    epochs: int | None
    hparams: dict[str, Any]
    numbers: tuple[tuple[str, str, Entry, dict[str, Any]], ...]  # algorithm, dataset, accuracy, hparams


@dataclass(frozen=True)
class PublishedRow:
    """One method on one dataset: ours, over the trials that have every environment, and the published accuracy, in %.

    ``unlike`` are lengths and hparams of our runs other than the published runs'.
    """

    dataset: str
    method: str
    ours: Entry
    published: Entry
    unlike: tuple[str, ...] = ()
    hparams: dict[str, Any] = field(default_factory=dict)  # of the published number alone

    @property
    def label(self) -> str:
        """The method, with the hparams of the published number."""
        told = ", ".join(f"{name} {value}" for name, value in self.hparams.items())
        return f"{self.method} ({told})" if told else self.method

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
        if self.unlike:
            return f"not comparable: {', '.join(self.unlike)}"
        if self.ours.n < 2:
            return "one trial: no error of ours"
        return "" if self.published.sem is not None else "no error is published"

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
def tables() -> tuple[Table, ...]:
    """All published accuracies."""
    return tuple(_table(**one) for one in _file()["tables"])


def _table(accuracy: dict[str, dict[str, list[Any]]], trials: int, **about: Any) -> Table:
    numbers = []
    for algorithm, by_dataset in accuracy.items():
        for dataset, given in by_dataset.items():
            several = given if isinstance(given[0], dict) else [dict(zip(("mean", "sem"), given, strict=False))]
            for one in several:
                entry = Entry(one["mean"], one.get("sem"), trials)
                numbers.append((algorithm, dataset, entry, one.get("hparams", {})))
    asked = about.get("epochs"), about.get("hparams", {})
    return Table(about["name"], about["source"], about["open"], trials, *asked, tuple(numbers))


def published_rows(board: Board, selection: SelectionMethod, table: Table) -> list[PublishedRow]:
    """A row for each number of the table whose dataset and algorithm the board has, in the board's order."""
    rows = []
    for dataset, environments in board.environments.items():
        for name in board.algorithms:
            for algorithm, published_dataset, number, hparams in table.numbers:
                if (algorithm, published_dataset) != (name, dataset):
                    continue
                ours = board.over_environments(selection, dataset, name, whole_trials=True)
                runs = [run for env in environments for run in board.runs_of.get((dataset, name, env), [])]
                unlike = {told for run in runs for told in _unlike(run, table.epochs, table.hparams | hparams)}
                rows.append(PublishedRow(dataset, name, ours, number, tuple(sorted(unlike)), hparams))
    return rows


def _unlike(run: Run, wanted: int | None, hparams: dict[str, Any]) -> list[str]:
    told, steps = [], run.args.get("steps")
    if wanted is None:
        told = [f"{steps} steps"] if steps is not None and steps != CARDS[run.dataset].n_steps else []
    elif (own := epochs(run)) != wanted:
        told = [f"{steps} steps" if own is None else f"{own} epochs"]
    unlike = {name: run.hparams[name] for name, value in hparams.items() if run.hparams.get(name, value) != value}
    return [*told, *(f"{name} {value}" for name, value in unlike.items())]


def unpublished_lines(board: Board) -> list[str]:
    """A line on the datasets of the board that have no published number, and one where none of its algorithms has."""
    numbers = [number for table in tables() for number in table.numbers]
    datasets = list(dict.fromkeys(dataset for _, dataset, *_ in numbers))
    algorithms = list(dict.fromkeys(algorithm for algorithm, *_ in numbers))
    absent = [dataset for dataset in board.environments if dataset not in datasets]
    lines = [f"no published numbers for {', '.join(absent)}; there are for {', '.join(datasets)}"] if absent else []
    if not set(algorithms) & set(board.algorithms):
        lines.append(f"no published numbers for {', '.join(board.algorithms)}; there are for {', '.join(algorithms)}")
    return lines


def published_sheets(board: Board, selection: SelectionMethod, everywhere: bool = True) -> list[Sheet]:
    """A table for each source that has a number the board has too.

    Unless ``everywhere``, sets for classification are told by their last epoch alone, and no others are.
    """
    sheets = []
    for table in tables():
        rows = [
            row
            for row in published_rows(board, selection, table)
            if everywhere or is_official(row.dataset) == (selection == LAST_EPOCH)
        ]
        if rows:
            first = table is tables()[0]
            title = f"Ours and published{'' if first else f': {table.name}'}, model selection method: {selection.name}"
            cells = tuple((row.dataset, row.label, *_cells(row)) for row in rows)
            sheets.append(
                Sheet(title, ("Dataset", "Method"), _COLUMNS, cells, _note(board, selection, table, rows[0].dataset))
            )
    return sheets


def _cells(row: PublishedRow) -> tuple[str, ...]:
    return (
        written(row.ours, 2, "±"),
        str(row.ours.n),
        written(row.published, 2, "±"),
        "-" if row.difference is None else f"{row.difference:+.2f}",
        row.no_standard_errors or f"{row.standard_errors:+.2f}",
    )


def _note(board: Board, selection: SelectionMethod, table: Table, dataset: str) -> str:
    known = {algorithm for algorithm, *_ in table.numbers}
    tested = "official test set" if is_official(dataset) else "test environment"
    absent = ", ".join(algorithm for algorithm in board.algorithms if algorithm not in known)
    return (
        f"Published: {table.source}. {table.left_open} "
        f"Ours: the mean over n trials that have every {tested}, ± std / sqrt(n), std with divisor n. "
        "Difference: ours - published, in percentage points, and in standard errors divided by "
        "sqrt(sem_ours^2 + sem_published^2), where sem_ours, unlike ± of ours, is of std with divisor n - 1 and "
        "sem_published is as published; not for one trial, which has no sem_ours, or for runs of another length or "
        f"with other hparams. {f'Not published: {absent}. ' if absent else ''}"
        f"{selection_line(selection)} {board.sweep_line}"
    )


def published_hessian(board: Board, found: Eigenvalues) -> Sheet | None:
    """Our largest eigenvalues beside the published ones; None where we have none of them."""
    about, rows = _file()["hessian"], []
    for dataset, algorithm in found.trials:
        if (number := _published_eigenvalue(dataset, algorithm)) is not None:
            entry = found.entry(dataset, algorithm)
            runs = [run for run in found.results if (run.dataset, run.algorithm) == (dataset, algorithm)]
            unlike = ", ".join(sorted({told for run in runs for told in _unlike(run, 200, about["hparams"])}))
            ratio = f"{(entry.mean or 0) / number:.2f}"
            cells = written(entry, 2, "±"), str(entry.n), f"{number:.2f}", ratio, unlike or "-"
            rows.append((dataset, algorithm, *cells))
    columns = ("ours", "n", "published", "ours / published", "not comparable")
    note = f"Published: {about['source']}. {about['open']}"
    title = "Ours and published: largest eigenvalue of the Hessian"
    return Sheet(title, ("Dataset", "Method"), columns, tuple(rows), note) if rows else None


def _published_eigenvalue(dataset: str, algorithm: str) -> float | None:
    method = METHODS.get(algorithm)  # runs of another length have another name
    parts = [part for part in (method.flatness, method.curriculum) if part] if method else ["-"]
    number: float | None = _file()["hessian"]["eigenvalue"].get("_".join(parts) or "ERM", {}).get(dataset)
    return number


def with_published(
    rows: Iterable[dict[str, Any]],
    board: Board,
    selections: Iterable[SelectionMethod],
    found: Eigenvalues | None = None,
) -> list[dict[str, Any]]:
    """The tidy rows with five more columns, and a row, environment "Avg", for each published number.

    The columns are ``published`` and ``published_sem`` in the row's unit, ``difference``, ``standard_errors``, None
    where the table says why, and ``published_by``; only the added rows have them.
    """
    nothing = dict.fromkeys(("published", "published_sem", "difference", "standard_errors", "published_by"))
    added = [
        {
            **tidy_row(board, selection, row.dataset, row.method, row.ours),
            "published": row.published.mean,
            "published_sem": row.published.sem,
            "difference": row.difference,
            "standard_errors": row.standard_errors,
            "published_by": table.source + "".join(f", {name} {value}" for name, value in row.hparams.items()),
        }
        for selection in selections
        for table in tables()
        for row in published_rows(board, selection, table)
    ]
    for (dataset, algorithm), values in found.trials.items() if found else ():
        if (number := _published_eigenvalue(dataset, algorithm)) is not None:
            row = figure_row(board, dataset, algorithm, values, QUANTITY, "")
            difference = row["mean"] - number
            by = {"published": number, "difference": difference, "published_by": _file()["hessian"]["source"]}
            added.append({**row, **nothing, **by})
    return [*({**row, **nothing} for row in rows), *added]
