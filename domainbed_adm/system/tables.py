"""Tables on the screen: bold on a terminal, plain elsewhere, and never a name cut short."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_UNLIMITED = 10_000


def show(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    prose: Collection[str] = (),
    bold: Collection[tuple[int, int]] = (),
    title: str = "",
    width: int | None = None,
) -> None:
    """Print a table to the standard output.

    Args:
        columns: headings.
        rows: cells, one row for each line of the table.
        prose: headings of the columns that may wrap on a narrow terminal; the others never do.
        bold: (row, column) of cells to set in bold where the output is a terminal.
        title: a line above.
        width: columns to use at most where the output is not a terminal; None for as many as the cells take.
    """
    table = _table(columns, rows, prose, bold)
    if title:
        print(f"\n{title}")
    Console(width=_width(columns, rows, prose, width), highlight=False).print(table)


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    prose: Collection[str],
    bold: Collection[tuple[int, int]],
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(
            Text(name),
            no_wrap=name not in prose,
            overflow="fold",
            min_width=max(8, len(name)) if name in prose else None,
        )
    for i, row in enumerate(rows):
        table.add_row(*(Text(cell, style="bold" if (i, j) in bold else "") for j, cell in enumerate(row)))
    return table


def _wanted(table: Table, console: Console) -> Measurement:
    return console.measure(table, options=console.options.update(max_width=_UNLIMITED))


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]], prose: Collection[str], width: int | None) -> int:
    """The terminal's width or ``width``, or what the table takes where there is none or it is too narrow for names."""
    console = Console()
    limit = console.width if console.is_terminal else width
    if limit is None:
        return _wanted(_table(columns, rows, (), ()), console).maximum
    squeezed = [["" if name in prose else cell for name, cell in zip(columns, row, strict=True)] for row in rows]
    return max(limit, _wanted(_table(columns, squeezed, prose, ()), console).maximum)
