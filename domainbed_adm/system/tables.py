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
) -> None:
    """Print a table to the standard output.

    Args:
        columns: headings.
        rows: cells, one row for each line of the table.
        prose: headings of the columns that may wrap on a narrow terminal; the others never do.
        bold: (row, column) of cells to set in bold where the output is a terminal.
        title: a line above.
    """
    table = _table(columns, rows, prose, bold)
    if title:
        print(f"\n{title}")
    Console(width=_width(columns, rows, prose), highlight=False).print(table)


def fits(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether :func:`show` prints the table without wrapping a cell."""
    console = Console()
    return not console.is_terminal or _wanted(_table(columns, rows, (), ()), console).maximum <= console.width


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


def _width(columns: Sequence[str], rows: Sequence[Sequence[str]], prose: Collection[str]) -> int:
    """The terminal's width, or what the table takes where it is not a terminal or is too narrow for the names."""
    console = Console()
    if not console.is_terminal:
        return _wanted(_table(columns, rows, (), ()), console).maximum
    squeezed = [["" if name in prose else cell for name, cell in zip(columns, row, strict=True)] for row in rows]
    return max(console.width, _wanted(_table(columns, squeezed, prose, ()), console).maximum)
