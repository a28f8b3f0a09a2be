"""What every command shows: help with examples, one-line errors, progress, tables."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Any, NoReturn

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from domainbed_adm.errors import UserError

#: What a terminal obeys instead of showing it, and the halves of characters that no encoding can write.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


#: Seconds without a line after which a bar that prints lines prints one.
_SILENCE = 30.0


class Parser(argparse.ArgumentParser):
    """An ``ArgumentParser`` whose help ends in examples and whose errors are one line with exit code 2.

    Where ``raising`` is set, as for a caller in Python, they are a UserError instead.
    """

    raising = False

    def __init__(self, prog: str | None = None, *, examples: str = "", **kwargs: Any) -> None:
        epilog, layout = f"examples:\n{examples}" if examples else None, argparse.RawDescriptionHelpFormatter
        super().__init__(prog, epilog=epilog, formatter_class=layout, allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        """Print one line and exit with code 2.

        Raises:
            UserError: in place of that, where ``raising`` is set.
        """
        if self.raising:
            raise UserError(printable(message))
        self.exit(2, f"{self.prog}: error: {printable(message)} (see {self.prog} --help)\n")


class ProgressBar:
    """A bar with an ETA on a terminal; nothing elsewhere, where the caller's plain lines tell how far it is.

    Lines printed while the bar is shown appear above it. With ``lines``, where there is no terminal, the bar itself
    prints how far it is to the standard error stream, at most once every 30 s.
    """

    def __init__(self, title: str, total: int, done: int = 0, *, lines: bool = False) -> None:
        console = Console(file=sys.stderr)
        self._lines, self._told = lines and not console.is_terminal, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not console.is_terminal,
            redirect_stdout=sys.stdout.isatty(),
        )
        self._task = self._bar.add_task(title, total=total, completed=done, note="")

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count ``steps`` more as done, and show ``note`` behind the ETA."""
        self._bar.update(self._task, advance=steps)
        if note is not None:
            self._bar.update(self._task, note=note)
        if self._lines and time.monotonic() - self._told > _SILENCE:
            task = self._bar.tasks[self._task]
            print(
                printable(f"{task.description}: {task.completed:g}/{task.total:g} {note or ''}".rstrip()),
                file=sys.stderr,
                flush=True,
            )
            self._told = time.monotonic()

    def __enter__(self) -> ProgressBar:
        self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()


def printable(text: str) -> str:
    r"""Text from outside on one line that any terminal can show: an escape sequence becomes ``\x1b[31m``, harmless."""
    if text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def printable_values(value: Any) -> Any:
    """A value of JSON's types with every text in it as :func:`printable` gives it."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): printable_values(item) for name, item in value.items()}
    if isinstance(value, list):
        return [printable_values(item) for item in value]
    return value


def warn(message: str) -> None:
    """Print one line of warning to the standard error stream, whatever names the message holds."""
    print(f"warning: {printable(message)}", file=sys.stderr)


def show(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    prose: Collection[str] = (),
    bold: Collection[tuple[int, int]] = (),
    title: str = "",
    width: int | None = None,
) -> None:
    """Print a table to the standard output: bold on a terminal, plain elsewhere, and never a name cut short.

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
    narrow = _table(columns, rows if limit is None else squeezed, prose if limit else (), ())
    least = console.measure(narrow, options=console.options.update(max_width=10_000)).maximum
    if title:
        print(f"\n{title}")
    Console(width=max(limit or 0, least), highlight=False).print(_table(columns, rows, prose, bold))


def _table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], prose: Collection[str], bold: Collection[tuple[int, int]]
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        least = max(8, len(name)) if name in prose else None
        table.add_column(Text(name), no_wrap=name not in prose, overflow="fold", min_width=least)
    for i, row in enumerate(rows):
        table.add_row(*(Text(cell, style="bold" if (i, j) in bold else "") for j, cell in enumerate(row)))
    return table
