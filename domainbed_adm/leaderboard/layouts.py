"""A board as DomainBed's tables, character by character, as the paper's, as LaTeX, and as rows for programs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from domainbed_adm import __version__
from domainbed_adm.leaderboard.board import Board, Entry, seeds, versions
from domainbed_adm.leaderboard.notes import provenance_line
from domainbed_adm.method.grid import METHODS, OwnMethod
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.system.console import show

#: How the published tables name the flatness part; without one, the base optimizer is what runs.
OPTIMIZERS = {None: "Adam", "SAM": "SAM", "SAGM": "SAGM", "FSAM": "F-SAM"}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": "$<$",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}
_LATEX_START = r"""\documentclass{article}
\usepackage{booktabs}
\usepackage{adjustbox}
\begin{document}
\section{Results}
"""


@dataclass(frozen=True)
class Sheet:
    """One table, not yet written in any format.

    Attributes:
        label_columns: headings of the columns that say what a row is of.
        columns: headings of the others.
        rows: a cell for each heading: a text, or a number.
        digits: decimals of a number.
        width: characters of a column in DomainBed's text.
        prose: headings of the columns that may wrap on a narrow terminal.
    """

    title: str
    label_columns: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Entry, ...], ...]
    note: str
    digits: int = 2
    width: int = 0
    prose: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        """Whether it has a cell, beside its labels, that is no unknown number."""
        cells = (cell for row in self.rows for cell in row[len(self.label_columns) :])
        return any(isinstance(cell, str) or cell.mean is not None for cell in cells)

    def best(self) -> set[tuple[int, int]]:
        """(row, column) of the highest mean of each column, ties in the printed digits included; none for one row."""
        best: set[tuple[int, int]] = set()
        for j, column in enumerate(zip(*self.rows, strict=True)):
            means = [cell.mean if isinstance(cell, Entry) else None for cell in column]
            shown = {i: round(mean, self.digits) for i, mean in enumerate(means) if mean is not None}
            best |= {(i, j) for i, mean in shown.items() if mean == max(shown.values())}
        return best if len(self.rows) > 1 else set()


def domainbed_sheets(board: Board, selection: SelectionMethod) -> list[Sheet]:
    """DomainBed's tables under one selection method: one for each dataset, then the averages."""
    named = f"model selection method: {selection.name}"
    labels = [(name,) for name in board.algorithms]
    sheets = []
    for dataset, names in board.environments.items():
        grid = [[board.cell(selection, dataset, name, env) for env in names] for name in board.algorithms]
        title = f"Dataset: {dataset}, {named}"
        sheets.append(_sheet(board, selection, title, ("Algorithm",), names.values(), labels, grid, digits=1, width=20))
    grid = [
        [board.over_environments(selection, dataset, name) for dataset in board.environments]
        for name in board.algorithms
    ]
    averages = _sheet(
        board, selection, f"Averages, {named}", ("Algorithm",), board.environments, labels, grid, digits=1, width=25
    )
    return [*sheets, averages]


def paper_sheet(board: Board, selection: SelectionMethod) -> Sheet:
    """The paper's table: a row for each optimizer x curriculum x difficulty, datasets as columns.

    Trials that lack an environment of a dataset are left out of its column.
    """
    labels = map(_paper_labels, board.algorithms)
    grid = [
        [board.over_environments(selection, dataset, name, whole_trials=True) for dataset in board.environments]
        for name in board.algorithms
    ]
    headings = ("Method", "Opt.", "Curr.", "Diff.")
    return _sheet(board, selection, f"Model selection: {selection.name}", headings, board.environments, labels, grid)


def _paper_labels(algorithm: str) -> tuple[str, str, str, str]:
    method = METHODS.get(algorithm)
    if method is None or isinstance(method, OwnMethod):
        return algorithm, "-", "-", "-"
    optimizer = OPTIMIZERS.get(method.flatness, str(method.flatness))
    return algorithm, optimizer, method.curriculum or "-", method.difficulty or "-"


def _sheet(
    board: Board,
    selection: SelectionMethod,
    title: str,
    label_columns: tuple[str, ...],
    columns: Iterable[str],
    labels: Iterable[tuple[str, ...]],
    grid: list[list[Entry]],
    digits: int = 2,
    width: int = 0,
) -> Sheet:
    rows: list[tuple[str | Entry, ...]] = [
        (*label, *row, Entry.average(row)) for label, row in zip(labels, grid, strict=True)
    ]
    note = provenance_line(board, selection, (entry.n for row in grid for entry in row))
    return Sheet(title, label_columns, (*columns, "Avg"), tuple(rows), note, digits, width)


