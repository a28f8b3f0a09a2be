"""Tables on the screen: bold on a terminal, plain elsewhere, and never a name cut short."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
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
    console = Console()
    limit = console.width if console.is_terminal else width
    squeezed = [["" if name in prose else cell for name, cell in zip(columns, row, strict=True)] for row in rows]
    least = _measured(console, _table(columns, rows if limit is None else squeezed, prose if limit else (), ()))
    if title:
        print(f"\n{title}")
    Console(width=max(limit or 0, least), highlight=False).print(_table(columns, rows, prose, bold))


def _measured(console: Console, table: Table) -> int:
    """The width that a table takes where it need not wrap."""
    return console.measure(table, options=console.options.update(max_width=_UNLIMITED)).maximum


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    prose: Collection[str],
    bold: Collection[tuple[int, int]],
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        least = max(8, len(name)) if name in prose else None
        table.add_column(Text(name), no_wrap=name not in prose, overflow="fold", min_width=least)
    for i, row in enumerate(rows):
        table.add_row(*(Text(cell, style="bold" if (i, j) in bold else "") for j, cell in enumerate(row)))
    return table
