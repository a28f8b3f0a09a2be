"""Tables as text: DomainBed's, character by character, and the paper's on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from domainbed_adm.leaderboard.board import Entry
from domainbed_adm.leaderboard.sheets import Listing, Sheet
from domainbed_adm.system.tables import show


def written(entry: Entry, digits: int, plus_minus: str) -> str:
    """``mean <plus_minus> error``; ``mean`` for one trial or an average, ``X`` where there is no number."""
    if entry.mean is None:
        return "X"
    mean = f"{entry.mean:.{digits}f}"
    return mean if entry.sem is None else f"{mean}{plus_minus}{entry.sem:.{digits}f}"


def domainbed_text(sheets: Iterable[Sheet], total: int) -> str:
    """DomainBed's text: columns of fixed width, cut and filled with blanks, two blanks apart, one at the end.

    One trial has the error 0.0, and a table without any number is full of X, as there.
    """
    lines = [f"Total records: {total}"]
    for sheet in sheets:
        lines += ["", f"-------- {sheet.title}", _line((*sheet.label_columns, *sheet.columns), sheet.width)]
        for row in sheet.rows:
            entries = [replace(entry, sem=0.0) if entry.n == 1 else entry for entry in row.entries]
            cells = [written(entry, sheet.digits, " +/- ") for entry in entries]
            lines.append(_line((*row.labels, *cells), sheet.width))
    return "\n".join(lines) + "\n"


def _line(cells: Iterable[str], width: int) -> str:
    return "  ".join(cell.ljust(width)[:width] for cell in cells) + " "


def show_paper(sheet: Sheet) -> None:
    """Print the paper's table and its note, which is alone where there is no number; the best of each column is bold.

    Bold shows on a terminal.
    """
    if not sheet.has_numbers:
        print(f"\n{sheet.title}\n{sheet.note}")
        return
    offset = len(sheet.label_columns)
    rows = [[*row.labels, *(written(entry, sheet.digits, "±") for entry in row.entries)] for row in sheet.rows]
    bold = {(i, offset + j) for i, j in sheet.best()}
    show((*sheet.label_columns, *sheet.columns), rows, bold=bold, title=sheet.title)
    print(sheet.note)


def show_listing(listing: Listing) -> None:
    """Print the table and its note."""
    show((*listing.label_columns, *listing.columns), listing.rows, prose=listing.prose, title=listing.title)
    print(listing.note)