def written(cell: str | Entry, digits: int, plus_minus: str) -> str:
    """``mean <plus_minus> error``; ``mean`` for one trial or an average, ``X`` where there is no number; a text."""
    if isinstance(cell, str):
        return cell
    if cell.mean is None:
        return "X"
    return f"{cell.mean:.{digits}f}" + ("" if cell.sem is None else f"{plus_minus}{cell.sem:.{digits}f}")


def domainbed_text(sheets: Iterable[Sheet], total: int) -> str:
    """DomainBed's text: columns of fixed width, cut and filled with blanks, two blanks apart, one at the end.

    One trial has the error 0.0, and a table without any number is full of X, as there.
    """
    lines = [f"Total records: {total}"]
    for sheet in sheets:
        lines += ["", f"-------- {sheet.title}"]
        for row in ((*sheet.label_columns, *sheet.columns), *sheet.rows):
            cells = [replace(cell, sem=0.0) if isinstance(cell, Entry) and cell.n == 1 else cell for cell in row]
            texts = (written(cell, sheet.digits, " +/- ") for cell in cells)
            lines.append("  ".join(text.ljust(sheet.width)[: sheet.width] for text in texts) + " ")
    return "\n".join(lines) + "\n"


def show_sheet(sheet: Sheet) -> None:
    """Print the table and its note, which is alone where nothing is known; on a terminal the best are bold."""
    if sheet.is_known:
        rows = [[written(cell, sheet.digits, "±") for cell in row] for row in sheet.rows]
        headings = (*sheet.label_columns, *sheet.columns)
        show(headings, rows, prose=sheet.prose, bold=sheet.best(), title=sheet.title)
    else:
        print(f"\n{sheet.title}")
    print(sheet.note)


def latex_escape(text: str) -> str:
    r"""Text as LaTeX shows it literally: ``SAM_ADM`` becomes ``SAM\_ADM``."""
    escaped = re.sub(r"[\\~^±<&%$#_{}]", lambda match: _LATEX[match[0]], text)
    # LaTeX takes [ or * that begins a row as an argument of the line break before it
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def latex_document(sheets: Sequence[Sheet], total: int) -> str:
    """A whole LaTeX document: booktabs, names escaped, the best of each column in bold.

    A table in which nothing is known is its note alone. ``total`` is the number of records behind the tables.
    """
    about = f"% domainbed_adm {__version__}, total records: {total}\n"
    return "".join([_LATEX_START, about, *map(_latex_section, sheets), "\n\\end{document}\n"])


def _latex_section(sheet: Sheet) -> str:
    best = sheet.best()
    rows = [[latex_escape(written(cell, sheet.digits, " ± ")) for cell in row] for row in sheet.rows]
    rows = [
        [rf"\textbf{{{cell}}}" if (i, j) in best else cell for j, cell in enumerate(row)] for i, row in enumerate(rows)
    ]
    headings = [rf"\textbf{{{latex_escape(name)}}}" for name in (*sheet.label_columns, *sheet.columns)]
    table = [
        r"\begin{center}",
        r"\adjustbox{max width=\textwidth}{%",
        rf"\begin{{tabular}}{{{'l' * len(sheet.label_columns)}{'c' * len(sheet.columns)}}}",
        r"\toprule",
        *[rf"{' & '.join(headings)} \\", r"\midrule"],
        *[rf"{' & '.join(row)} \\" for row in rows],
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{center}",
        "",
    ]
    title, note = rf"\subsection{{{latex_escape(sheet.title)}}}", rf"\noindent {latex_escape(sheet.note)}"
    return "\n".join(["", title, *(table if sheet.is_known else []), note, ""])


def tidy_rows(board: Board, selections: Iterable[SelectionMethod]) -> list[dict[str, Any]]:
    """A row for each selection method, dataset, algorithm and test environment (see ``tidy_row``)."""
    return [
        tidy_row(board, selection, dataset, algorithm, board.cell(selection, dataset, algorithm, env), env)
        for selection in selections
        for dataset, names in board.environments.items()
        for algorithm in board.algorithms
        for env in names
    ]


def tidy_row(
    board: Board, selection: SelectionMethod, dataset: str, algorithm: str, entry: Entry, env: int | None = None
) -> dict[str, Any]:
    """One number and what made it: the trials, seeds, splits and versions.

    ``mean`` and ``sem`` are in %: both None where ``n``, the number of trials, is 0; ``sem`` None where it is 1.
    Without ``env``, the number is the average over all test environments, over the trials that have all of them.
    """
    names = board.environments[dataset]
    envs = list(names) if env is None else [env]
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
