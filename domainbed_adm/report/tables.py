"""Tables of the page: what the template needs of each cell, and nothing of markup."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from domainbed_adm.leaderboard.sheets import Listing, Sheet
from domainbed_adm.leaderboard.text import written

UNKNOWN = "–"
#: As tables of text write what is not known.
_NOT_KNOWN = ("X", "-")
#: "1.2", "1.2±0.3", "-0.1 to +0.2", "<0.001", "89 to 96 %".
_NUMBER = re.compile(r"<?([+-]?\d+(?:\.\d+)?)(?:±[\d.]+| to [+-]?[\d.]+)?(?: %)?$")


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: what it shows.
        value: the number it sorts by; None where that is unknown, or the cell holds text.
        number: whether its column holds numbers.
        best: whether it is marked as the best of its column.
        share: length of the bar behind it, in [0, 1]; None for no bar.
    """

    text: str
    value: float | None = None
    number: bool = True
    best: bool = False
    share: float | None = None


class Row(NamedTuple):
    """One line: what it is of, then its cells."""

    labels: Sequence[str]
    cells: Sequence[Cell]


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        caption: its heading.
        labels: headings of the columns that say what a row is of.
        columns: headings of the others.
        rows: the lines.
        note: what stands below.
        highest_first: whether the first click on a number's heading puts the highest on top.
    """

    caption: str
    labels: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[Row]
    note: str = ""
    highest_first: bool = False


def number(value: float | None, form: str, share: float | None = None) -> Cell:
    """A cell with a number, written as the format ``form`` says; unknown where it is None."""
    return Cell(UNKNOWN if value is None else format(value, form), value, share=share)


def text(value: str) -> Cell:
    """A cell with text."""
    return Cell(value, number=False)


def of_sheet(sheet: Sheet, caption: str, note: str = "") -> Table:
    """A leaderboard's table; the best of each column is marked, and one trial has no error."""
    best, rows = sheet.best(), []
    for i, row in enumerate(sheet.rows):
        entries = [entry if entry.n > 1 else replace(entry, sem=None) for entry in row.entries]
        texts = [UNKNOWN if entry.mean is None else written(entry, sheet.digits, " ± ") for entry in entries]
        cells = [Cell(texts[j], entry.mean, best=(i, j) in best) for j, entry in enumerate(entries)]
        rows.append(Row(row.labels, cells))
    return Table(caption, sheet.label_columns, sheet.columns, rows, note, highest_first=True)


def of_listing(listing: Listing, without: Collection[str] = ()) -> Table:
    """A table whose cells are written already: a column of numbers sorts by what its cells begin with.

    Args:
        listing: the table.
        without: headings of the labels to leave out.
    """
    first = len(listing.label_columns)
    kept = [i for i, name in enumerate(listing.label_columns) if name not in without]
    columns = list(zip(*(row[first:] for row in listing.rows), strict=True))
    cells = zip(*map(_column, columns), strict=True)
    rows = [Row([row[i] for i in kept], list(one)) for row, one in zip(listing.rows, cells, strict=True)]
    labels = [listing.label_columns[i] for i in kept]
    return Table(listing.title, labels, listing.columns, rows, listing.note, highest_first=True)


def _column(written: Sequence[str]) -> list[Cell]:
    matches = [_NUMBER.match(cell) for cell in written]
    if all(match or cell in _NOT_KNOWN for match, cell in zip(matches, written, strict=True)):
        return [Cell(match.string, float(match[1])) if match else Cell(UNKNOWN) for match in matches]
    return [text(cell) for cell in written]
