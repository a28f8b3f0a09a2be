"""Tables of the page: what the template needs of each cell, and nothing of markup."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from domainbed_adm.leaderboard.board import Entry
from domainbed_adm.leaderboard.layouts import Sheet, written

UNKNOWN = "–"
#: As tables of text write what is not known.
_NOT_KNOWN = ("X", "-")
#: "1.2", "1.2±0.3", "1.2 ± 0.3", "-0.1 to +0.2", "<0.001", "89 to 96 %".
_NUMBER = re.compile(r"<?([+-]?\d+(?:\.\d+)?)(?: ?± ?[\d.]+| to [+-]?[\d.]+)?(?: %)?$")


@dataclass(frozen=True)
class Cell:
    """One cell."""

    text: str
    value: float | None = None  # the number it sorts by; None where that is unknown, or the cell holds text
    number: bool = True  # whether its column holds numbers
    best: bool = False  # whether it is marked as the best of its column
    share: float | None = None  # length of the bar behind it, in [0, 1]; None for no bar
    heat: float | None = None  # depth of its ground's colour, in [0, 1]; None for none


class Row(NamedTuple):
    """One line: what it is of, then its cells."""

    labels: Sequence[str]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """One table."""

    caption: str
    labels: Sequence[str]  # headings of the columns that say what a row is of
    columns: Sequence[str]  # headings of the others
    rows: Sequence[Row]
    note: str = ""  # below
    highest_first: bool = False  # whether the first click on a number's heading puts the highest on top


def number(value: float | None, form: str, share: float | None = None, heat: float | None = None) -> Cell:
    """A cell with a number, written as the format ``form`` says; unknown where it is None."""
    return Cell(UNKNOWN if value is None else format(value, form), value, share=share, heat=heat)


def with_heat(table: Table) -> Table:
    """The table with each column's numbers on grounds as deep as they are high in it."""
    columns = [_heated(column) for column in zip(*(row.cells for row in table.rows), strict=True)]
    cells = zip(*columns, strict=True) if columns else [()] * len(table.rows)
    return replace(table, rows=[Row(row.labels, list(own)) for row, own in zip(table.rows, cells, strict=True)])


def _heated(column: Sequence[Cell]) -> list[Cell]:
    values = [cell.value for cell in column if cell.value is not None]
    low, high = min(values, default=0.0), max(values, default=0.0)
    return [
        cell if cell.value is None or high == low else replace(cell, heat=(cell.value - low) / (high - low))
        for cell in column
    ]


def text(value: str) -> Cell:
    """A cell with text."""
    return Cell(value, number=False)


def of_sheet(sheet: Sheet, without: Collection[str] = ()) -> Table:
    """A table of the leaderboard, without these labels; the best of each column is marked.

    A column of texts sorts by the numbers that they begin with, where all do.
    """
    first, best = len(sheet.label_columns), sheet.best()
    kept = [i for i, name in enumerate(sheet.label_columns) if name not in without]
    columns = list(zip(*sheet.rows, strict=True))
    cells = zip(
        *(_column(columns[j], {i for i, k in best if k == j}, sheet.digits) for j in range(first, len(columns))),
        strict=True,
    )
    rows = [Row([str(row[i]) for i in kept], list(own)) for row, own in zip(sheet.rows, cells, strict=True)]
    labels = [sheet.label_columns[i] for i in kept]
    return Table(sheet.title, labels, sheet.columns, rows, sheet.note, highest_first=not sheet.lowest)


def _column(cells: Sequence[Entry | str], best: Collection[int], digits: int) -> list[Cell]:
    texts = [written(cell, digits, " ± ") for cell in cells]
    matches = [_NUMBER.match(cell) for cell in texts]
    if not all(match or cell in _NOT_KNOWN for match, cell in zip(matches, texts, strict=True)):
        return [text(cell) for cell in texts]
    values = [
        cell.mean if isinstance(cell, Entry) else match and float(match[1])
        for cell, match in zip(cells, matches, strict=True)
    ]
    return [Cell(UNKNOWN if value is None else texts[i], value, best=i in best) for i, value in enumerate(values)]
