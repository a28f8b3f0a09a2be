"""A board as DomainBed's tables, character by character, and as LaTeX."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from domainbed_adm import __version__
from domainbed_adm.analysis.evaluation_files import corruptions
from domainbed_adm.leaderboard.board import Board, Entry
from domainbed_adm.leaderboard.notes import provenance_line
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.system.console import show

#: Columns of a corrupted set side by side.
_BLOCK = 8
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
        lowest: whether the lowest number of a column is its best, not the highest.
        block: how many columns stand side by side in DomainBed's text; 0 for all.
    """

    title: str
    label_columns: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Entry, ...], ...]
    note: str
    digits: int = 2
    width: int = 0
    prose: tuple[str, ...] = ()
    lowest: bool = False
    block: int = 0

    @property
    def is_known(self) -> bool:
        """Whether it has a cell, beside its labels, that is no unknown number."""
        cells = (cell for row in self.rows for cell in row[len(self.label_columns) :])
        return any(isinstance(cell, str) or cell.mean is not None for cell in cells)

    def best(self) -> set[tuple[int, int]]:
        """(row, column) of the best mean of each column, ties in the printed digits too; none where one is known."""
        best: set[tuple[int, int]] = set()
        for j, column in enumerate(zip(*self.rows, strict=True)):
            means = [cell.mean if isinstance(cell, Entry) else None for cell in column]
            shown = {i: round(mean, self.digits) for i, mean in enumerate(means) if mean is not None}
            first = min if self.lowest else max
            if len(shown) > 1:
                best |= {(i, j) for i, mean in shown.items() if mean == first(shown.values())}
        return best


def domainbed_sheets(board: Board, selection: SelectionMethod) -> list[Sheet]:
    """DomainBed's tables under one selection method: one for each dataset, then the averages.

    A column for each test environment; of a corrupted set for each corruption, the mean over its severities.
    """
    named = f"model selection method: {selection.name}"
    labels = [(name,) for name in board.algorithms]
    sheets = []
    for dataset, names in board.environments.items():
        columns = {name: [env] for env, name in names.items()}
        if kinds := corruptions(dataset):
            columns = {kind: [env for env, name in names.items() if name.rpartition("-")[0] == kind] for kind in kinds}
        grid = [
            [board.over_environments(selection, dataset, name, kinds != [], envs) for envs in columns.values()]
            for name in board.algorithms
        ]
        title = f"Dataset: {dataset}{', mean over severities' * bool(kinds)}, {named}"
        sheet = sheet_of(board, selection, title, ("Algorithm",), columns, labels, grid, digits=1, width=20)
        sheets.append(replace(sheet, block=_BLOCK if kinds else 0))
    grid = [
        [board.over_environments(selection, dataset, name) for dataset in board.environments]
        for name in board.algorithms
    ]
    averages = sheet_of(
        board, selection, f"Averages, {named}", ("Algorithm",), board.environments, labels, grid, digits=1, width=25
    )
    return [*sheets, averages]


def sheet_of(
    board: Board,
    selection: SelectionMethod,
    title: str,
    label_columns: tuple[str, ...],
    columns: Iterable[str],
    labels: Iterable[tuple[str, ...]],
    grid: list[list[Entry]],
    digits: int = 2,
    width: int = 0,
    datasets: Iterable[str] = (),
) -> Sheet:
    """A table of accuracies, a row for each label and a last column for the mean of the others."""
    rows: list[tuple[str | Entry, ...]] = [
        (*label, *row, Entry.average(row)) for label, row in zip(labels, grid, strict=True)
    ]
    note = provenance_line(board, selection, (entry.n for row in grid for entry in row), datasets)
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
    for sheet in (block for whole in sheets for block in blocks(whole)):
        lines += ["", f"-------- {sheet.title}"]
        for row in ((*sheet.label_columns, *sheet.columns), *sheet.rows):
            cells = [replace(cell, sem=0.0) if isinstance(cell, Entry) and cell.n == 1 else cell for cell in row]
            texts = (written(cell, sheet.digits, " +/- ") for cell in cells)
            lines.append("  ".join(text.ljust(sheet.width)[: sheet.width] for text in texts) + " ")
    return "\n".join(lines) + "\n"


def blocks(sheet: Sheet) -> list[Sheet]:
    """The sheet, or several where it has more columns than may stand side by side; the last has the note."""
    first, count = len(sheet.label_columns), len(sheet.columns)
    if not 0 < sheet.block < count:
        return [sheet]
    parts = -(-count // sheet.block)
    cuts = [count * i // parts for i in range(parts + 1)]
    return [
        replace(
            sheet,
            title=f"{sheet.title} ({i + 1} of {parts})",
            columns=sheet.columns[low:high],
            rows=tuple((*row[:first], *row[first + low : first + high]) for row in sheet.rows),
            note=sheet.note if i == parts - 1 else "",
        )
        for i, (low, high) in enumerate(pairwise(cuts))
    ]


def show_sheet(sheet: Sheet) -> None:
    """Print the table and its note, which is alone where nothing is known; on a terminal the best are bold."""
    if len(parts := blocks(sheet)) > 1:
        for part in parts:
            show_sheet(part)
        return
    if sheet.is_known:
        rows = [[written(cell, sheet.digits, "±") for cell in row] for row in sheet.rows]
        headings = (*sheet.label_columns, *sheet.columns)
        show(headings, rows, prose=sheet.prose, bold=sheet.best(), title=sheet.title)
    else:
        print(f"\n{sheet.title}")
    if sheet.note:
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
    parts = [_latex_section(block) for sheet in sheets for block in blocks(sheet)]
    return "".join([_LATEX_START, about, *parts, "\n\\end{document}\n"])


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
